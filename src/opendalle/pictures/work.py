"""Pictures to draw, whichever generation draws them: what they share, in which batches they come, how each is done."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from opendalle.base.jobs import Hooks, Row, Stopwatch, sample_of
from opendalle.base.records import Sample
from opendalle.pictures.finishing import finished
from opendalle.pictures.fitting import Given


@runtime_checkable
class Plan(Protocol):
    """How a size is made that is not drawn natively, as far as this room knows."""

    @property
    def drawn(self) -> tuple[int, int]:
        """Width and height of what the generation draws."""
        ...

    @property
    def told(self) -> str:
        """The plan in a few words, for a picture's recipe."""
        ...


@dataclass(frozen=True, kw_only=True)
class PictureJob:
    """Pictures to draw, and what all of them share."""

    rows: Sequence[Row]
    hooks: Hooks
    told: Mapping[str, Any]  # of the recipe: model, verb and inputs
    shape: tuple[int, int] | None = None  # width and height of the one picture that was handed in
    is_clear: bool | None = None  # whether what was handed in is transparent somewhere; None: nothing was
    plan: Plan | None = None  # how the size is made; None: it is drawn natively

    @property
    def batch(self) -> int:
        """How many pictures are drawn at once."""
        request = self.rows[0].request
        return 1 if request.exact else request.batch

    @property
    def drawn(self) -> tuple[int, int]:
        """Width and height of what the generation draws by itself."""
        request = self.rows[0].request
        return (request.width, request.height) if self.plan is None else self.plan.drawn

    def batches(self) -> Iterator[Sequence[Row]]:
        """Yield the rows that are drawn together; their requests differ in prompt and seed only."""
        for first in range(0, len(self.rows), self.batch if self.rows else 1):
            yield self.rows[first : first + self.batch]

    def finished(
        self,
        row: Row,
        values: Float[np.ndarray, "c h w"],
        watch: Stopwatch,
        step: int,
        num_steps: int,
        *,
        is_preview: bool,
    ) -> Sample:
        """Turn one picture, as it stands, into a sample; guards see it when it is finished.

        Args:
            row: what was asked of it.
            values: as the networks draw it, in [-1, 1].
            watch: of its batch.
            step: steps done.
            num_steps: steps in all.
            is_preview: whether it is not finished.
        """
        picture = finished(values, row.request, shape=self.shape, is_clear=self.is_clear)
        told = self.told if self.plan is None else {**self.told, "made": self.plan.told}
        sample = sample_of(row, picture, told, watch, step, num_steps, is_preview=is_preview)
        if not is_preview:
            self.hooks.check(sample)
        return sample


def told_of(origin: Mapping[str, str], verb: str, *inputs: Given | str) -> dict[str, Any]:
    """Return what a recipe tells of every picture of a command.

    Args:
        origin: the model's name and sha256.
        verb: what was asked of it.
        *inputs: what was handed in.
    """
    records = [one.record() if isinstance(one, Given) else {"text": one} for one in inputs]
    return {**origin, "verb": verb} | ({"inputs": records} if records else {})
