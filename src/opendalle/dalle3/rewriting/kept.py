"""What a new text must keep of the old one, whoever wrote it: each check has a name, and says what it misses.

    text       one paragraph of printable characters, no mark-up, no address
    talk       no preface, no refusal, no label: the text itself
    length     15 to 80 words (Chinese: 23 to 120 characters)
    language   the same script
    quotes     quoted words, letter by letter
    names      names and codes
    counts     as many of the same things
    words      most of the words that say something

Source: the rules of Betker et al., appendix C, and what pictures need; each reading of a text is in a file of its own.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from opendalle.base.errors import require
from opendalle.dalle3.rewriting.counts import lost_count
from opendalle.dalle3.rewriting.language import meaning_of, normal, num_words, script_of
from opendalle.dalle3.rewriting.names import lost_name, lost_quote

_TALK = re.compile(
    r"^\W*(?:(?:sure|certainly|of course|absolutely|okay|ok|great)[,!.:，！]|here(?:'s| is| are)\b|this is a\b"
    r"|i am sorry|i'm sorry|sorry|unfortunately|as an ai|as a language model"
    r"|i can ?not|i can't|i won't|i will|i'd|i would|i am unable|i'm unable"
    r"|(?:the |your |a )?(?:new |revised |rewritten |expanded |improved |detailed |final |image |enhanced )*"
    r"(?:prompt|caption|description|rewrite|output|answer|result)\s*(?:is\s*)?[:：]"
    r"|好的|当然|以下是|下面是|这是|这里是|抱歉|对不起|很抱歉|不好意思|我(?:无法|不能|会|可以|将)"
    r"|作为(?:一个|一名)?(?:人工智能|AI)|(?:改写|扩写|提示词|描述|图片描述|答案|输出)(?:后|为|如下)?[:：])",
    re.IGNORECASE,
)
_ASIDE = re.compile(
    r"let me know|hope this helps|feel free|as an ai\b|language model|word count|\(\d+ words\)"
    r"|希望(?:这|对你)|请告诉我|字数",
    re.IGNORECASE,
)
_MARKUP = re.compile(r"```|\*\*|^#+ |^\s*[-*•]\s|<\|?/?[A-Za-z_]+\|?>|https?://|\[[^\]]*\]\(", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class KeptConfig:
    """How much a new text may say and must keep."""

    min_words: int = 15  # of the new text; Chinese: CHARACTERS_A_WORD characters each
    max_words: int = 80  # of the new text
    min_share: float = 0.5  # of the old text's words that say something, found again in the new one; 0 to 1

    def __post_init__(self) -> None:
        is_order = 1 <= self.min_words <= self.max_words
        require(is_order, f"{self.min_words} to {self.max_words} words", "at least 1, and not fewer most than least")
        require(0 <= self.min_share <= 1, f"min_share {self.min_share}", "0 to 1")


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A check that a new text did not pass."""

    check: str  # its name
    missed: str  # what was missed, for a person

    def __str__(self) -> str:
        return f"{self.check} ({self.missed})"


def failed_checks(original: str, rewritten: str, config: KeptConfig | None = None) -> tuple[Failed, ...]:
    """Compare a new text with what it was made of.

    Args:
        original: as a person typed it; not empty.
        rewritten: what was made of it.
        config: limits.

    Returns:
        What it did not pass, in the order of the table above; empty: it may be drawn.
    """
    config = config or KeptConfig()
    missed = ((name, check(original, rewritten, config)) for name, check in _CHECKS)
    return tuple(Failed(check=name, missed=one) for name, one in missed if one is not None)


def tidied(text: str) -> str:
    """Take off what chat models wrap round an answer: their thoughts, spaces, and quotation marks round all of it.

    Args:
        text: as it came.
    """
    text = re.sub(r"^\s*<think>.*?</think>", "", text, flags=re.DOTALL)
    text = re.sub(r"[ \t]+", " ", text).strip()
    for opening, closing in ('""', "“”", "「」"):
        inner = text[1:-1]
        if len(text) > 2 and text[0] == opening and text[-1] == closing and not {opening, closing} & set(inner):
            return inner.strip()
    return text


def _bad_text(original: str, rewritten: str, config: KeptConfig) -> str | None:
    del config
    if not rewritten.strip():
        return "nothing"
    if any(not one.isprintable() for one in rewritten):  # also line breaks, and half surrogate pairs
        return "several lines, or characters that cannot be printed"
    found = _MARKUP.search(rewritten)
    return f"mark-up as {found[0].strip()!r}" if found and found[0] not in original else None


def _talk(original: str, rewritten: str, config: KeptConfig) -> str | None:
    del config
    for pattern in (_TALK, _ASIDE):
        found = pattern.search(rewritten)
        if found and found[0].strip().casefold() not in original.casefold():
            return f"it speaks of itself: {found[0].strip()!r}"
    return None


def _wrong_length(original: str, rewritten: str, config: KeptConfig) -> str | None:
    del original
    said = num_words(rewritten)
    return None if config.min_words <= said <= config.max_words else f"{said:.0f} words"


def _other_language(original: str, rewritten: str, config: KeptConfig) -> str | None:
    del config
    was, now = script_of(original), script_of(rewritten)
    return None if was in ("", now) else f"{was} became {now or 'no letters'}"


def _few_words(original: str, rewritten: str, config: KeptConfig) -> str | None:
    wanted, now = meaning_of(original), meaning_of(normal(rewritten).replace("-", " ")) | meaning_of(rewritten)
    lost = sorted(wanted - now)
    share = 1 - len(lost) / len(wanted) if wanted else 1.0
    return None if share >= config.min_share else "without " + ", ".join(lost)


def _without_config(lost: Callable[[str, str], str | None]) -> Callable[[str, str, KeptConfig], str | None]:
    return lambda original, rewritten, _: lost(original, rewritten)


_CHECKS: Sequence[tuple[str, Callable[[str, str, KeptConfig], str | None]]] = (
    ("text", _bad_text),
    ("talk", _talk),
    ("length", _wrong_length),
    ("language", _other_language),
    ("quotes", _without_config(lost_quote)),
    ("names", _without_config(lost_name)),
    ("counts", _without_config(lost_count)),
    ("words", _few_words),
)
