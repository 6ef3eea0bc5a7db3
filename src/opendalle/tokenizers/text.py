"""From what a person typed to the pieces that byte-pair encoding works on.  No torch.

Two captions that a reader cannot tell apart should reach the network as the same tokens: upper case, full-width
letters, doubled spaces, invisible marks and an emoji's presentation selector therefore vanish in `normalise`.
What is left is cut by `split` into pieces across which no token may reach: words, numbers, runs of Chinese
characters, symbols.
"""

import unicodedata
from collections.abc import Iterator
from functools import lru_cache

from opendalle.base.errors import BadRequest

LONGEST_PIECE = 32  # characters; longer words are cut, so that a wall of text costs linear, not quadratic, time

_JOINERS = "\u200c\u200d"  # zero-width non-joiner and joiner: the two format characters that can carry meaning
# Code points that Unicode lets a renderer ignore, though their category does not say "format": fillers, variation
# selectors and the tag block (which also smuggles invisible text into prompts).
_IGNORABLE = ((0x034F, 0x034F), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x3164, 0x3164))
_IGNORABLE += ((0xFE00, 0xFE0F), (0xFFA0, 0xFFA0), (0xE0000, 0xE0FFF))
_HAN = ((0x2E80, 0x2FDF), (0x3005, 0x3007), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))
_KANA = ((0x3040, 0x30FF), (0x31F0, 0x31FF))
_JOINING_SCRIPTS = ((0x0600, 0x0DFF), (0x1000, 0x109F), (0x1780, 0x18AF))  # Arabic to Sinhala, Burmese, Khmer, Mongol
_UNSPACED = ("han", "kana")


def normalise(text: str) -> str:
    """Return the canonical form of a caption; the encoder applies it, so callers need not.

    Compatibility composition (NFKC), lower case, white space collapsed to single spaces; control characters,
    direction marks, variation selectors and other invisible characters are dropped.  A zero-width joiner stays
    between two emoji (it makes one family of three people) and between letters of scripts that join (there it
    spells); anywhere else it is invisible and goes.  Applying it twice changes nothing.

    Args:
        text: any text, of any length, in any language.

    Raises:
        BadRequest: when the text holds half a surrogate pair, which is no character.
    """
    check_characters(text)
    for _ in range(4):  # a dropped mark can let its neighbours compose; two rounds settle every text we know of
        settled = _normalise_once(text)
        if settled == text:
            break
        text = settled
    return text


def check_characters(text: str) -> None:
    """Refuse what is no text.

    Args:
        text: any.

    Raises:
        BadRequest: when it holds half a surrogate pair, which is no character.
    """
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise BadRequest("a caption with half a surrogate pair", "valid Unicode text")


def _normalise_once(text: str) -> str:
    spaced = " ".join(text.split())  # before controls go: a tab or a line end is a space, not nothing
    kept = "".join(character for character in spaced if not _is_dropped(character))
    if any(joiner in kept for joiner in _JOINERS):
        kept = "".join(c for i, c in enumerate(kept) if c not in _JOINERS or _joins(kept, i))
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", kept).lower())
    return " ".join(folded.split())


def split(text: str) -> Iterator[str]:
    """Cut normalised text into pieces; joined, they are the text, with one space before its first word.

    A space belongs to the word behind it, so a word is the same piece at the start and inside of a sentence.
    Chinese and Japanese need no spaces: there a run of characters is a piece and a space, if any, its own.

    Args:
        text: the result of `normalise`.
    """
    if not text:
        return
    if _kind(text[0]) not in _UNSPACED:
        text = " " + text
    start, kind = 0, _kind(text[0])
    for at in range(1, len(text)):
        following = _kind(text[at])
        if following == "mark":  # accents, vowel signs, joiners stay with what they modify
            following = kind
        leads_word = kind == "space" and following not in _UNSPACED and at - start == 1
        if (following != kind and not leads_word) or at - start >= LONGEST_PIECE:
            yield text[start:at]
            start = at
        kind = following
    yield text[start:]


@lru_cache(maxsize=1 << 16)
def is_han(character: str) -> bool:
    """Tell whether a character is Chinese writing (as used in Japanese and Korean too)."""
    return _within(character, _HAN)


@lru_cache(maxsize=1 << 16)
def _kind(character: str) -> str:
    """Name the class of a character: space, mark, han, kana, letter, number or symbol."""
    if character == " ":
        return "space"
    if is_han(character):
        return "han"
    category = unicodedata.category(character)[0]
    if category == "M" or character in _JOINERS:
        return "mark"
    if _within(character, _KANA):
        return "kana"
    return {"L": "letter", "N": "number"}.get(category, "symbol")


@lru_cache(maxsize=1 << 16)
def _is_dropped(character: str) -> bool:
    if character in _JOINERS:
        return False  # decided in context
    return unicodedata.category(character) in ("Cc", "Cf") or _within(character, _IGNORABLE)


def _joins(text: str, at: int) -> bool:
    """Tell whether the joiner at this place carries meaning."""
    if at == 0 or at + 1 == len(text):
        return False
    before, after = text[at - 1], text[at + 1]
    if all(unicodedata.category(c) in ("So", "Sk") for c in (before, after)):
        return text[at] == "\u200d"
    return _within(before, _JOINING_SCRIPTS) and (_within(after, _JOINING_SCRIPTS) or after == " ")


def _within(character: str, ranges: tuple[tuple[int, int], ...]) -> bool:
    code = ord(character)
    return any(low <= code <= high for low, high in ranges)
