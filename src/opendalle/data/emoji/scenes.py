"""Inventing scenes: which things, in which colours, where.  What is held out never appears in a training scene."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from opendalle.data.emoji.colours import COLOUR_NAMES
from opendalle.data.emoji.draws import between, coin, pick, weighted
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
_SIDE_BY_SIDE = (24, 28, 32)  # sides of two things that share a picture
COMBINATIONS = ("seen", "heldout", "any")
Box = tuple[int, int, int]


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
        first, second = self._two(style, rng)
        boxes = two_boxes(pick(rng, RELATIONS), rng)
        return Truth(kind="pair", style=style, things=_things((first, second), boxes))

    def _relation(self, style: str, rng: np.random.Generator) -> Truth:
        first, second = self._two(style, rng)
        relation = pick(rng, RELATIONS)
        things = _things((first, second), two_boxes(relation, rng))
        return Truth(kind="relation", style=style, things=things, relation=relation)

    def _count(self, style: str, rng: np.random.Generator) -> Truth:
        count = weighted(rng, _COUNT_WEIGHTS)
        key = pick(rng, self._choice[style].objects)
        return Truth(kind="count", style=style, things=_things((key,) * count, count_boxes(count, rng)))

    def _colour(self, style: str, rng: np.random.Generator) -> Truth:
        side = pick(rng, (40, 48, 64))
        thing = Thing(
            key=pick(rng, self._choice[style].paintable), box=anywhere(side, rng), colour=pick(rng, COLOUR_NAMES)
        )
        return Truth(kind="colour", style=style, things=(thing,))

    def _colours(self, style: str, rng: np.random.Generator) -> Truth:
        paintable = self._choice[style].paintable
        first, second = pick(rng, paintable), pick(rng, paintable)
        while second == first:
            second = pick(rng, paintable)
        one, other = pick(rng, COLOUR_NAMES), pick(rng, COLOUR_NAMES)
        while other == one:
            other = pick(rng, COLOUR_NAMES)
        relation = pick(rng, RELATIONS)
        boxes = two_boxes(relation, rng)
        things = (Thing(key=first, box=boxes[0], colour=one), Thing(key=second, box=boxes[1], colour=other))
        return Truth(kind="colours", style=style, things=things)

    def _size(self, style: str, rng: np.random.Generator) -> Truth:
        first, second = self._two(style, rng)
        big, small = 40, pick(rng, (16, 20))
        up, down = between(rng, 0, GRID - big), between(rng, 0, GRID - small)
        if coin(rng, 0.5):
            boxes = ((0, up, big), (GRID - small - 1, down, small))
        else:
            boxes = ((GRID - big, up, big), (1, down, small))
        things = (Thing(key=first, box=boxes[0], size="big"), Thing(key=second, box=boxes[1], size="small"))
        return Truth(kind="size", style=style, things=things if coin(rng, 0.5) else things[::-1])

    def _sign(self, style: str, rng: np.random.Generator) -> Truth:
        style = "flat" if "flat" in self._styles else style  # our signs are drawn one way, and flat is what it is
        thing = Thing(key="sign", box=(0, 0, GRID), colour=pick(rng, COLOUR_NAMES), word=pick(rng, WORDS))
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


def two_boxes(relation: str, rng: np.random.Generator) -> tuple[Box, Box]:
    """Place two things so that the first stands in `relation` to the second."""
    sides = (pick(rng, _SIDE_BY_SIDE), pick(rng, _SIDE_BY_SIDE))
    along = relation in ("left", "right")
    first_is_low = relation in ("left", "above")  # at the small end of the axis
    low, high = (0, 1) if first_is_low else (1, 0)
    half = GRID // 2
    starts = {low: between(rng, 0, half - sides[low]), high: between(rng, half, GRID - sides[high])}
    middle = between(rng, 16, GRID - 16 - 1)  # both near one line, so that only one relation holds
    boxes = []
    for number in (0, 1):
        side = sides[number]
        across = min(max(middle - side // 2 + between(rng, -3, 3), 0), GRID - side)
        boxes.append((starts[number], across, side) if along else (across, starts[number], side))
    return boxes[0], boxes[1]


def count_boxes(count: int, rng: np.random.Generator) -> tuple[Box, ...]:
    """Place 1 to 4 things of one size apart from each other."""
    if count == 1:
        return (anywhere(pick(rng, (32, 40, 48)), rng),)
    if count == 2:
        side = pick(rng, (24, 28, 32))
        gap = between(rng, 0, GRID - 2 * side)
        left, lift = (GRID - 2 * side - gap) // 2, between(rng, -4, 4)
        top = (GRID - side) // 2 + between(rng, -6, 6)
        return _inside(((left, top + lift, side), (left + side + gap, top - lift, side)))
    if count == 3 and coin(rng, 0.4):
        side = 20
        top = between(rng, 8, GRID - side - 8)
        return _inside(tuple((2 + number * side, top + between(rng, -3, 3), side) for number in range(3)))
    side = pick(rng, (24, 28, 28))
    far = GRID - side - 2
    corners = [(2, 2), (far, 2), (2, far), (far, far)]
    if count == 3:
        corners = pick(rng, ([((GRID - side) // 2, 2), *corners[2:]], [*corners[:2], ((GRID - side) // 2, far)]))
    return _inside(tuple((x + between(rng, -2, 2), y + between(rng, -2, 2), side) for x, y in corners))


def anywhere(side: int, rng: np.random.Generator) -> Box:
    """Place one thing near the middle."""
    slack = (GRID - side) // 2
    reach = min(slack, 6)
    return slack + between(rng, -reach, reach), slack + between(rng, -reach, reach), side


def _inside(boxes: tuple[Box, ...]) -> tuple[Box, ...]:
    return tuple((min(max(x, 0), GRID - side), min(max(y, 0), GRID - side), side) for x, y, side in boxes)


def _things(keys: Sequence[str], boxes: Sequence[Box]) -> tuple[Thing, ...]:
    return tuple(Thing(key=key, box=box) for key, box in zip(keys, boxes, strict=True))
