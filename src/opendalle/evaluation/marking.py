"""Marking a scene: which of the things that were asked for can be found on the picture.

Each skill is marked by itself and only where it was asked, so that a model that draws both things but swaps them
fails `relation` and passes `objects`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from opendalle.data.emoji.truth import Thing, Truth
from opendalle.evaluation.detect import TRANSPARENT, Detection, Found, match, relations

PAPER = "white"  # what a transparent picture is shown on
SKILLS = ("background", "transparent", "thing", "objects", "relation", "binding", "count", "size")
_MIRROR = {"left": "right", "right": "left", "above": "below", "below": "above"}


@dataclass(frozen=True)
class Mark:
    """What was found of what was asked; None where a skill was not asked."""

    background: bool | None = None  # the named colour lies behind
    transparent: bool | None = None  # nothing lies behind, where no background was named, or the white of bare paper
    thing: bool | None = None  # the one kind of thing asked for is there
    objects: bool | None = None  # both things asked for are there
    relation: bool | None = None  # and stand as asked
    binding: bool | None = None  # every thing has its own colour
    count: bool | None = None  # as many as asked, no more
    size: bool | None = None  # the big one is the bigger one

    def asked(self) -> Mapping[str, bool]:
        """Return skill -> passed for the skills that were asked."""
        marks = {skill: getattr(self, skill) for skill in SKILLS}
        return {skill: passed for skill, passed in marks.items() if passed is not None}

    @property
    def all_right(self) -> bool:
        """Whether everything that was asked is there."""
        return all(self.asked().values())


def objects_of(truth: Truth) -> tuple[Thing, ...]:
    """Return the things of a scene that a judge can name: surfaces that carry words are left out."""
    return tuple(thing for thing in truth.things if thing.word is None)


def mark_scene(truth: Truth, detection: Detection, confidence: float = 0.3) -> Mark:
    """Mark one picture against what was asked.

    Args:
        truth: what was asked.
        detection: what was found, over a vocabulary that holds the scene's things.
        confidence: least probability of a name.
    """
    things = objects_of(truth)
    keys = [thing.key for thing in things]
    found = match(detection, keys, confidence)
    coloured = [(thing, one) for thing, one in zip(things, found, strict=True) if thing.colour is not None]
    sized = {thing.size: one for thing, one in zip(things, found, strict=True) if thing.size is not None}
    num_kinds = len(set(keys))  # a scene of nothing but signs has none
    return Mark(
        background=detection.background == truth.background if truth.background is not None else None,
        transparent=detection.background in (TRANSPARENT, PAPER) if truth.background is None else None,
        thing=found[0] is not None if num_kinds == 1 else None,
        objects=all(one is not None for one in found) if num_kinds > 1 else None,
        relation=_stands(found, truth.relation) if truth.relation is not None else None,
        binding=_bound(coloured) if coloured else None,
        count=detection.count(keys[0]) == len(keys) if truth.kind == "count" else None,
        size=_larger(sized) if len(sized) == 2 else None,
    )


def _stands(found: Sequence[Found | None], relation: str) -> bool:
    first, second = found[0], found[1]
    return first is not None and second is not None and relation in relations(first, second)


def _bound(coloured: Sequence[tuple[Thing, Found | None]]) -> bool:
    return all(one is not None and thing.colour is not None and one.has_colour(thing.colour) for thing, one in coloured)


def _larger(sized: Mapping[str, Found | None]) -> bool:
    big, small = sized.get("big"), sized.get("small")
    return big is not None and small is not None and _extent(big) > 1.2 * _extent(small)


def _extent(thing: Found) -> float:
    left, top, right, bottom = thing.box
    return max(right - left, bottom - top)


def counterfactuals(truth: Truth) -> Mapping[str, Truth]:
    """Return skill -> a truth that differs from this one in that skill alone.

    A picture of the true scene must fail the changed skill; how often it passes is the detectors' false-accept rate.

    Args:
        truth: what a picture really shows.
    """
    things, other = truth.things, {}
    if truth.relation is not None:
        other["relation"] = replace(truth, relation=_MIRROR[truth.relation])
    if len(things) >= 2 and things[0].colour and things[1].colour and things[0].colour != things[1].colour:
        swapped = (replace(things[0], colour=things[1].colour), replace(things[1], colour=things[0].colour))
        other["binding"] = replace(truth, things=swapped + things[2:])
    if truth.kind == "count":
        fewer = things[:-1] if len(things) > 1 else things * 2
        other["count"] = replace(truth, things=fewer)
    if truth.background is not None:
        other["background"] = replace(truth, background="blue" if truth.background != "blue" else "red")
    return other
