"""Aspect buckets: square, wide and tall pictures in one run, each batch of one shape.

A network of convolutions or of squares takes any height and width, but the pictures of one batch must agree.  So every
batch belongs to one canvas.  Which one is drawn in rounds: a round holds every canvas as often as its share says, in an
order that follows from the seed; so the batch at a position is known without looking at those before it.

Source: SDXL, arXiv:2307.01952, section 2.3 (multi-aspect training); the sizes that DALL·E 3 draws: 1024x1024,
    1792x1024, 1024x1792.
"""

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from opendalle.base.errors import BadData, require
from opendalle.data.loading import Batch, LoadingConfig, ahead, batch_of
from opendalle.data.order import SampleOrder
from opendalle.data.sets import Example, PictureSet

LONG, SHORT = 7, 4  # sides of DALL·E 3's wide and tall pictures
ROUND = 1_000  # batches of a round: shares are kept to a thousandth
_CANVASES = 2  # keeps the order of canvases apart from other uses of a seed


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """A shape that pictures are drawn in."""

    name: str  # as in a log
    width: int  # pixels
    height: int  # pixels


def canvases_of(side: int, step: int) -> tuple[Canvas, ...]:
    """Return DALL·E 3's three shapes at a size.

    Args:
        side: of the square, and the short side of the others, in pixels; a multiple of step.
        step: what every side must be a multiple of, in pixels: a codec's cell times the denoiser's.

    Raises:
        BadConfig: when the side is no such multiple.
    """
    require(side % step == 0, f"a side of {side} pixels", f"a multiple of {step}")
    long = round(side * LONG / SHORT / step) * step
    return (
        Canvas(name="square", width=side, height=side),
        Canvas(name="wide", width=long, height=side),
        Canvas(name="tall", width=side, height=long),
    )


def nearest(width: int, height: int, canvases: Sequence[Canvas]) -> int:
    """Return which canvas loses least of a picture: the one whose aspect is nearest, as a ratio.

    Args:
        width: of the picture.
        height: of the picture.
        canvases: at least one.
    """
    aspect = math.log(width / height)
    return min(range(len(canvases)), key=lambda one: abs(aspect - math.log(canvases[one].width / canvases[one].height)))


@runtime_checkable
class CanvasSet(PictureSet, Protocol):
    """A picture set that can show its examples in several shapes."""

    def members(self, canvases: Sequence[Canvas]) -> Sequence[Sequence[int]]:
        """Return for each canvas the examples that are shown in it."""
        ...

    def read_on(self, canvas: Canvas, index: int, rng: np.random.Generator) -> Example:
        """Return example `index` in this shape; else as `read`."""
        ...


@dataclass(frozen=True, kw_only=True)
class BucketPlace:
    """What a batch of the run is made of."""

    bucket: int  # which canvas
    rows: Sequence[int]  # examples, counted within the canvas
    first: int  # samples of the canvas that all earlier batches have seen


class BucketOrder:
    """In which order a run sees buckets, and the examples of each.

    Args:
        counts: examples of each bucket; empty ones are never drawn.
        batch_size: examples a batch.
        seed: of the run.
        shares: of the batches that fall to each bucket, in any unit; None: as many as it has examples.

    Raises:
        BadConfig: when there is nothing to draw.
    """

    def __init__(
        self, counts: Sequence[int], batch_size: int, seed: int, shares: Sequence[float] | None = None
    ) -> None:
        wanted = np.array(counts if shares is None else shares, dtype=np.float64) * (np.array(counts) > 0)
        require(bool((wanted >= 0).all() and wanted.sum() > 0), f"shares {list(wanted)}", "one of more than 0")
        self.batch_size, self.seed = batch_size, seed
        exact = ROUND * wanted / wanted.sum()
        self.batches = np.where(wanted > 0, np.maximum(1, np.round(exact)), 0).astype(np.int64)  # of each, a round
        self._orders = [SampleOrder(max(1, count), _seed_of(seed, bucket)) for bucket, count in enumerate(counts)]
        self._round = -1
        self._shuffled = np.empty(0, dtype=np.int64)
        self._earlier = np.empty(0, dtype=np.int64)

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of each bucket among the batches of a round."""
        return tuple((self.batches / self.batches.sum()).tolist())

    def place(self, position: int) -> BucketPlace:
        """Return what the batch at `position` (0 and up, over the whole run) is."""
        number, within = divmod(position, int(self.batches.sum()))
        if number != self._round:  # only a memory of the last round: the answer never depends on what was asked before
            entropy = np.random.SeedSequence([_CANVASES, self.seed, number])
            each = np.repeat(np.arange(len(self.batches)), self.batches)
            self._shuffled = np.random.Generator(np.random.PCG64(entropy)).permutation(each)
            own = self._shuffled[:, None] == np.arange(len(self.batches))
            self._earlier = np.cumsum(own, axis=0) - own
            self._round = number
        bucket = int(self._shuffled[within])
        first = self.batch_size * int(number * self.batches[bucket] + self._earlier[within, bucket])
        order = self._orders[bucket]
        rows = [order.place(one).index for one in range(first, first + self.batch_size)]
        return BucketPlace(bucket=bucket, rows=rows, first=first)

    def generator(self, bucket: int, position: int) -> np.random.Generator:
        """Return the generator of a sample, by its position within its bucket."""
        return self._orders[bucket].generator(position)


class BucketBatches:
    """Micro-batches without end over a picture set, each of one canvas; calling it with a position starts there.

    Args:
        pictures: the set.
        config: size, order, share of this process.
        canvases: the shapes.
        shares: of the batches, canvas by canvas; None: as the pictures have them.

    Raises:
        BadConfig: when the shares are none.
        BadData: when no picture fits any canvas.
    """

    def __init__(
        self,
        pictures: CanvasSet,
        config: LoadingConfig,
        canvases: Sequence[Canvas],
        shares: Mapping[str, float] | None = None,
    ) -> None:
        self.pictures, self.config, self.canvases = pictures, config, tuple(canvases)
        self._members = pictures.members(self.canvases)
        if not any(len(one) for one in self._members):
            raise BadData("no picture for any canvas", "at least one")
        if shares is not None:
            strange = sorted(set(shares) - {one.name for one in self.canvases})
            require(not strange, f"canvases {', '.join(strange)}", ", ".join(one.name for one in self.canvases))
        wanted = None if shares is None else [shares.get(one.name, 0.0) for one in self.canvases]
        self.order = BucketOrder([len(one) for one in self._members], config.batch_size, config.seed, wanted)

    @property
    def shares(self) -> Mapping[str, float]:
        """Share of each canvas among the batches."""
        return dict(zip((one.name for one in self.canvases), self.order.shares, strict=True))

    def __call__(self, position: int = 0) -> Generator[Batch, None, None]:
        """Yield batches without end, beginning with batch `position` of the run."""
        if self.config.prefetch == 0:
            while True:
                yield self.batch(position)
                position += 1
        else:
            yield from ahead(self.batch, position, self.config.prefetch)

    def batch(self, position: int) -> Batch:
        """Make one batch: a pure function of the set, the config, the canvases and the position.

        Args:
            position: of the batch, from 0 over the whole run.
        """
        place = self.order.place(position)
        canvas, members = self.canvases[place.bucket], self._members[place.bucket]
        examples = [
            self.pictures.read_on(
                canvas, members[place.rows[row]], self.order.generator(place.bucket, place.first + row)
            )
            for row in range(self.config.rank, self.config.batch_size, self.config.num_ranks)
        ]
        return batch_of(examples, self.config.channels, position)


def _seed_of(seed: int, bucket: int) -> int:
    """A seed of its own for each bucket: equal places in two of them see other chance."""
    return int(np.random.SeedSequence([_CANVASES, seed, bucket]).generate_state(1, np.uint64)[0] >> 1)
