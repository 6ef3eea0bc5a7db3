"""Inventing scenes: which things, in which colours, where.  What is held out never appears in a training scene.

Where a thing stands follows from what is said: things are told from left to right unless a relation says otherwise, and
every place is one of a few.  A model that must draw the mean of all places before it knows one draws smudges.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from opendalle.data.emoji.colours import COLOUR_NAMES
from opendalle.data.emoji.draws import coin, pick, weighted
from opendalle.data.emoji.holdout import (
    HoldoutConfig,
    count_object_held_out,
    object_colour_held_out,
    relation_pair_held_out,
)
from opendalle.data.emoji.lexicon import Lexicon
from opendalle.data.emoji.painting import SHAPES
from opendalle.data.emoji.signs import WORDS
from opendalle.data.emoji.truth import GRID, RELATIONS, Thing, Truth
from opendalle.data.emoji.world import World

_TRIES = 200  # of an invention that a split refuses; each try fails with a chance of about 0.9 at worst
_SMALL = 28  # side of one of two to four things, in the middle of a quarter's side of 32
_BIG, _TINY = 40, 20  # sides of two things of different size
_NEAR, _MIDDLE, _FAR = 2, 18, 34  # where a small thing begins: in the first half, in the middle, in the second half
COMBINATIONS = ("seen", "heldout", "any")
Box = tuple[int, int, int]  # x, y of the upper left corner and side
_WHOLE: Box = (0, 0, GRID)


@dataclass(frozen=True, kw_only=True)
class _Choice:
    """What may be used by one style."""

    objects: tuple[str, ...]
    paintable: tuple[str, ...]


class SceneMaker:
    """Invents scenes of one world.

    Args:
        world: an open world folder.
        lexicon: its words.
        styles: styles to draw from.
        combinations: `seen`: never a held-out combination; `heldout`: always one, in the kinds that have any; `any`.
        with_background: share of scenes on a coloured background; the others are transparent.
    """

    def __init__(
        self,
        world: World,
        lexicon: Lexicon,
        *,
        styles: Sequence[str],
        combinations: str = "seen",
        with_background: float = 0.5,
    ) -> None:
        self._lexicon = lexicon
        self._combinations = combinations
        self._with_background = with_background
        self._holdout = HoldoutConfig(**world.manifest["holdout"])
        self._styles = tuple(styles)
        self._choice: dict[str, _Choice] = {}
        self._main_colours: dict[tuple[str, str], tuple[str, ...]] = {}
        for style in styles:
            drawn = [key for key in lexicon.objects if self._may_use(world, key, style)]
            painted = [key for key in drawn if lexicon.noun(key).paintable]
            self._choice[style] = _Choice(objects=tuple(drawn), paintable=(*painted, *SHAPES))
            self._main_colours |= {(key, style): lexicon.colours(key, style)[:1] for key in drawn}

    @staticmethod
    def _may_use(world: World, key: str, style: str) -> bool:
        concept = world.concept_of[key]
        return style in concept.rows and style not in concept.held_out_styles

    def make(self, kind: str, rng: np.random.Generator) -> Truth:
        """Invent one scene.

        Args:
            kind: one of SCENE_KINDS.
            rng: all chance comes from it.

        Raises:
            RuntimeError: when the split refuses every try, as in a world with too few objects.
        """
        invent = getattr(self, f"_{kind}")
        for _ in range(_TRIES):
            truth = self._on_background(invent(pick(rng, self._styles), rng), rng)
            if self._combinations == "any" or kind not in _COMBINED_KINDS:
                return truth
            if held_out_combination(truth, self._holdout) == (self._combinations == "heldout"):
                return truth
        raise RuntimeError(f"no {self._combinations} scene of kind {kind} in {_TRIES} tries")

    def _on_background(self, truth: Truth, rng: np.random.Generator) -> Truth:
        """Put a scene before a colour that none of its things would vanish in."""
        if not coin(rng, self._with_background):
            return truth
        taken = {thing.colour for thing in truth.things if thing.colour}
        if truth.kind == "sign":
            taken.add("brown")  # of its post
        for thing in truth.things:
            if thing.colour is None:
                taken.update(self._main_colours.get((thing.key, truth.style), ()))
        free = [name for name in COLOUR_NAMES if name not in taken]
        background = "white" if "white" in free and coin(rng, 0.2) else pick(rng, free)
        return Truth(
            kind=truth.kind, style=truth.style, things=truth.things, background=background, relation=truth.relation
        )

    def _two(self, style: str, rng: np.random.Generator) -> tuple[str, str]:
        objects = self._choice[style].objects
        first = pick(rng, objects)
        second = pick(rng, objects)
        while second == first:
            second = pick(rng, objects)
        return first, second

    def _pair(self, style: str, rng: np.random.Generator) -> Truth:
        return Truth(kind="pair", style=style, things=_things(self._two(style, rng), two_boxes("left")))

    def _relation(self, style: str, rng: np.random.Generator) -> Truth:
        things, relation = self._two(style, rng), pick(rng, RELATIONS)
        return Truth(kind="relation", style=style, things=_things(things, two_boxes(relation)), relation=relation)

    def _count(self, style: str, rng: np.random.Generator) -> Truth:
        count = weighted(rng, _COUNT_WEIGHTS)
        key = pick(rng, self._choice[style].objects)
        return Truth(kind="count", style=style, things=_things((key,) * count, count_boxes(count)))

    def _colour(self, style: str, rng: np.random.Generator) -> Truth:
        key, colour = pick(rng, self._choice[style].paintable), pick(rng, COLOUR_NAMES)
        return Truth(kind="colour", style=style, things=(Thing(key=key, box=_WHOLE, colour=colour),))

    def _colours(self, style: str, rng: np.random.Generator) -> Truth:
        paintable = self._choice[style].paintable
        first, second = pick(rng, paintable), pick(rng, paintable)
        while second == first:
            second = pick(rng, paintable)
        one, other = pick(rng, COLOUR_NAMES), pick(rng, COLOUR_NAMES)
        while other == one:
            other = pick(rng, COLOUR_NAMES)
        left, right = two_boxes("left")
        things = (Thing(key=first, box=left, colour=one), Thing(key=second, box=right, colour=other))
        return Truth(kind="colours", style=style, things=things)

    def _size(self, style: str, rng: np.random.Generator) -> Truth:
        first, second = self._two(style, rng)
        big, small = (GRID - _BIG) // 2, (GRID - _TINY) // 2  # both in the middle of their height
        if coin(rng, 0.5):
            boxes, sizes = ((0, big, _BIG), (GRID - _TINY - 2, small, _TINY)), ("big", "small")
        else:
            boxes, sizes = ((2, small, _TINY), (GRID - _BIG, big, _BIG)), ("small", "big")
        things = [
            Thing(key=key, box=box, size=size) for key, box, size in zip((first, second), boxes, sizes, strict=True)
        ]
        return Truth(kind="size", style=style, things=tuple(things))

    def _sign(self, style: str, rng: np.random.Generator) -> Truth:
        style = "flat" if "flat" in self._styles else style  # our signs are drawn one way, and flat is what it is
        thing = Thing(key="sign", box=_WHOLE, colour=pick(rng, COLOUR_NAMES), word=pick(rng, WORDS))
        return Truth(kind="sign", style=style, things=(thing,))

    def _speech(self, style: str, rng: np.random.Generator) -> Truth:
        speakers = [key for key in self._choice[style].objects if key in _SPEAKERS]
        speaker = Thing(key=pick(rng, speakers or self._choice[style].objects), box=(0, GRID - 32, 32))
        bubble = Thing(key="bubble", box=(GRID - 44, 0, 44), word=pick(rng, WORDS))
        return Truth(kind="speech", style=style, things=(speaker, bubble))


# Larger groups are harder, so they are shown more often.
_COUNT_WEIGHTS: Mapping[int, float] = {1: 0.15, 2: 0.25, 3: 0.3, 4: 0.3}
_COMBINED_KINDS = ("relation", "colour", "colours", "count")
_SPEAKERS = {  # animals and figures with a mouth
    "1F408", "1F415", "1F40E", "1F404", "1F416", "1F411", "1F407", "1F418", "1F427", "1F986", "1F989", "1F422", "1F40D",
    "1F41F", "1F419", "1F43C", "1F98A", "1F981", "1F438", "1F916", "1F47B", "1F9F8", "26C4", "1F426",
}  # fmt: skip


def held_out_combination(truth: Truth, config: HoldoutConfig) -> bool:
    """Whether a scene shows a combination that training never sees."""
    things = truth.things
    if truth.relation is not None:
        return relation_pair_held_out(truth.relation, things[0].key, things[1].key, config)
    if truth.kind == "count":
        return count_object_held_out(len(things), things[0].key, config)
    return any(thing.colour is not None and object_colour_held_out(thing.key, thing.colour, config) for thing in things)


def two_boxes(relation: str) -> tuple[Box, Box]:
    """Place two things so that the first stands in `relation` to the second, each in the middle of its half.

    Args:
        relation: one of RELATIONS.
    """
    first, second = (_NEAR, _FAR) if relation in ("left", "above") else (_FAR, _NEAR)
    if relation in ("left", "right"):
        return (first, _MIDDLE, _SMALL), (second, _MIDDLE, _SMALL)
    return (_MIDDLE, first, _SMALL), (_MIDDLE, second, _SMALL)


def count_boxes(count: int) -> tuple[Box, ...]:
    """Place 1 to 4 things of one size apart from each other.

    Args:
        count: one fills the picture, two stand side by side, three make a pyramid, four take the quarters.
    """
    if count == 1:
        return (_WHOLE,)
    if count == 2:
        return two_boxes("left")
    upper = ((_MIDDLE, _NEAR),) if count == 3 else ((_NEAR, _NEAR), (_FAR, _NEAR))
    return tuple((x, y, _SMALL) for x, y in (*upper, (_NEAR, _FAR), (_FAR, _FAR)))


def _things(keys: Sequence[str], boxes: Sequence[Box]) -> tuple[Thing, ...]:
    return tuple(Thing(key=key, box=box) for key, box in zip(keys, boxes, strict=True))
