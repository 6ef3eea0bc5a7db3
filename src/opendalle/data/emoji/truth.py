"""What is exactly true of a composed picture: enough to draw it, to caption it and to mark an answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

KINDS = ("single", "plain", "pair", "relation", "count", "colour", "colours", "size", "sign", "speech")
SCENE_KINDS = KINDS[2:]
RELATIONS = ("left", "right", "above", "below")
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
    fields["things"] = tuple(Thing(**(thing | {"box": tuple(thing["box"])})) for thing in fields["things"])
    return Truth(**fields)
