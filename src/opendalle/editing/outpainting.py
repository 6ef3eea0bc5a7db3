"""Outpainting: how far a picture grows on each side, and in which order frames cover the new ground.

Frames step outwards from the picture.  Each overlaps what is known by a set share of its side: the picture itself, or
frames drawn before it.  Corners come after the sides that they lean on.  The order is walked, never stored, so it takes
no more memory for ten thousand frames than for one.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from opendalle.base.errors import BadRequest
from opendalle.editing.frames import Frame, Framing, spread
from opendalle.pictures import MAX_PIXELS

SIDES = ("left", "top", "right", "bottom")


@dataclass(frozen=True, kw_only=True)
class Extension:
    """New ground on each side of a picture, in its pixels.

    Raises:
        BadRequest: when a side is negative, or none is positive.
    """

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0

    def __post_init__(self) -> None:
        wide = {side: getattr(self, side) for side in SIDES}
        if min(wide.values()) < 0 or max(wide.values()) == 0:
            came = "an extension of " + ", ".join(f"{side}={pixels}" for side, pixels in wide.items())
            raise BadRequest(came, "no side below 0 and at least one above", "Such as left=128,top=64.")

    @classmethod
    def parse(cls, text: str) -> "Extension":
        """Read an extension that a person typed.

        Args:
            text: sides with pixels, in any order: `left=128,top=64`.

        Raises:
            BadRequest: when it is anything else, or names a side twice.
        """
        sides: dict[str, int] = {}
        for part in text.split(","):
            side, _, pixels = (one.strip() for one in part.partition("="))
            if side not in SIDES or side in sides or not pixels.isascii() or not pixels.isdigit():
                raise BadRequest(f"the extension {text!r}", "sides with pixels, each once, such as left=128,top=64")
            sides[side] = int(pixels[:9])
        return cls(**sides)

    def grown(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height of the picture afterwards.

        Args:
            size: width and height before.

        Raises:
            BadRequest: when it would have more pixels than this house reads.
        """
        width, height = size[0] + self.left + self.right, size[1] + self.top + self.bottom
        if width * height > MAX_PIXELS:
            raise BadRequest(f"a picture that grows to {width} x {height} pixels", f"at most {MAX_PIXELS} pixels")
        return width, height


@dataclass(frozen=True, kw_only=True)
class OutpaintingOrder:
    """Frames that cover an extension, in the order in which they are drawn; can be walked any number of times.

    They are of the model's own side, so that nothing is resampled, unless the picture is too small to be a set share
    of such a frame.

    Args:
        size: width and height of the picture before, in pixels.
        extension: its new ground.
        side: of the model's square, in pixels.
        framing: `overlap` is read.
    """

    size: tuple[int, int]
    extension: Extension
    side: int
    framing: Framing = field(default_factory=Framing)

    @property
    def frame_side(self) -> int:
        """Side of every frame, in pixels of the picture."""
        context = math.floor(min(self.size) / self.framing.overlap)
        return min(self.side, context, *self.extension.grown(self.size))

    def __iter__(self) -> Iterator[Frame]:
        """Walk from the picture outwards; every frame has known ground in it, and new ground."""
        columns, rows = self._stations()
        for away in range(len(columns) + len(rows) - 1):
            for down in range(max(0, away - len(columns) + 1), min(away, len(rows) - 1) + 1):
                for top in rows[down]:
                    for left in columns[away - down]:
                        if not (self._within(0, left) and self._within(1, top)):
                            yield Frame(left=left, top=top, side=self.frame_side)

    def __len__(self) -> int:
        columns, rows = self._stations()
        old = [sum(self._within(axis, start) for start in one[0]) for axis, one in enumerate((columns, rows))]
        return sum(map(len, columns)) * sum(map(len, rows)) - old[0] * old[1]

    def _within(self, axis: int, start: int) -> bool:
        """Whether a frame that starts here lies on the old picture, along this axis."""
        before = (self.extension.left, self.extension.top)[axis]
        return before <= start and start + self.frame_side <= before + self.size[axis]

    def _stations(self) -> tuple[list[list[int]], list[list[int]]]:
        """Where frames start along both axes, by how many steps they are away from the picture."""
        before, grown = (self.extension.left, self.extension.top), self.extension.grown(self.size)
        side, stride = self.frame_side, self.framing.stride(self.frame_side)
        columns, rows = (_steps_away(before[i], self.size[i], grown[i], side, stride) for i in (0, 1))
        return columns, rows


def _steps_away(before: int, length: int, total: int, side: int, stride: int) -> list[list[int]]:
    """Starts along one axis: those on the picture, then one step away on either side, and so on to both ends."""
    if side <= length:
        middle = spread(before, before + length - side, stride)
    else:
        middle = [min(max(0, before + (length - side) // 2), total - side)]
    steps, low, high = [middle], middle[0], middle[-1]
    while low > 0 or high < total - side:
        here: list[int] = []
        if low > 0:
            low = max(0, low - stride)
            here.append(low)
        if high < total - side:
            high = min(total - side, high + stride)
            here.append(high)
        steps.append(here)
    return steps
