"""Sizes that a generation does not draw by itself: what is drawn, how far it grows, how it gets to its size.

    drawn ──grown on two sides──▶ base ──enlarged──▶ large ──cut to shape──▶ ──shrunk──▶ the size that was asked for

A step is left out where there is nothing to do.  A size is planned before anything is drawn, so what cannot be made is
refused at once, and nothing ever comes in another size than was asked.
"""

import math
from dataclasses import dataclass

from opendalle.base.errors import BadRequest, require
from opendalle.editing.outpainting import Extension

NEAR = 1.05  # so much longer than asked, as a ratio, what is drawn may be: less is lost by a cut than by growing
LONGEST = 3  # times the shorter side: further out, a frame would see nothing of what was drawn first
FAMOUS = ((512, 512), (1024, 1024), (1792, 1024), (1024, 1792))  # sizes that clients ask for, as examples

Size = tuple[int, int]  # width and height in pixels


@dataclass(frozen=True, kw_only=True)
class SizePlan:
    """How one size is made."""

    drawn: Size  # of what the generation draws
    extension: Extension | None  # how far it grows; None: it keeps its shape
    factor: int  # how many times it is enlarged; 1: not at all
    cut: Size  # of the large picture, from its middle: less than `large` by what no whole pixel of the base could hold
    size: Size  # at last

    @property
    def square(self) -> int:
        """Side of the square that is drawn, or the shorter side; of a frame in which it grows, too."""
        return min(self.drawn)

    @property
    def base(self) -> Size:
        """Width and height of the picture before it is enlarged."""
        return self.drawn if self.extension is None else self.extension.grown(self.drawn)

    @property
    def large(self) -> Size:
        """Width and height of the picture when it has been enlarged."""
        width, height = self.base
        return self.factor * width, self.factor * height

    @property
    def corner(self) -> Size:
        """Left and upper edge of what is cut out of the large picture."""
        (width, height), (wide, high) = self.large, self.cut
        return (width - wide) // 2, (height - high) // 2

    @property
    def told(self) -> str:
        """The plan in a few words, for a picture's recipe."""
        steps = [f"drawn at {_words(self.drawn)}"]
        steps += [f"grown to {_words(self.base)}"] if self.extension else []
        steps += [f"enlarged to {_words(self.large)}"] if self.factor > 1 else []
        steps += [f"cut to {_words(self.cut)}"] if self.cut != self.large else []
        steps += [f"shrunk to {_words(self.size)}"] if self.size != self.cut else []
        return ", ".join(steps)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What a generation draws by itself, and with it every size that it can make.

    Raises:
        BadConfig: when there is no square, they do not grow, or a longer picture does not lie over a square.
    """

    squares: tuple[int, ...]  # sides of the squares that it draws, smallest first
    longer: tuple[Size, ...] = ()  # wide and tall pictures that it draws; the shorter side is that of a square
    factors: tuple[int, ...] = ()  # of the upsamplers that may follow the largest of them, in order
    can_grow: bool = True  # whether what is drawn may grow into a longer picture

    def __post_init__(self) -> None:
        rises = all(a < b for a, b in zip(self.squares, self.squares[1:], strict=False))
        require(bool(self.squares) and self.squares[0] >= 1 and rises, f"squares {self.squares}", "sides that rise")
        fits = all(min(one) in self.squares and min(one) < max(one) for one in self.longer)
        require(fits, f"longer pictures {self.longer}", f"a shorter side of {self.squares}")
        require(min(self.factors, default=2) >= 2, f"factors {self.factors}", "2 or more")

    @property
    def largest(self) -> int:
        """The longest shorter side, in pixels."""
        return self.squares[-1] * math.prod(self.factors)

    @property
    def told(self) -> str:
        """What can be had, in words."""
        known, low, high = ", ".join(map(str, self.squares)), self.squares[0], self.largest
        examples = [one for one in FAMOUS if self._can(one)]
        such = f", as {', '.join(map(_words, examples))}" if examples else ""
        if not self.can_grow:
            shapes = f"; of the shape of {', '.join(map(_words, self.longer))}, too" if self.longer else ""
            return f"a square of side {known}, or of any from {low} to {high}{such}{shapes}"
        shape = f"WIDTHxHEIGHT with a shorter side of {low} to {high} and a longer of at most {LONGEST} times that"
        return f"a square of side {known}, or {shape}{such}"

    def plan(self, size: Size) -> SizePlan:
        """Say how a size is made.

        What is drawn is a picture of that size, if there is one; else the longest of the largest that is not longer
        than asked, enlarged by as few upsamplers as reach the shorter side.

        Args:
            size: width and height wanted, in pixels.

        Raises:
            BadRequest: when it cannot be made; the message lists what can.
        """
        if not self._can(size):
            raise BadRequest(f"size {_words(size)}", self.told)
        if size in self._natives:
            return SizePlan(drawn=size, extension=None, factor=1, cut=size, size=size)
        short, long = sorted(size)
        is_wide = size[0] > size[1]
        square = self.squares[-1]
        factor = next(one for one in self._products() if square * one >= short)
        drawn = self._nearest(long / short, is_wide)
        wanted = -(-long * square // short)  # rounded up: what is too much is cut away
        grown = max(wanted, max(drawn))
        high = factor * square
        cut = min(round(long * high / short), factor * grown)
        return SizePlan(
            drawn=drawn,
            extension=_evenly(grown - max(drawn), is_wide) if grown > max(drawn) else None,
            factor=factor,
            cut=(cut, high) if is_wide else (high, cut),
            size=size,
        )

    @property
    def _natives(self) -> tuple[Size, ...]:
        """All that is drawn as it is handed out."""
        return (*((side, side) for side in self.squares), *self.longer)

    def _nearest(self, ratio: float, is_wide: bool) -> Size:
        """Return the longest of the largest pictures that is hardly longer than asked; a square always is."""
        square = self.squares[-1]
        fitting = [
            one
            for one in self.longer
            if min(one) == square and (one[0] > one[1]) == is_wide and max(one) <= NEAR * ratio * square
        ]
        return max(fitting, key=max, default=(square, square))

    def _can(self, size: Size) -> bool:
        short, long = sorted(size)
        if not self.can_grow and short < long:
            shapes = [one for one in self.longer if one[0] * size[1] == one[1] * size[0]]  # the very shape
            return size in shapes or (any(min(one) == self.squares[-1] for one in shapes) and short <= self.largest)
        return self.squares[0] <= short <= self.largest and long <= LONGEST * short

    def _products(self) -> list[int]:
        """How many times larger a picture is after none, the first, the first two, ... of the upsamplers."""
        return [math.prod(self.factors[:count]) for count in range(len(self.factors) + 1)]


def _evenly(pixels: int, is_wide: bool) -> Extension:
    """New ground on two opposite sides, as even as whole pixels let it be."""
    before, after = pixels // 2, pixels - pixels // 2
    return Extension(left=before, right=after) if is_wide else Extension(top=before, bottom=after)


def _words(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
