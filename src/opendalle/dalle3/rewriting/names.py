"""What a text says in words that may not be changed: quoted words, names, and codes such as R2D2 or 4K.

A name in English is a word with a capital letter that does not owe it to the beginning of a sentence.  A first word is
held for one as well unless it is a common one, since "Paris at night" begins with a name: that asks too much of a new
text rather than too little.  In a text in capitals throughout, or with a capital on every word, they tell nothing.
Chinese marks no names; what is in Latin letters within a Chinese text counts as one.
"""

import re

from opendalle.dalle3.rewriting.counts import is_number_word, without_counts
from opendalle.dalle3.rewriting.language import EMPTY_WORDS, WORD, is_chinese, normal, spaced_words, stem

_QUOTES = re.compile(
    r"\"([^\"\n]+)\"|“([^”\n]+)”|„([^“”\n]+)[“”]|«([^»\n]+)»|「([^」\n]+)」|『([^』\n]+)』|《([^》\n]+)》|`([^`\n]+)`"
    r"|‘((?:[^’\n]|(?<=\w)’(?=\w))+)’(?!\w)|(?<!\w)'((?:[^'\n]|(?<=\w)'(?=\w))+)'(?!\w)"  # not an apostrophe
)
_BEGINNING = re.compile(r"(?:^|[.!?:;]\s+|\n)\W*$")  # what stands before the first word of a sentence
_I = re.compile(r"I(?:['’].*)?")
_CODE = re.compile(r"(?=\w*\d)(?=\w*[^\W\d])\w+")  # digits and letters in one word


def quoted(text: str) -> list[str]:
    """Return what stands in quotation marks of any kind, without them.

    Args:
        text: in any language.
    """
    found = ["".join(one for one in groups if one) for groups in _QUOTES.findall(text)]
    return [one for one in (_bare(each) for each in found) if one]


def lost_quote(original: str, rewritten: str) -> str | None:
    """Return quoted words that a new text does not quote letter by letter; None if it keeps all.

    The quotation marks may be others; a comma or full stop may have moved inside them.

    Args:
        original: as a person typed it.
        rewritten: what was made of it.
    """
    now = set(quoted(rewritten))
    return next((one for one in quoted(original) if one not in now), None)


def _bare(text: str) -> str:
    return normal(text).strip().rstrip(",.").strip()


def names_of(text: str) -> list[str]:
    """Return the words of a text that are names or codes, as they stand.

    Args:
        text: in any language.
    """
    text = normal(text)
    if is_chinese(text):
        return list(dict.fromkeys(spaced_words(without_counts(text))))
    words = spaced_words(text)
    found = [] if _is_in_capitals(words) else _capitalised(text)
    return list(dict.fromkeys([*found, *(one for one in words if _CODE.fullmatch(one))]))


def lost_name(original: str, rewritten: str) -> str | None:
    """Return a name that a new text does not hold; None if it holds all.

    Args:
        original: as a person typed it.
        rewritten: what was made of it.
    """
    now = {stem(piece) for one in spaced_words(rewritten) for piece in (one, *one.split("-"))}
    return next((one for one in names_of(original) if stem(one) not in now), None)


def _capitalised(text: str) -> list[str]:
    found: list[str] = []
    for match in WORD.finditer(text):
        word = match[0]
        is_first = _BEGINNING.search(text[: match.start()]) is not None
        is_common = is_first and (word.casefold() in EMPTY_WORDS or is_number_word(word))
        if word[0].isupper() and not is_common and not _I.fullmatch(word):
            found.append(word)
    return found


def _is_in_capitals(words: list[str]) -> bool:
    """Whether capitals are the fashion of a text: every word that says something begins with one."""
    telling = [one for one in words if one.casefold() not in EMPTY_WORDS and one[0].isalpha()]
    return len(telling) >= 4 and all(one[0].isupper() for one in telling)
