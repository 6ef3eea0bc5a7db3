"""What is exactly true of a composed picture: enough to draw it, to caption it and to mark an answer."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from opendalle.base.errors import require

KINDS = ("single", "plain", "pair", "relation", "count", "colour", "colours", "size", "sign", "speech")
SCENE_KINDS = KINDS[2:]
RELATIONS = ("left", "right", "above", "below")
CELL = 8  # of the bundled codec, in GRID pixels; things are moved by whole cells
GRID = 64  # layouts are whole pixels of a 64 px picture; a 256 px one multiplies by four


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One object of a picture."""

    key: str  # hexcode of a concept, or the name of a drawn shape, `sign` or `bubble`
    box: tuple[int, int, int]  # x, y of the upper left corner and side, in GRID pixels
    colour: str | None = None  # what it was painted; None: as it is drawn
    size: str | None = None  # "big" or "small" where the scene is about size
    word: str | None = None  # what is written on it


@dataclass(frozen=True, kw_only=True)
class Truth:
    """A whole picture in words that can be checked."""

    kind: str  # one of KINDS
    style: str  # every thing is drawn in it
    things: tuple[Thing, ...]
    background: str | None = None  # basic colour, None: transparent
    relation: str | None = None  # of things[0] to things[1]
    canvas: tuple[int, int] = (GRID, GRID)  # width and height of the whole picture, in GRID pixels

    @property
    def count(self) -> int:
        """How many objects there are, writing surfaces not counted."""
        return sum(thing.word is None for thing in self.things)

    def record(self) -> dict[str, Any]:
        """Return plain data, as `Example.truth` holds it."""
        own = dict(vars(self))  # dataclasses.asdict copies deeply and costs more than drawing the picture
        own["things"] = tuple(dict(vars(thing)) for thing in self.things)
        return own | {"count": self.count}


def truth_of_record(record: Mapping[str, Any]) -> Truth:
    """Read back what `Truth.record` wrote, also after a journey through JSON."""
    fields = {name: value for name, value in record.items() if name != "count"}
    if "canvas" in fields:  # records written before there were wide and tall pictures lack it
        fields["canvas"] = tuple(fields["canvas"])
    fields["things"] = tuple(Thing(**(thing | {"box": tuple(thing["box"])})) for thing in fields["things"])
    return Truth(**fields)


def spread(truth: Truth, width: int, height: int) -> Truth:
    """Lay a square picture out on a longer canvas: what is said of it stays true.

    No thing grows or is bent.  A thing's middle keeps its share of the way from one edge to the other, up to a step of
    CELL pixels away from the middle of the picture, so that on a codec's grid things fall on cells as they do in a
    square; what lies left of, above or apart from another still does.

    Args:
        truth: of a square picture.
        width: GRID, or more by a multiple of 2 x CELL, in GRID pixels.
        height: as width.

    Raises:
        BadConfig: when a side is none of these.
    """
    for side in (width, height):
        require((side - GRID) % (2 * CELL) == 0 and side >= GRID, f"a side of {side}", f"{GRID} + k x {2 * CELL}")

    def moved(thing: Thing) -> Thing:
        x, y, side = thing.box
        return replace(thing, box=(x + _shift(x, side, width), y + _shift(y, side, height), side))

    return replace(truth, things=tuple(moved(thing) for thing in truth.things), canvas=(width, height))


def _shift(start: int, side: int, length: int) -> int:
    """How far a thing moves along one axis: steps of CELL, rounded away from the middle, or exactly to the middle."""
    off_middle = 2 * start + side - GRID  # twice the distance of its middle from the picture's
    middle = (length - GRID) // 2
    steps = abs(off_middle) * (length - GRID) / (2 * GRID * CELL)
    return middle + (CELL if off_middle > 0 else -CELL) * math.ceil(steps)
