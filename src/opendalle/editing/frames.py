"""Frames: the square pieces of a picture that a model works in, and their order.

A model draws squares of one side.  A frame is a square of the picture, of any side, always inside it, with room round
the place to be drawn for what the drawing has to fit to.  One frame is enough unless the place is longer than the
picture is wide; then frames follow each other along it, each taking what is already drawn for known.
"""

import math
from dataclasses import dataclass

import numpy as np

from opendalle.base.errors import require
from opendalle.editing.masks import Mask


@dataclass(frozen=True, kw_only=True)
class Framing:
    """How frames are chosen.

    Raises:
        BadConfig: when a value lies outside its range.
    """

    context: float = 0.5  # known ground wanted on each side of the mask, as a share of the mask's longer side
    enlarge: float = 4.0  # how many times a frame is enlarged at most to fill the model's square
    overlap: float = 0.25  # share of a frame's side that it has in common with the frame before

    def __post_init__(self) -> None:
        require(0.0 <= self.context <= 8.0, f"context is {self.context}", "0 to 8")
        require(self.enlarge >= 1.0, f"enlarge is {self.enlarge}", "at least 1")
        require(0.0 < self.overlap <= 0.5, f"overlap is {self.overlap}", "above 0, at most 0.5")

    def stride(self, side: int) -> int:
        """Pixels between frames that follow each other."""
        return max(1, math.floor((1 - self.overlap) * side))


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A square of the picture, in its pixels."""

    left: int
    top: int
    side: int

    @property
    def rows(self) -> slice:
        """Rows of the picture that lie in the frame."""
        return slice(self.top, self.top + self.side)

    @property
    def columns(self) -> slice:
        """Columns of the picture that lie in the frame."""
        return slice(self.left, self.left + self.side)


def bounds(mask: Mask) -> tuple[slice, slice]:
    """Rows and columns of the smallest rectangle that holds all marked pixels; at least one is marked."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def mask_frames(mask: Mask, side: int, framing: Framing | None = None) -> tuple[Frame, ...]:
    """Choose the frames in which a mask is drawn, in order.

    Args:
        mask: where to edit; something is marked.
        side: of the model's square, in pixels.
        framing: how frames are chosen.
    """
    framing = framing or Framing()
    rows, columns = bounds(mask)
    longer = max(rows.stop - rows.start, columns.stop - columns.start)
    fitting = longer / (1 - framing.overlap / 2)
    wanted = math.ceil(max(longer * (1 + 2 * framing.context), fitting, side / framing.enlarge))
    size = min(wanted, *mask.shape)
    is_wide = mask.shape[1] > mask.shape[0]
    along = columns if is_wide else rows  # where the frame is too short, it is as wide as the picture
    room = max(mask.shape) - size
    if fitting <= size or room == 0:
        top, left = (_centred(one, size, total) for one, total in zip((rows, columns), mask.shape, strict=True))
        return (Frame(left=left, top=top, side=size),)
    margin = math.ceil(framing.overlap * size / 2)
    first, last = min(room, max(0, along.start - margin)), min(room, along.stop + margin - size)
    starts = spread(first, max(first, last), framing.stride(size))
    marked = mask.sum(axis=0 if is_wide else 1)
    return tuple(
        Frame(left=start, top=0, side=size) if is_wide else Frame(left=0, top=start, side=size)
        for start in _outwards(starts, marked, size)
    )


def spread(first: int, last: int, stride: int) -> list[int]:
    """Starts from `first` to `last`, both included, at equal distances of at most `stride`."""
    if first == last:
        return [first]
    count = math.ceil((last - first) / stride)
    return [first + round(i * (last - first) / count) for i in range(count + 1)]


def _centred(span: slice, size: int, total: int) -> int:
    """Where a frame of this size starts to have the span in its middle, as far as the picture allows."""
    return min(max(0, (span.start + span.stop - size) // 2), total - size)


def _outwards(starts: list[int], marked: np.ndarray, size: int) -> list[int]:
    """Begin where most is known and go on to both sides, leaving out frames in which nothing is left to draw."""
    unknown = [int(marked[start : start + size].sum()) for start in starts]
    best = unknown.index(min(unknown))
    pending = marked > 0
    order: list[int] = []
    for i in sorted(range(len(starts)), key=lambda i: (abs(i - best), i)):
        place = slice(starts[i], starts[i] + size)
        if pending[place].any():
            order.append(starts[i])
            pending[place] = False
    return order
