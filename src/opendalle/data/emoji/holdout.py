"""What training never sees, decided by a hash of names: the same on every machine, for ever.

Four kinds of question are kept back: concepts, (concept, style) cells, and the combinations of a scene: (object,
colour), (relation, pair) and (count, object).
"""

import hashlib
from dataclasses import dataclass

from opendalle.base.errors import require

SPLITS = ("train", "heldout-cells", "heldout-concepts", "all")


@dataclass(frozen=True, kw_only=True)
class HoldoutConfig:
    """Shares that are held out, each 0 to 0.5."""

    concepts: float = 0.08  # of families of concepts
    cells: float = 0.05  # of (concept, style) cells of the concepts that stay
    object_colours: float = 0.10  # of (object, colour) combinations in scenes
    relation_pairs: float = 0.10  # of (relation, first, second) combinations in scenes
    count_objects: float = 0.10  # of (count, object) combinations in scenes
    salt: str = "opendalle-emoji-1"  # another salt is another split

    def __post_init__(self) -> None:
        for name in ("concepts", "cells", "object_colours", "relation_pairs", "count_objects"):
            share = getattr(self, name)
            require(0.0 <= share <= 0.5, f"{name}={share}", "a share from 0 to 0.5")


def chance(salt: str, *names: str) -> float:
    """Return a number in [0, 1) that depends on the names alone.

    Args:
        salt: separates one use from another.
        names: what the number is for; order counts.
    """
    text = "\x1f".join((salt, *names)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") / 2.0**64


def concept_held_out(family: str, config: HoldoutConfig) -> bool:
    """Whether a family of near-duplicate concepts is held out whole."""
    return chance(config.salt, "concept", family) < config.concepts


def held_out_styles(family: str, styles: tuple[str, ...], config: HoldoutConfig) -> tuple[str, ...]:
    """Return the styles in which a family is held out, at least two others staying.

    Args:
        family: key of the near-duplicates, which share the answer.
        styles: every style the family is drawn in, in a fixed order.
        config: the shares.
    """
    # A cell is drawn for each style with the wanted probability; the least likely ones give way if too few remain.
    rate = config.cells
    drawn = sorted((chance(config.salt, "cell", family, style), style) for style in styles)
    held = [style for number, style in drawn if number < rate][: max(0, len(styles) - 2)]
    return tuple(style for style in styles if style in held)


def object_colour_held_out(thing: str, colour: str, config: HoldoutConfig) -> bool:
    """Whether scenes never show this object in this colour."""
    return chance(config.salt, "object-colour", thing, colour) < config.object_colours


def relation_pair_held_out(relation: str, first: str, second: str, config: HoldoutConfig) -> bool:
    """Whether scenes never show `first` standing in this relation to `second`.

    A relation and its mirror image are one combination: a left of b is b right of a.
    """
    mirror = {"right": "left", "below": "above"}
    if relation in mirror:
        relation, first, second = mirror[relation], second, first
    return chance(config.salt, "relation-pair", relation, first, second) < config.relation_pairs


def count_object_held_out(count: int, thing: str, config: HoldoutConfig) -> bool:
    """Whether scenes never show this many of this object; one is never held out."""
    return count > 1 and chance(config.salt, "count-object", str(count), thing) < config.count_objects
