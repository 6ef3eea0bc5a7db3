"""The cells of this study by what they measure: where a number stands, and whether it is there yet."""

from collections.abc import Mapping, Sequence

from opendalle.evaluation.metrics import Interval
from opendalle.study.cells import Measured
from opendalle.study.pairing import Numbers, gap, less, mean
from opendalle.study.questions import SCENES, SINGLE, SKILLS

OWN = "diffusion"  # the prior that all others are compared with
GUIDED = "guided"  # the group of the guidance curves
OF_RIGHT = "diversity-right"  # diversity of the prompts all of whose drawings are named within five guesses
EMBEDDED = ("cosine", "first", "five", "nearness", "rank")  # measures of embeddings; all others are of pictures


def truth_cell(group: str) -> str:
    """Name the cell of a group's true pictures."""
    return f"truth-{group}"


def near_cell(group: str) -> str:
    """Name the cell of a group's true embeddings."""
    return f"embed-{group}-truth"


def embed_cell(group: str, prior: str) -> str:
    """Name the cell of a prior's embeddings."""
    return f"embed-{group}-{prior}"


def draw_cell(group: str, arm: str) -> str:
    """Name the cell of the pictures drawn with a prior, or by a twin."""
    return f"draw-{group}-{arm}"


def guide_cell(prior: str, knob: str, scale: float) -> str:
    """Name the cell of one point of a guidance curve."""
    return f"guide-{prior}-{knob}-{scale:g}"


class Readings:
    """What has been measured so far.

    Args:
        measured: cell -> what it left.
    """

    def __init__(self, measured: Mapping[str, Measured]) -> None:
        self.measured = measured

    def of(self, cell: str, measure: str) -> Numbers | None:
        """Return one number a question, or None where the cell has not been measured."""
        found = self.measured.get(cell)
        return None if found is None else found.values.get(measure)

    def mean(self, cell: str, measure: str) -> Interval | None:
        """Return a cell's mean, with its interval."""
        found = self.of(cell, measure)
        return None if found is None else mean(found)

    def seconds(self, cells: Sequence[str], what: str) -> str | None:
        """Return what a piece of work took, over some cells."""
        found = [self.measured[cell].seconds[what] for cell in cells if cell in self.measured]
        return f"{sum(found) / len(found):.3f}" if found else None

    def all_of(self, arm: str, measure: str) -> Numbers | None:
        """Return a measure of an arm over all questions that have it: both groups of single things, or the scenes.

        Args:
            arm: a prior.
            measure: any.
        """
        if measure in SKILLS:
            return self._scaled(draw_cell(SCENES, arm), measure)
        cell_of = embed_cell if measure in EMBEDDED else draw_cell
        groups = (*SINGLE, SCENES) if measure in EMBEDDED else SINGLE
        found = [self._scaled(cell_of(group, arm), measure) for group in groups]
        return None if any(one is None for one in found) else [one for some in found for one in some or ()]

    def gap(self, first: Numbers | None, second: Numbers | None) -> Interval | None:
        """Return first - second, prompt by prompt: as `pairing.gap`."""
        return gap(first, second)

    def against(self, arm: str, other: str, measure: str) -> Interval | None:
        """Return how far one arm is above another, by prompt.

        Args:
            arm: a prior.
            other: another.
            measure: any.
        """
        return self.gap(self.all_of(arm, measure), self.all_of(other, measure))

    def guided(self, prior: str, knob: str, scale: float, measure: str) -> Numbers | None:
        """Return one point of a guidance curve, one number a question."""
        return self._scaled(guide_cell(prior, knob, scale), measure)

    def change(self, prior: str, knob: str, scales: tuple[float, float], measure: str) -> Numbers | None:
        """Return by how much a measure grows from one guidance to another, question by question."""
        low, high = (self.guided(prior, knob, scale, measure) for scale in scales)
        return None if low is None or high is None else less(high, low)

    def drawn(self, group: str, arm: str, measure: str) -> Numbers | None:
        """Return a measure of the pictures of one group, one number a question."""
        return self._scaled(draw_cell(group, arm), measure)

    def unit(self, measure: str) -> float | None:
        """Return the mean distance between artworks of different things, in the features of a diversity."""
        kind = "" if measure == OF_RIGHT else measure.removeprefix("diversity")
        found = [self.of(truth_cell(group), f"apart{kind}") for group in SINGLE]
        numbers = [one for some in found for one in some or () if one is not None]
        return sum(numbers) / len(numbers) if numbers else None

    def _scaled(self, cell: str, measure: str) -> Numbers | None:
        """Return a measure as it is told: distances in units, and of what is right only where that is asked."""
        found = self.of(cell, "diversity" if measure == OF_RIGHT else measure)
        if found is None or not measure.startswith("diversity"):
            return found
        unit = self.unit(measure)
        if not unit:
            return None
        found = [None if one is None else one / unit for one in found]
        if measure != OF_RIGHT:
            return found
        hits = self.of(cell, "top5") or ()
        return [one if hit == 1.0 else None for one, hit in zip(found, hits, strict=True)]
