"""Small draws from a numpy generator, quick enough to make a dozen of for each example."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def pick(rng: np.random.Generator, choices: Sequence[T]) -> T:
    """Return one of `choices`, each equally likely."""
    return choices[int(rng.random() * len(choices))]


def weighted(rng: np.random.Generator, weights: Mapping[T, float]) -> T:
    """Return a key with a chance in proportion to its weight; weights are at least 0 and not all 0."""
    mark = rng.random() * sum(weights.values())
    last = None
    for key, weight in weights.items():
        if weight > 0:
            last = key
            mark -= weight
            if mark < 0:
                return key
    assert last is not None
    return last


def coin(rng: np.random.Generator, chance: float) -> bool:
    """Return True with this chance."""
    return rng.random() < chance


def between(rng: np.random.Generator, low: int, high: int) -> int:
    """Return a whole number from `low` to `high`, both included; `low` where the range is empty."""
    return low + int(rng.random() * (max(high, low) - low + 1))
