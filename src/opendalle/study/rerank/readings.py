"""Curves out of cells: what choosing by a score gives, caption by caption, whatever has been measured so far."""

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
from jaxtyping import Float

from opendalle.evaluation.metrics import Interval
from opendalle.study.cells import Measured
from opendalle.study.pairing import Numbers, gap, mean
from opendalle.study.rerank.expectation import best_of
from opendalle.study.rerank.measures import CLIP, GAIN, LIKELIHOOD, SHUFFLED

RANDOM, ORACLE = "random", "oracle"  # controls: any candidate, and the one with the best mark
SCORES = (CLIP, LIKELIHOOD, GAIN, RANDOM, SHUFFLED, ORACLE)


def truth_cell(group: str) -> str:
    """Name the cell of a group's true pictures."""
    return f"truth-{group}"


def cell_of(group: str, place: int) -> str:
    """Name the cell of one question's candidates."""
    return f"{group}-{place:03}"


class Readings:
    """What has been measured so far.

    Args:
        measured: cell -> what it left.
        sizes: group -> how many questions are asked of it.
        candidates: of each question.
    """

    def __init__(self, measured: Mapping[str, Measured], sizes: Mapping[str, int], candidates: int) -> None:
        self.measured, self.sizes, self.candidates = measured, sizes, candidates
        self.curve, self.mean = cache(self._curve), cache(self._mean)  # tables and charts ask for the same

    def at(self, score: str, k: int, measure: str, groups: Sequence[str]) -> Numbers | None:
        """Return what the best of k by a score is worth, one number a question.

        Args:
            score: one of SCORES.
            k: candidates to choose from.
            measure: which mark.
            groups: whose questions.

        Returns:
            None where nothing of it was measured, or nobody drew so many candidates.
        """
        if k > self.candidates:
            return None
        cells = [cell_of(group, place) for group in groups for place in range(self.sizes[group])]
        curves = [self.curve(cell, score, measure) for cell in cells]
        found = [None if one is None else float(one[k - 1]) for one in curves]
        return None if all(one is None for one in found) else found

    def over(self, score: str, other: str, k: int, measure: str, groups: Sequence[str]) -> Interval | None:
        """Return how much better choosing by one score is than by another, question by question."""
        return gap(self.at(score, k, measure, groups), self.at(other, k, measure, groups))

    def step(self, score: str, low: int, high: int, measure: str, groups: Sequence[str]) -> Numbers | None:
        """Return how much more candidates give, question by question.

        Args:
            score: by which is chosen.
            low: so many before.
            high: so many after.
            measure: which mark.
            groups: whose questions.
        """
        before, after = (self.at(score, k, measure, groups) for k in (low, high))
        if before is None or after is None:
            return None
        return [None if a is None or b is None else b - a for a, b in zip(before, after, strict=True)]

    def truth(self, groups: Sequence[str], measure: str) -> Interval | None:
        """Return the mean mark of the true pictures."""
        cells = [truth_cell(group) for group in groups]
        found = [self.measured[cell].values[measure] for cell in cells if cell in self.measured]
        return mean(*found)

    def seconds(self, groups: Sequence[str], what: str) -> str | None:
        """Return what a piece of work took, a candidate."""
        cells = [cell_of(group, place) for group in groups for place in range(self.sizes[group])]
        found = [self.measured[cell].seconds.get(what) for cell in cells if cell in self.measured]
        known = [one for one in found if one is not None]
        return f"{sum(known) / len(known):.4f}" if known else None

    def _mean(self, score: str, k: int, measure: str, groups: tuple[str, ...]) -> Interval | None:
        """Return the mean of `at` over questions, with its interval."""
        found = self.at(score, k, measure, groups)
        return None if found is None else mean(found)

    def _curve(self, cell: str, score: str, measure: str) -> Float[np.ndarray, " n"] | None:
        """Return best of k for one question, for k from 1 on; None where the score was not measured."""
        if cell not in self.measured:
            return None
        values = self.measured[cell].values
        marks = np.array(values[measure], dtype=np.float64)
        if score == RANDOM:  # all are equal, so one is chosen by lot
            return best_of(np.zeros_like(marks), marks)
        if score == ORACLE:
            return best_of(marks, marks)
        return best_of(np.array(values[score], dtype=np.float64), marks) if score in values else None
