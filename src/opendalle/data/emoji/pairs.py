"""What a person types, and the caption that an attentive writer would have made of it: text alone, no picture.

Half of what a prompt leaves open is chance: a style, a background, colours.  The caption behind it settles all of it in
one way that this world draws, so a model that learns from such pairs adds what can be drawn.

Most prompts of people have words that no caption of a small world has.  Their captions can say nothing of them but
repeat them: a model that learns these copies what it does not know.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from opendalle.base.errors import require
from opendalle.data.emoji.captions import CaptionConfig, write_caption
from opendalle.data.emoji.colours import COLOUR_NAMES, COLOUR_OF_NAME
from opendalle.data.emoji.descriptions import description
from opendalle.data.emoji.draws import between, coin, pick, weighted
from opendalle.data.emoji.lexicon import NUMBERS_EN, NUMBERS_ZH, STYLE_WORDS, Lexicon, article
from opendalle.data.emoji.truth import Truth

_ENGLISH = "bcdfghjklmnpqrstvwz"
_VOWELS = "aeiou"
_DOING_EN = ("wearing", "holding", "riding", "eating", "beside", "on top of", "under", "with", "in front of", "made of")
_DOING_ZH = ("戴着", "拿着", "骑着", "吃着", "旁边有", "下面有", "上面有", "穿着")
_MEASURES = ("个", "只", "条", "朵")
_WRITTEN_EN, _WRITTEN_ZH = ("that says", "saying", "with the word"), ("写着", "上写着", "说")


@dataclass(frozen=True, kw_only=True)
class PairsConfig:
    """Which pairs of texts are written."""

    strange: float = 0.3  # share with words that the world does not know
    chinese: float = 0.35  # share in Chinese; the others are English
    style_named: float = 0.35  # share of short prompts that name the style
    background_named: float = 0.4  # share of short prompts that name the background, if there is one
    terse: float = 0.15  # share of short prompts that are keywords

    def __post_init__(self) -> None:
        for name, share in vars(self).items():
            require(0 <= share <= 1, f"{name}={share}", "a share from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A short prompt, and a caption of a picture that does what it asks."""

    short: str
    full: str


def known_pair(truth: Truth, lexicon: Lexicon, config: PairsConfig, rng: np.random.Generator) -> Pair:
    """Tell of one picture twice.

    Args:
        truth: what it shows.
        lexicon: the words of its world.
        config: how short the prompt is.
        rng: all chance comes from it.
    """
    language = "zh" if coin(rng, config.chinese) else "en"
    is_named = truth.background is not None and coin(rng, config.background_named)
    asked = truth if is_named else replace(truth, background=None)
    written = {thing.word for thing in truth.things if thing.word}
    terse = 0.0 if written else config.terse  # keywords come in any case, and then nobody knows how a word is written
    voice = {"terse": terse, "short": 1 - terse}
    captions = CaptionConfig(
        voices=voice, languages={language: 1.0}, style_named=config.style_named, transparent_named=0.0, odd_terse=0.0
    )
    short = write_caption(asked, lexicon, captions, rng)
    full = description(truth, lexicon, language, rng)
    for word in sorted(written):  # people write all kinds of things on signs
        other = _inscription((word, _made_up(rng)), rng)
        for opening, closing in ('""', "“”"):
            before, after = f"{opening}{word.lower()}{closing}", f"{opening}{other}{closing}"
            short, full = short.replace(before, after), full.replace(before, after)
    return Pair(short=short, full=full)


def strange_pair(words: Sequence[str], chinese: Sequence[str], config: PairsConfig, rng: np.random.Generator) -> Pair:
    """Tell of something that nobody has seen, in words from anywhere or from nowhere.

    Args:
        words: English ones; may be none, then all are made up.
        chinese: Chinese ones; may be none, then they are made of common characters.
        config: share of Chinese.
        rng: all chance comes from it.
    """
    if coin(rng, config.chinese):
        return _strange_chinese(chinese, rng)
    return _strange_english(words, rng)


def _strange_english(words: Sequence[str], rng: np.random.Generator) -> Pair:
    def word() -> str:
        return pick(rng, words) if words and coin(rng, 0.6) else _made_up(rng)

    def thing() -> str:
        noun = " ".join(word() for _ in range(between(rng, 1, 2)))
        return f"{pick(rng, COLOUR_NAMES)} {noun}" if coin(rng, 0.2) else noun

    shape = weighted(rng, {"lone": 0.3, "two": 0.35, "count": 0.15, "name": 0.1, "written": 0.1})
    if shape == "count":
        count = between(rng, 2, 9)
        number = NUMBERS_EN[count] if count < len(NUMBERS_EN) and coin(rng, 0.7) else str(count)
        asked = f"{number} {thing()}s"
    elif shape == "name":
        asked = f"{word().title()} {word().title()} {pick(rng, _DOING_EN)} {article(thing())}"
    elif shape == "written":
        asked = f'{article(thing())} {pick(rng, _WRITTEN_EN)} "{_inscription((word(), word()), rng)}"'
    else:
        asked = article(thing())
        asked += f" {pick(rng, _DOING_EN)} {article(thing())}" if shape == "two" else ""
    style = STYLE_WORDS[pick(rng, tuple(STYLE_WORDS))]
    kind = article(f"{pick(rng, style.adjectives)} {pick(rng, ('picture', 'drawing', 'illustration'))}")
    behind = pick(rng, COLOUR_NAMES)
    place = {"lone": " that fills the whole picture", "two": ""}.get(shape, " in the middle of the picture")
    full = f"{kind} of {asked}{place}. the background is plain {behind}."
    return Pair(short=asked if coin(rng, 0.8) else asked.removeprefix("a ").removeprefix("an "), full=full)


def _strange_chinese(chinese: Sequence[str], rng: np.random.Generator) -> Pair:
    def thing() -> str:
        own = "".join(chr(between(rng, 0x4E00, 0x9FA5)) for _ in range(between(rng, 1, 3)))
        noun = pick(rng, chinese) if chinese and coin(rng, 0.6) else own
        return f"{COLOUR_OF_NAME[pick(rng, COLOUR_NAMES)].zh}的{noun}" if coin(rng, 0.2) else noun

    shape = weighted(rng, {"lone": 0.35, "two": 0.4, "count": 0.15, "written": 0.1})
    if shape == "count":
        asked = f"{pick(rng, (*NUMBERS_ZH[2:], '五', '六', '七', '八', '九'))}{pick(rng, _MEASURES)}{thing()}"
    elif shape == "written":
        asked = f"{thing()}{pick(rng, _WRITTEN_ZH)}“{_inscription((_made_up(rng), _made_up(rng)), rng)}”"
    else:
        asked = thing() + (f"{pick(rng, _DOING_ZH)}{thing()}" if shape == "two" else "")
        asked = f"一{pick(rng, _MEASURES)}{asked}" if coin(rng, 0.4) else asked
    style = pick(rng, STYLE_WORDS[pick(rng, tuple(STYLE_WORDS))].zh)
    behind = COLOUR_OF_NAME[pick(rng, COLOUR_NAMES)].zh
    full = f"一张{style}的{pick(rng, ('图片', '插画', '图画'))}，{asked}占满了画面。背景是纯{behind}。"
    return Pair(short=asked, full=full)


def _made_up(rng: np.random.Generator) -> str:
    """Return a word of no language, that English mouths could say."""
    syllables = (pick(rng, _ENGLISH) + pick(rng, _VOWELS) for _ in range(between(rng, 1, 3)))
    return "".join(syllables) + (pick(rng, _ENGLISH) if coin(rng, 0.5) else "")


def _inscription(words: tuple[str, str], rng: np.random.Generator) -> str:
    """Return the first word, the second, or both, in some case: a model learns to copy letter by letter."""
    text = pick(rng, (*words, " ".join(words)))
    return pick(rng, (text, text.upper(), text.title()))
