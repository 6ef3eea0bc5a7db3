"""How many of what a text tells of: digits and number words, in English and Chinese.

A count is kept when the new text counts as many of the same thing.  "Three cats" may become "3 fluffy cats" and
"三只猫" may become "三只橘色的小猫", but neither "four cats" nor "some cats" nor "three dogs and some cats".
A single thing may not become several: of "a cat" no "two cats" are made.
"""

import re
from dataclasses import dataclass

from opendalle.dalle3.rewriting.language import EMPTY_WORDS, WORD, normal, stem

_ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
_ONES += "seventeen eighteen nineteen"
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_value_of_word = {word: value for value, word in enumerate(_ONES.split())}
_value_of_word |= {word: 10 * value for value, word in enumerate(_TENS.split(), start=2)}
_value_of_scale = {"hundred": 100, "thousand": 1_000, "million": 1_000_000}
_value_of_group = {"duo": 2, "couple": 2, "pair": 2, "trio": 3, "quartet": 4}  # before "of"
_singles = frozenset(("a", "an", "single", "lone", "solitary", "another"))

_value_of_digit = {one: value for value, one in enumerate("零一二三四五六七八九")} | {"两": 2, "兩": 2, "〇": 0}
_value_of_unit = {"十": 10, "百": 100, "千": 1_000, "万": 10_000}
_CHINESE = re.compile(
    "([0-9]+|[一二三四五六七八九十百千万两兩零〇]+)"
    "[个個只隻条條张張朵颗顆块塊位名头頭匹辆輛座棵株本把件双雙对對副根支枝架艘扇盏盞杯碗瓶盘盤片幅间間栋棟层層群岁枚粒串"
    "人台颜种種束团團道面顶頂封滴口尾]"
)
_pairs = frozenset("双雙对對")
_CHINESE_STOP = re.compile("[，。、；：！？,.;:!?和与與跟及在]|并且|旁边|站|坐")
_chinese_fill = frozenset("的了着小大一子儿上下里中内外前后")
_stop = "in on at to for from by with without and or but as is are was were near beside under over"
_STOP = frozenset(_stop.split())

_UNCHANGED = frozenset(("sheep", "fish", "deer", "moose", "aircraft"))  # plurals without an ending

LARGE = 1_000  # from here on a number is more likely a year than a count: it must be there, wherever
NEAR_WORDS = 5  # of a phrase after its count
NEAR_CHARACTERS = 16
_FEW_CHARACTERS = 6


@dataclass(frozen=True)
class Count:
    """A number and the words that follow it, among them what is counted."""

    value: int
    things: frozenset[str]  # stems of the words, or characters; empty: the number stands alone
    plain: frozenset[str]  # the same words without case, as they stand
    is_said: bool  # a number word or digits; False: only an article, or 一
    head: str = ""  # of a Chinese phrase the last character, which tells what is counted


def counts_of(text: str) -> list[Count]:
    """Find every count of a text.

    Args:
        text: English, Chinese, or both.
    """
    text = normal(text)
    return [*_chinese(text), *_spaced(_CHINESE.sub(" , ", text))]  # what is read once is not read again


def without_counts(text: str) -> str:
    """Return a text without its Chinese counts."""
    return _CHINESE.sub(" ", normal(text))


def is_number_word(word: str) -> bool:
    """Whether an English word is a number."""
    return word.casefold() in {*_value_of_word, *_value_of_scale, "dozen"}


def lost_count(original: str, rewritten: str) -> str | None:
    """Return a count that a new text does not keep, in words; None if it keeps all.

    Args:
        original: as a person typed it.
        rewritten: what was made of it.
    """
    was, now = counts_of(original), counts_of(rewritten)
    for wanted in was:
        alike = [one for one in now if not wanted.things or wanted.things & one.things]
        is_there = any(one.value == wanted.value for one in alike)
        known = {one.value for one in was if one.is_said}
        too_many = [one for one in alike if one.is_said and one.value > wanted.value and one.value not in known]
        # Fewer of them may be told of apart ("three cats, one of them black"); more of them are others.
        if (wanted.is_said and not is_there) or any(_are_same(one, wanted) for one in too_many):
            return f"{wanted.value} {' '.join(sorted(wanted.plain))}".strip()
    return None


def _are_same(several: Count, wanted: Count) -> bool:
    """Whether the same is counted: "five red leaves" share their colour with "three red apples", and no more."""
    if wanted.head:  # Chinese knows no plural
        return wanted.head in several.things
    plurals = {one for one in several.plain if stem(one) != one or one in _UNCHANGED}
    if not wanted.is_said:  # of "a photo of cats" there may be five
        plurals -= {one for one in wanted.plain if stem(one) != one}
    return any(stem(one) in wanted.things for one in plurals)


def _spaced(text: str) -> list[Count]:
    found: list[Count] = []
    for part in re.split(r"[^\w'’\- ]+|\s-+\s", text.replace("\n", " ")):
        words = [piece for one in WORD.findall(part) for piece in _split(one.casefold())]
        place = 0
        while place < len(words):
            value, used, is_said = _number(words, place)
            if used:
                things = _phrase(words[place + used :]) if value < LARGE else []
                found.append(Count(value, frozenset(map(stem, things)), frozenset(things), is_said))
            place += used or 1
    return found


def _split(word: str) -> list[str]:
    """Take "twenty-one" apart, and nothing else that has a hyphen."""
    pieces = word.split("-")
    return pieces if all(one in _value_of_word or one in _value_of_scale for one in pieces) else [word]


def _number(words: list[str], place: int) -> tuple[int, int, bool]:
    """Return value, words used (0: no number), and whether it is said with a number word."""
    word, after = words[place], words[place + 1 : place + 3]
    if word == "half" and after == ["a", "dozen"]:
        return 6, 3, True
    if word == "a" and after[:1] in (["dozen"], ["hundred"], ["thousand"]):
        value, used, _ = _number(["one", *words[place + 1 :]], 0)
        return value, used, True
    if word in ("a", "the") and len(after) == 2 and after[0] in _value_of_group and after[1] == "of":
        return _value_of_group[after[0]], 3, True
    if word in _value_of_group and after[:1] == ["of"]:
        return _value_of_group[word], 2, True
    if word in _singles:
        return 1, 1, False
    if word.isascii() and word.isdigit():
        return int(word[:18]), 1, True
    if word not in _value_of_word and word != "dozen":
        return 0, 0, False
    if word == "dozen":
        return 12, 1, True
    value, used = _value_of_word[word], 1
    if value >= 20 and after and 0 < _value_of_word.get(after[0], 0) < 10:
        value, used = value + _value_of_word[after[0]], 2
    while place + used < len(words) and words[place + used] in {*_value_of_scale, "dozen"}:
        value, used = value * _value_of_scale.get(words[place + used], 12), used + 1
    return value, used, True


def _phrase(words: list[str]) -> list[str]:
    """Return the words that may be what is counted: up to a preposition, another count, or the end."""
    found: list[str] = []
    for place, word in enumerate(words[:NEAR_WORDS]):
        if word in _STOP or _number(words, place)[1]:
            break
        if word not in EMPTY_WORDS:
            found.append(word)
    return found


def _chinese(text: str) -> list[Count]:
    found: list[Count] = []
    for match in _CHINESE.finditer(text):
        value = _chinese_value(match[1])
        if value is None:
            continue
        value *= 2 if text[match.end() - 1] in _pairs else 1
        after = text[match.end() : match.end() + NEAR_CHARACTERS]
        if following := _CHINESE.search(after):
            after = after[: following.start()]
        phrase = [one for one in _CHINESE_STOP.split(after)[0] if one not in _chinese_fill and one.isalpha()]
        things = frozenset(phrase)
        found.append(
            Count(value, things, things, is_said=(match[1], value) != ("一", 1), head=phrase[-1] if phrase else "")
        )
    return found


def _chinese_value(text: str) -> int | None:
    """Read 12, 十二, 两百 or 二十一; None if it is no number."""
    if text.isdigit() and text.isascii():
        return int(text[:18])
    total, digit = 0, 0
    for one in text:
        if one in _value_of_digit:
            digit = _value_of_digit[one]
        else:
            total, digit = total + (digit or 1) * _value_of_unit[one], 0
    return total + digit
