"""What can be told of a text without understanding it: its script, its length, its words.

Chinese has no spaces, so its length is counted in characters: `CHARACTERS_A_WORD` of them say about as much as an
English word.  So 15 to 80 words are 23 to 120 characters.
"""

import re
import unicodedata
from collections.abc import Iterable

CHARACTERS_A_WORD = 1.5  # of Chinese or kana; translations between English and Chinese come out near this

WORD = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*")  # letters and digits; inside also an apostrophe or a hyphen
_UNSPACED = re.compile(
    "[\u3005-\u3007\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)  # Han and kana

_plurals = (
    "men man women woman children child people person mice mouse geese goose feet foot teeth tooth oxen ox leaves leaf "
    "wolves wolf knives knife loaves loaf shelves shelf halves half scarves scarf elves elf lives life "
    "tomatoes tomato potatoes potato heroes hero mangoes mango"
)
_IRREGULAR = dict(zip(_plurals.split()[::2], _plurals.split()[1::2], strict=True))

# Words that say nothing of what is to be seen.
_empty = (
    "a an the of in on at to for from by with without and or but as is are was were be being been it its this that "
    "these those there his her their my your our some any no not very i me you he she they we into onto over under "
    "who which while where when so than then like just please draw create make generate paint show design imagine "
    "illustrate render picture image photo photograph illustration painting drawing sketch scene me can could would"
)
EMPTY_WORDS = frozenset(_empty.split())


def normal(text: str) -> str:
    """Return a text in one spelling: full-width letters and digits narrow, accents composed."""
    return unicodedata.normalize("NFKC", text)


def num_words(text: str) -> float:
    """Return how long a text is, in words; Chinese and Japanese by characters.

    Args:
        text: in any language.
    """
    characters = len(_UNSPACED.findall(text))
    return len(WORD.findall(_UNSPACED.sub(" ", text))) + characters / CHARACTERS_A_WORD


def script_of(text: str) -> str:
    """Return the script that most of a text is written in: its Unicode name's first word, "" if it has no letters.

    Han and kana are one script as long as there is no kana; one of their characters weighs as much as three letters.

    Args:
        text: in any language.
    """
    weights: dict[str, int] = {}
    for one in normal(text):
        if one.isalpha():
            script = unicodedata.name(one, "UNKNOWN").split()[0].split("-")[0]
            weights[script] = weights.get(script, 0) + (3 if _UNSPACED.match(one) else 1)
    if not weights:
        return ""
    kana = weights.pop("HIRAGANA", 0) + weights.pop("KATAKANA", 0)
    if kana:
        weights["JAPANESE"] = kana + weights.pop("CJK", 0)
    return max(weights, key=lambda one: weights[one])


def is_chinese(text: str) -> bool:
    """Whether a text is mostly Chinese."""
    return script_of(text) == "CJK"


def stem(word: str) -> str:
    """Return an English word without case, possessive and plural: enough to find it again in another sentence."""
    word = re.sub("['’]s?$", "", word.casefold())
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("ches", "shes", "sses", "xes", "zes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def spaced_words(text: str) -> list[str]:
    """Return the words of a text that are written with spaces round them, as they stand."""
    return WORD.findall(_UNSPACED.sub(" ", normal(text)))


def unspaced_characters(text: str) -> list[str]:
    """Return the Chinese and Japanese characters of a text, in order."""
    return _UNSPACED.findall(normal(text))


def meaning_of(text: str) -> frozenset[str]:
    """Return what a text is about, as a set: stems of words that say something, and characters without spaces.

    Args:
        text: in any language.
    """
    stems = _stems(spaced_words(text))
    return frozenset(stems) | (frozenset(unspaced_characters(text)) - frozenset("的了在是有和与一上下里中着个只"))


def _stems(words: Iterable[str]) -> list[str]:
    return [stem(one) for one in words if one.casefold() not in EMPTY_WORDS]
