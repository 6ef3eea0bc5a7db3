"""Reading a caption for what it claims: which things, how many, in which colour, where, on what, and which words.

The reader knows the words of one world, English and Chinese, and cuts a caption into the fewest phrases that it knows,
so that `green apple` is not an apple that is green.  It can be both, though: painted scenes have green apples too.  So
a mention keeps all its readings, and whoever marks it may believe the kindest.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from opendalle.data.emoji.colours import COLOURS
from opendalle.data.emoji.lexicon import CATEGORIES, SHAPE_NOUNS, STYLE_WORDS, Lexicon

KIND_OF = "kind of: "  # before the English words of a category, where a key would stand
_HAN = "\u3400-\u4dbf\u4e00-\u9fff"
_TOKEN = re.compile(rf"[{_HAN}]|[^\W_{_HAN}]+(?:['’.&-][^\W_{_HAN}]+)*|[^\w\s]")
_QUOTED = re.compile(r"[\"“”„«「『]([^\"“”„«»「」『』]{1,80})[\"“”»」』]")
_ARTICLES = ("a", "an", "the")
_NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_NUMBERS_ZH = ("一", "两", "三", "四", "五", "六", "七", "八", "九", "十", "十一", "十二")
_SIZES = {
    "big": ("big", "large", "huge", "大", "巨大", "巨大的", "大大的", "很大的"),
    "small": ("small", "little", "tiny", "小", "小小的", "微小的", "很小的"),
}
_BETWEEN = {  # what stands between two things: the first is ... of the second
    "left": ("to left of", "left of", "on left of", "at left of"),
    "right": ("to right of", "right of", "on right of", "at right of"),
    "above": ("above", "over", "on top of"),
    "below": ("below", "under", "beneath", "underneath"),
}
_PLACED = {  # what stands behind a thing, or in Chinese on either side
    "left": ("on left", "at left", "on left side", "左边", "左侧", "左面"),
    "right": ("on right", "at right", "on right side", "右边", "右侧", "右面"),
    "above": ("at top", "on top", "上方", "上面", "上边"),
    "below": ("at bottom", "on bottom", "下方", "下面", "下边"),
}
_GROUNDS = ("background", "bg", "背景", "底")
_GROUND_IS = ("background is", "background is plain", "on plain", "背景是", "背景是纯", "背景为")
_FURNITURE = (  # what belongs to signs and speech bubbles, and tells nothing
    *("brown post", "white speech bubble", "speech bubble", "棕色的柱子", "白色气泡", "白色的气泡"),
    *(f"at {height} {side}" for height in ("upper", "lower", "top", "bottom") for side in ("left", "right")),
    *(f"{side}{height}方" for side in "左右" for height in "上下"),
)
_CLEAR = ("transparent", "透明")
_KINDS_ZH = ("图片", "图标", "插画", "表情", "图画", "贴纸")
_SILENT = ("的", "上", "上的", "of", "is", "are", "mostly", "主要是")
_UNKNOWN, _FUNCTION = 3.0, 0.9  # what a word costs that nobody knows, and one between names; see `_cuts`
_COST = {"name": 1.0, "word": 2.0}  # a word: one that people search by; 小鸡蛋 is a small egg, not a chick and an egg
OPPOSITE: Mapping[str, str] = {"left": "right", "right": "left", "above": "below", "below": "above"}


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One way to understand a noun phrase."""

    key: str  # hexcode, name of a shape, or KIND_OF and a category
    count: int | None = None  # told by a number, or a or an (then `is_told` is False)
    colour: str | None = None
    size: str | None = None  # big or small
    is_told: bool = True  # whether the count is a number's


@dataclass(frozen=True, kw_only=True)
class Mention:
    """One noun phrase that names things."""

    phrase: str  # as it was matched, tokens with blanks between
    readings: tuple[Reading, ...]
    side: str | None = None  # where it is said to be in the picture

    def of(self, keys: Iterable[str]) -> tuple[Reading, ...]:
        """Return the readings that mean one of these keys."""
        wanted = set(keys)
        return tuple(one for one in self.readings if one.key in wanted)


@dataclass(frozen=True, kw_only=True)
class Said:
    """All that a caption claims."""

    mentions: tuple[Mention, ...]
    relations: tuple[tuple[int, str, int], ...]  # mention, left/right/above/below, mention
    background: str | None  # a colour
    is_clear: bool  # whether it calls the background transparent
    styles: frozenset[str]
    colours: tuple[str, ...]  # that belong to no mention
    words: tuple[str, ...]  # in quotes, lower case
    text: str  # the caption's tokens, lower case, with blanks between and around: to look for other words


def tokens_of(text: str) -> list[str]:
    """Cut a text into words, Chinese characters and punctuation; lower case, every punctuation mark a comma."""
    return [one if one[0].isalnum() else "," for one in _TOKEN.findall(text.casefold())]


def spelled(text: str) -> str:
    """Return a phrase as the reader compares it: tokens with blanks between, without articles."""
    return " ".join(one for one in tokens_of(text) if one not in _ARTICLES)


@dataclass(frozen=True)
class _Item:
    """A phrase that was found: what it is, and what it says."""

    role: str  # name, colour, size, number, between, placed, ground, clear, style, word, or the phrase of its own
    value: str = ""
    phrase: str = ""


class ClaimReader:
    """Reads captions in the words of one world.

    Args:
        lexicon: its words.
        synonyms: key -> further words for it.
    """

    def __init__(self, lexicon: Lexicon, synonyms: Mapping[str, Sequence[str]] | None = None) -> None:
        self._roles = _function_words()
        self._names: dict[str, dict[Reading, None]] = {}
        for key in lexicon.keys:
            for word in (*lexicon.names(key, "en"), *lexicon.names(key, "zh"), *(synonyms or {}).get(key, ())):
                self._learn(word, key)
                if word.isascii():
                    self._learn(f"{word}s", key)
        for key in (*lexicon.keys, *SHAPE_NOUNS):
            noun = lexicon.noun(key)
            for word in (noun.en, noun.plural, noun.zh):
                self._learn(word, key)
            self._roles.setdefault(spelled(noun.measure), _Item("measure"))
        for key in lexicon.keys:
            for word in (*lexicon.keywords(key, "en"), *lexicon.keywords(key, "zh")):
                self._roles.setdefault(spelled(word), _Item("word"))
        for en, zh in set(CATEGORIES.values()):
            for word in (en, zh):
                self._learn(word, KIND_OF + en)
        self._longest = max(len(one.split()) for one in (*self._names, *self._roles))
        self._add_readings()

    def read(self, caption: str) -> Said:
        """Say what a caption claims."""
        words = tuple(one.strip().casefold() for one in _QUOTED.findall(caption))
        tokens = tokens_of(_QUOTED.sub(" ", caption))
        return _Understanding(list(self._items(tokens)), self._names).said(words, tokens)

    def _learn(self, word: str, key: str) -> None:
        if phrase := spelled(word):
            self._names.setdefault(phrase, {})[Reading(key=key)] = None

    def _items(self, tokens: Sequence[str]) -> Iterator[_Item]:
        """Cut tokens into the longest phrases that are known."""
        plain = [(place, one) for place, one in enumerate(tokens) if one not in _ARTICLES]
        places, words = [place for place, _ in plain], [one for _, one in plain]
        for start, stop in self._cuts(words):
            if (place := places[start]) and tokens[place - 1] in _ARTICLES:
                yield _Item("article", tokens[place - 1])
            phrase = " ".join(words[start:stop])
            yield self._item(phrase) or _Item("word", phrase, phrase)

    def _cuts(self, words: Sequence[str]) -> list[tuple[int, int]]:
        """Cut words where it costs least: few phrases, few of them things, hardly any that nobody knows."""
        best: list[tuple[float, int]] = [(0.0, 0)]  # for each end: its cost, and where its last phrase begins
        for stop in range(1, len(words) + 1):
            options = [(best[stop - 1][0] + _UNKNOWN, stop - 1)]
            options += [
                (best[start][0] + _COST.get(item.role, _FUNCTION), start)
                for start in range(max(0, stop - self._longest), stop)
                if (item := self._item(" ".join(words[start:stop]))) is not None
            ]
            best.append(min(options))
        cuts, stop = list[tuple[int, int]](), len(words)
        while stop:
            cuts.append((best[stop][1], stop))
            stop = best[stop][1]
        return cuts[::-1]

    def _item(self, phrase: str) -> _Item | None:
        """Say what a whole phrase is; None where it is nothing known."""
        role = self._roles.get(phrase)
        if role is not None and not (role.role in ("measure", "word") and phrase in self._names):
            return replace(role, phrase=phrase)
        return _Item("name", phrase, phrase) if phrase in self._names else None

    def _add_readings(self) -> None:
        """Let names that begin as a description does be descriptions too, and those that end in `picture`, too."""
        for phrase in list(self._names):
            parts = phrase.split()
            for cut in range(1, len(parts)):
                before, after = list(self._items(parts[:cut])), " ".join(parts[cut:])
                if after in self._names and all(one.role in _DESCRIBING for one in before):
                    told = _attributes(before)
                    for reading in list(self._names[after]):
                        self._names[phrase].setdefault(replace(reading, **told))
                head, tail = " ".join(parts[:cut]), "".join(parts[cut:])
                if head in self._names and tail in _KINDS_ZH:
                    self._names[phrase] |= self._names[head]


_DESCRIBING = ("colour", "size", "number", "measure", "的")


def _function_words() -> dict[str, _Item]:
    roles = dict[str, _Item]()

    def learn(role: str, table: Mapping[str, Iterable[str]]) -> None:
        roles.update({spelled(word): _Item(role, value) for value, words in table.items() for word in words})

    learn("colour", {one.name: (one.name, one.zh) for one in COLOURS} | {"grey": ("grey", "gray", "灰色")})
    learn("colour", {"pink": ("pink", "粉色", "粉红色"), "brown": ("brown", "棕色", "褐色")})
    learn("size", _SIZES)
    learn(
        "number",
        {
            str(one + 1): (word, zh, str(one + 1))
            for one, (word, zh) in enumerate(zip(_NUMBERS, _NUMBERS_ZH, strict=True))
        },
    )
    learn("number", {"2": ("二", "俩")})
    learn("between", _BETWEEN)
    learn("placed", _PLACED)
    learn("ground", {"": _GROUNDS})
    learn("clear", {"": _CLEAR})
    for style, told in STYLE_WORDS.items():
        learn("style", {style: (*told.adjectives, *told.phrases, *told.zh)})
    learn("grounds", {"": _GROUND_IS})
    learn("picture", {"": (*_KINDS_ZH, *_FURNITURE)})
    for word in (*_SILENT, ",", "和", "与", "and", "on", "在", "有", "是"):
        roles[spelled(word)] = _Item(spelled(word))
    roles["上 的"] = roles["上"] = roles["的"]
    return roles


def _attributes(items: Iterable[_Item]) -> dict[str, int | str | bool]:
    """Turn describing items into fields of a Reading."""
    told = dict[str, int | str | bool]()
    for item in items:
        if item.role == "number":
            told |= {"count": int(item.value), "is_told": True}
        elif item.role == "article" and item.value != "the" and "count" not in told:
            told |= {"count": 1, "is_told": False}
        elif item.role in ("colour", "size"):
            told[item.role] = item.value
    return told


class _Understanding:
    """Goes through the phrases of one caption, from left to right.

    Args:
        items: its phrases.
        names: phrase -> its readings.
    """

    def __init__(self, items: Sequence[_Item], names: Mapping[str, Mapping[Reading, None]]) -> None:
        self._names = names
        self._mentions, self._styles, self._loose = list[Mention](), set[str](), list[str]()
        self._background, self._is_clear = None, False
        self._waiting = list[_Item]()  # what describes a thing that is still to come
        self._events = list[tuple[str, str]]()  # role and value, where a mention's value is its number
        for item in items:
            self._take(item)
        self._drop()

    def said(self, words: tuple[str, ...], tokens: Sequence[str]) -> Said:
        """Return all that the caption claims."""
        relations = [*self._told(), *self._placed()]
        return Said(
            mentions=tuple(self._mentions),
            relations=tuple(dict.fromkeys(relations)),
            background=self._background,
            is_clear=self._is_clear,
            styles=frozenset(self._styles),
            colours=tuple(self._loose),
            words=words,
            text=f" {' '.join(one for one in tokens if one not in _ARTICLES)} ",
        )

    def _take(self, item: _Item) -> None:
        if item.role == "colour" and [one.role for one in self._waiting] in (["on"], ["grounds"]):
            self._background, self._waiting = item.value, []  # `on red`; on a red car there would be an article
        elif item.role in ("article", *_DESCRIBING):
            self._waiting.append(item)
        elif item.role == "name":
            told = _attributes(self._waiting)
            readings = {_described(one, told): None for one in self._names[item.value]}
            self._events.append(("name", str(len(self._mentions))))
            self._mentions.append(Mention(phrase=item.phrase, readings=tuple(readings)))
            self._waiting = []
        elif item.role == "style":
            self._styles.add(item.value)
        elif item.role == "clear":
            self._is_clear = True
        elif item.role == "ground":
            colours = [one.value for one in self._waiting if one.role == "colour"]
            self._background = colours[-1] if colours else self._background
            self._waiting = []
        else:
            self._drop()
            self._events.append((item.role, item.value))
            if item.role in ("on", "grounds"):
                self._waiting.append(item)

    def _drop(self) -> None:
        """Let go of descriptions that no thing followed."""
        self._loose += [one.value for one in self._waiting if one.role == "colour"]
        self._waiting = []

    def _told(self) -> Iterator[tuple[int, str, int]]:
        """Yield relations that are told outright: `a left of b`, a在b左边, b左边有a."""
        for start in range(len(self._events)):
            (roles, values) = zip(*self._events[start : start + 4], strict=True)
            if roles[:3] == ("name", "between", "name"):
                yield int(values[0]), values[1], int(values[2])
            elif roles == ("name", "在", "name", "placed"):
                yield int(values[0]), values[3], int(values[2])
            elif roles == ("name", "placed", "有", "name"):
                yield int(values[3]), values[1], int(values[0])

    def _placed(self) -> Iterator[tuple[int, str, int]]:
        """Note where things are said to be in the picture, and yield what follows of them."""
        sides = dict[int, str]()
        for place, (role, side) in enumerate(self._events):
            if role != "placed":
                continue
            before = self._events[place - 1] if place else ("", "")
            after = [*self._events[place + 1 : place + 3], ("", ""), ("", "")]
            if after[0][0] == "是" and after[1][0] == "name":
                sides[int(after[1][1])] = side
            elif before[0] == "name" and after[0][0] != "有" and self._events[place - 2 : place - 1] != [("在", "")]:
                sides[int(before[1])] = side
        for one, side in sides.items():
            self._mentions[one] = replace(self._mentions[one], side=side)
        for one, side in sides.items():
            for other, opposite in sides.items():
                if one < other and opposite == OPPOSITE[side]:
                    yield one, side, other


def _described(reading: Reading, told: Mapping[str, int | str | bool]) -> Reading:
    """Add to a reading what stood before its phrase, where the phrase does not say so itself."""
    free = {name: value for name, value in told.items() if name != "is_told" and getattr(reading, name) is None}
    if "count" in free:
        free["is_told"] = told["is_told"]
    return replace(reading, **free)  # pyright: ignore[reportArgumentType]
