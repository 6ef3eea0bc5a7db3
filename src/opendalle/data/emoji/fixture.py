"""A small world drawn from formulas: the same folder as the real one, made in a second, without npm.

Twenty-four concepts in four styles; tests and first tries run on it.  Keys are those of everyday objects, so that
every kind of scene can be composed; the drawings are simple shapes in the colour a person would expect.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from opendalle.data.emoji.artwork import FULL_SIZE, Draw
from opendalle.data.emoji.build import BuildStep, shrink, write_world
from opendalle.data.emoji.catalogue import Words
from opendalle.data.emoji.holdout import HoldoutConfig
from opendalle.data.emoji.painting import draw_shape
from opendalle.data.emoji.sources import STYLES

_DRAWN_SIZE = 64

# hexcode -> English, Chinese, German, keywords, shape, colour, group, subgroup
_DRAWN: dict[str, tuple[str, str, str, str, str, str, str, str]] = {
    "1F34E": ("red apple", "红苹果", "roter Apfel", "fruit ripe", "ball", "red", "food-drink", "food-fruit"),
    "1F34B": ("lemon", "柠檬", "Zitrone", "fruit sour", "ball", "yellow", "food-drink", "food-fruit"),
    "1F350": ("pear", "梨", "Birne", "fruit", "cone", "green", "food-drink", "food-fruit"),
    "1F955": ("carrot", "胡萝卜", "Karotte", "vegetable", "triangle", "orange", "food-drink", "food-vegetable"),
    "1F9C0": ("cheese wedge", "芝士", "Käse", "food", "triangle", "yellow", "food-drink", "food-prepared"),
    "1F408": ("cat", "猫", "Katze", "pet kitten", "circle", "orange", "animals-nature", "animal-mammal"),
    "1F415": ("dog", "狗", "Hund", "pet", "circle", "brown", "animals-nature", "animal-mammal"),
    "1F418": ("elephant", "大象", "Elefant", "animal", "cube", "grey", "animals-nature", "animal-mammal"),
    "1F438": ("frog", "青蛙", "Frosch", "face", "circle", "green", "animals-nature", "animal-amphibian"),
    "1F41F": ("fish", "鱼", "Fisch", "zodiac", "triangle", "blue", "animals-nature", "animal-marine"),
    "1F333": ("deciduous tree", "落叶树", "Laubbaum", "forest", "cone", "green", "animals-nature", "plant-other"),
    "1F697": ("automobile", "汽车", "Auto", "car vehicle", "square", "red", "travel-places", "transport-ground"),
    "1F68C": ("bus", "公交车", "Bus", "vehicle", "square", "yellow", "travel-places", "transport-ground"),
    "1F680": ("rocket", "火箭", "Rakete", "space", "cone", "white", "travel-places", "transport-air"),
    "1F3F0": ("castle", "城堡", "Schloss", "building", "cube", "grey", "travel-places", "place-building"),
    "1F3E0": ("house", "房子", "Haus", "home", "cube", "brown", "travel-places", "place-building"),
    "26BD": ("soccer ball", "足球", "Fußball", "football", "ball", "white", "activities", "sport"),
    "1F3C0": ("basketball", "篮球", "Basketball", "hoop", "ball", "orange", "activities", "sport"),
    "1F388": ("balloon", "气球", "Luftballon", "party", "ball", "pink", "activities", "event"),
    "1F381": ("wrapped gift", "礼物", "Geschenk", "box present", "cube", "purple", "activities", "event"),
    "1F511": ("key", "钥匙", "Schlüssel", "lock password", "triangle", "yellow", "objects", "lock"),
    "1F455": ("t-shirt", "T恤", "T-Shirt", "clothing shirt", "square", "blue", "objects", "clothing"),
    "2764": ("red heart", "红心", "rotes Herz", "love", "circle", "red", "smileys-emotion", "heart"),
    "1F47B": ("ghost", "鬼", "Gespenst", "monster", "cone", "white", "smileys-emotion", "face-costume"),
}


def fixture_words() -> list[Words]:
    """Return the concepts of the small world."""
    return [
        Words(
            hexcode=hexcode,
            family=hexcode,
            is_variant=False,
            names={"en": en, "zh": zh, "de": de},
            keywords={"en": tuple(keywords.split()), "zh": ()},
            group=group,
            subgroup=subgroup,
        )
        for hexcode, (en, zh, de, keywords, _, _, group, subgroup) in _DRAWN.items()
    ]


def build_fixture(out: Path, *, holdout: HoldoutConfig | None = None) -> Iterator[BuildStep]:
    """Draw the small world into a folder.

    Args:
        out: where the world goes; must not exist.
        holdout: what to hold out; None: as in the real one.

    Yields:
        BuildStep: one record a concept, then one with the finished folder.
    """
    source = {"package": "fixture", "version": "1", "licence": "Apache-2.0", "author": "OpenDALLE", "style": "all"}
    draws = {style: _drawing_of(style) for style in STYLES}
    yield from write_world(fixture_words(), draws, out, holdout=holdout or HoldoutConfig(), sources=[source])


def _drawing_of(style: str) -> Draw:
    def draw(hexcode: str) -> UInt8[np.ndarray, "h w 4"] | None:
        shape, colour = _DRAWN[hexcode][4:6]
        drawing = draw_shape(shape, colour, style, _DRAWN_SIZE)
        if style == "twemoji":  # a dark rim, so that flat and twemoji differ
            rim = draw_shape(shape, "black", "flat", _DRAWN_SIZE)
            inner = np.zeros_like(drawing)
            inner[4:-4, 4:-4] = draw_shape(shape, colour, "flat", _DRAWN_SIZE - 8)
            drawing = np.where(inner[..., 3:] > 127, inner, rim)
        return shrink(drawing, FULL_SIZE)  # enlarges here: sharpness is no matter, seconds are

    return draw
