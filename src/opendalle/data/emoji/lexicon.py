"""The words captions are made of: nouns with their plurals and Chinese measure words, styles, colours, categories."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources

from opendalle.data.emoji.world import World


@dataclass(frozen=True, kw_only=True)
class Noun:
    """What an everyday object is called."""

    en: str
    plural: str
    zh: str
    measure: str  # the word Chinese puts between a number and this noun
    paintable: bool = False  # has one main surface that may be any colour


@dataclass(frozen=True, kw_only=True)
class StyleWords:
    """How a style is named."""

    adjectives: tuple[str, ...]  # before the noun
    phrases: tuple[str, ...]  # after the noun
    zh: tuple[str, ...]  # before 的


STYLE_WORDS: Mapping[str, StyleWords] = {
    "3d": StyleWords(
        adjectives=("3d", "glossy 3d", "shiny 3d"), phrases=("in 3d style", "3d render"), zh=("3D风格", "立体3D风格")
    ),
    "flat": StyleWords(
        adjectives=("flat", "flat design", "minimal flat"),
        phrases=("in flat style", "flat design"),
        zh=("扁平风格", "简洁扁平风格"),
    ),
    "noto": StyleWords(
        adjectives=("noto", "soft cartoon", "noto style"),
        phrases=("in noto style", "in soft cartoon style"),
        zh=("Noto风格", "柔和卡通风格"),
    ),
    "twemoji": StyleWords(
        adjectives=("twemoji", "simple sticker", "twemoji style"),
        phrases=("in twemoji style", "in simple sticker style"),
        zh=("Twemoji风格", "简约贴纸风格"),
    ),
}

SHAPE_NOUNS: Mapping[str, Noun] = {
    "ball": Noun(en="ball", plural="balls", zh="球", measure="个", paintable=True),
    "cube": Noun(en="cube", plural="cubes", zh="立方体", measure="个", paintable=True),
    "cone": Noun(en="cone", plural="cones", zh="圆锥", measure="个", paintable=True),
    "circle": Noun(en="circle", plural="circles", zh="圆形", measure="个", paintable=True),
    "square": Noun(en="square", plural="squares", zh="正方形", measure="个", paintable=True),
    "triangle": Noun(en="triangle", plural="triangles", zh="三角形", measure="个", paintable=True),
    "sign": Noun(en="sign", plural="signs", zh="牌子", measure="块", paintable=True),
}

NUMBERS_EN = ("no", "one", "two", "three", "four")
NUMBERS_ZH = ("没有", "一", "两", "三", "四")

# Unicode subgroup -> what kind of thing its members are.  Subgroups of which nothing short is true of all are left out.
CATEGORIES: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(("face-smiling", "face-affection", "face-tongue"), ("a happy face", "开心的表情")),
    **dict.fromkeys(
        ("face-neutral-skeptical", "face-sleepy", "face-hat", "face-glasses", "face-hand"), ("a face", "表情")
    ),
    **dict.fromkeys(("face-unwell", "face-concerned", "face-negative"), ("an unhappy face", "难过的表情")),
    "cat-face": ("a cat face", "猫脸表情"),
    "monkey-face": ("a monkey face", "猴子表情"),
    "heart": ("a symbol of love", "爱的符号"),
    **dict.fromkeys(
        ("hand-fingers-open", "hand-fingers-partial", "hand-single-finger", "hand-fingers-closed"),
        ("a hand sign", "手势"),
    ),
    "body-parts": ("a part of the body", "身体部位"),
    **dict.fromkeys(("person", "person-gesture"), ("a person", "人物")),
    "person-role": ("a person at work", "职业人物"),
    "person-fantasy": ("a fantasy figure", "幻想人物"),
    "person-sport": ("a person doing sport", "运动的人"),
    **dict.fromkeys(("animal-mammal", "animal-amphibian", "animal-reptile"), ("an animal", "动物")),
    "animal-bird": ("a bird", "鸟类"),
    "animal-marine": ("a sea animal", "海洋动物"),
    "animal-bug": ("a small creature", "小虫子"),
    "plant-flower": ("a flower", "花"),
    "plant-other": ("a plant", "植物"),
    "food-fruit": ("a fruit", "水果"),
    "food-vegetable": ("a vegetable", "蔬菜"),
    **dict.fromkeys(("food-prepared", "food-asian"), ("food", "食物")),
    "food-sweet": ("something sweet", "甜食"),
    "drink": ("a drink", "饮料"),
    "place-building": ("a building", "建筑"),
    "place-religious": ("a place of worship", "宗教建筑"),
    "transport-ground": ("something on the road", "陆上交通"),
    "transport-water": ("something on the water", "水上交通"),
    "transport-air": ("something in the air", "空中交通"),
    "time": ("a thing of time", "时间"),
    "sky-weather": ("sky and weather", "天空与天气"),
    "award-medal": ("an award", "奖项"),
    "sport": ("a thing of sport", "体育"),
    "game": ("a game", "游戏"),
    "clothing": ("something to wear", "服饰"),
    "musical-instrument": ("a musical instrument", "乐器"),
    "tool": ("a tool", "工具"),
    "office": ("office supplies", "办公用品"),
    "writing": ("something to write with", "书写工具"),
    "money": ("money", "金钱"),
    "household": ("a household thing", "家居用品"),
    "arrow": ("an arrow sign", "箭头符号"),
    "zodiac": ("a zodiac sign", "星座符号"),
    "keycap": ("a key", "按键"),
    "geometric": ("a geometric figure", "几何图形"),
    "transport-sign": ("a public sign", "公共标志"),
    "warning": ("a warning sign", "警告标志"),
}

_NO_ARTICLE = {"mount fuji", "milky way", "the"}
_UNCOUNTED = {  # names that take no article though they do not end in s
    "bacon", "bread", "broccoli", "butter", "cheese", "corn", "curry rice", "cooked rice", "fire", "fog", "food",
    "fried shrimp", "garlic", "ginger", "honey", "jeans", "oden", "popcorn", "rice", "salt", "shaved ice", "soap",
    "spaghetti", "sushi", "yarn", "sake", "wood", "lightning", "rain", "people hugging", "people holding hands",
    "money", "mahjong red dragon",
}  # fmt: skip


@cache
def everyday_nouns() -> Mapping[str, Noun]:
    """Return the everyday objects of `objects.json` by hexcode."""
    text = resources.files("opendalle.data.emoji").joinpath("objects.json").read_text(encoding="utf-8")
    table: dict[str, list[str]] = json.loads(text)["objects"]
    return {
        key: Noun(en=row[0], plural=row[1], zh=row[2], measure=row[3], paintable="paint" in row[4:])
        for key, row in table.items()
    }


def article(phrase: str) -> str:
    """Return `phrase` with a or an, or as it is where English puts neither.

    Args:
        phrase: a noun with its adjectives, no article yet.
    """
    lower = phrase.lower()
    head = re.split(r" of | with |, | in | on | behind | for | from | without ", lower)[
        0
    ]  # what the phrase is a kind of
    last = head.split()[-1] if head.split() else ""
    plural = last.endswith("s") and not last.endswith(("ss", "us", "is", "bus", "gas", "ns sign"))
    if (
        plural
        or lower in _UNCOUNTED
        or lower in _NO_ARTICLE
        or head in _UNCOUNTED
        or last in _UNCOUNTED
        or not lower[:1].isalnum()
    ):
        return phrase
    silent = lower.startswith(("hour", "honest", "x-ray", "x ray", "8", "11", "18"))
    hard = lower.startswith(("uni", "use", "euro", "one", "ufo", "ukul", "up-", "u-"))
    return f"{'an' if silent or (lower[0] in 'aeiou' and not hard) else 'a'} {phrase}"


def english_name(name: str) -> str:
    """Turn a Unicode name into what can stand in a sentence: no colons, quotes or brackets.

    Args:
        name: as emojibase has it, e.g. `man: beard`.
    """
    plain = name.replace("“", "").replace("”", "").replace("’", "'").replace("(", "").replace(")", "")
    for before, after in (
        ("keycap: ", "keycap "),
        ("person: ", "person with "),
        ("man: ", "man with "),
        ("woman: ", "woman with "),
    ):
        plain = plain.replace(before, after)
    return plain.replace(": ", ", ")


def chinese_name(name: str) -> str:
    """Turn a Chinese Unicode name into what can stand in a sentence."""
    return name.replace("“", "").replace("”", "").replace("按键: ", "按键").replace(": ", "，")


class Lexicon:
    """The words of one world.

    Args:
        world: an open world folder.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.keys: tuple[str, ...] = tuple(world.concept_of)  # of all concepts
        nouns = {key: noun for key, noun in everyday_nouns().items() if key in world.concept_of}
        self._nouns: dict[str, Noun] = {**nouns, **SHAPE_NOUNS}
        self.objects: tuple[str, ...] = tuple(key for key in nouns if not world.concept_of[key].held_out)

    def noun(self, key: str) -> Noun:
        """Return the everyday noun of a hexcode or shape; a concept without one is called by its Unicode name."""
        if key in self._nouns:
            return self._nouns[key]
        names = self._world.concept_of[key].names
        en = english_name(names["en"])
        return Noun(en=en, plural=f"{en}s", zh=chinese_name(names.get("zh", en)), measure="个")

    def names(self, key: str, language: str) -> tuple[str, ...]:
        """Return every name of a concept in a language, the best known first; empty where there is none."""
        concept, noun = self._world.concept_of[key], self._nouns.get(key)
        own = concept.names.get(language)
        if own is None:
            return ()
        if language == "en":
            return tuple(dict.fromkeys(([noun.en] if noun else []) + [english_name(own)]))
        if language == "zh":
            return tuple(dict.fromkeys(([noun.zh] if noun else []) + [chinese_name(own)]))
        return (own,)

    def keywords(self, key: str, language: str) -> tuple[str, ...]:
        """Return the search words of a concept (English and Chinese have them)."""
        return self._world.concept_of[key].keywords.get(language, ())

    def synonyms(self, key: str) -> tuple[str, ...]:
        """Return the search words, English and Chinese, that mean a concept and nothing else: no other family has them.

        Args:
            key: hexcode of the concept.
        """
        concept = self._world.concept_of[key]
        words = dict.fromkeys(word for language in concept.keywords for word in concept.keywords[language])
        return tuple(word for word in words if self._families[word.casefold()] == {concept.family})

    @cached_property
    def _families(self) -> Mapping[str, set[str]]:
        """Name or search word, lower case -> families of concepts that have it."""
        families: dict[str, set[str]] = {}
        for key, concept in self._world.concept_of.items():
            named = [name for language in ("en", "zh") for name in self.names(key, language)]
            for word in (*named, *(word for words in concept.keywords.values() for word in words)):
                families.setdefault(word.casefold(), set()).add(concept.family)
        return families

    def category(self, key: str) -> tuple[str, str] | None:
        """Return what kind of thing a concept is, in English and in Chinese."""
        return CATEGORIES.get(self._world.concept_of[key].subgroup)

    def colours(self, key: str, style: str) -> tuple[str, ...]:
        """Return the colours that fill a drawing, the largest first."""
        return self._world.concept_of[key].colours.get(style, ())
