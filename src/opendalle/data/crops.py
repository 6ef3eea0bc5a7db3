"""Squares cut by chance out of the pictures of another set: what a network learns from that looks at parts."""

import numpy as np

from opendalle.base.errors import BadData, require
from opendalle.data.sets import Example, PictureSet


class CropSet:
    """A picture set over another one.

    Args:
        pictures: the other set.
        side: of the squares, in pixels; no picture is smaller.

    Raises:
        BadConfig: when there is no side.
    """

    def __init__(self, pictures: PictureSet, side: int) -> None:
        require(side >= 1, f"side is {side}", "at least 1 pixel")
        self.pictures, self.side = pictures, side

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.pictures)

    def read(self, index: int, rng: np.random.Generator) -> Example:
        """Return a square of one picture, with the picture's caption.

        Args:
            index: of the picture.
            rng: what the picture takes of it, then the square's row and column.

        Raises:
            BadData: when the picture is smaller than the square.
        """
        whole = self.pictures.read(index, rng)
        height, width = whole.picture.shape[:2]
        if min(height, width) < self.side:
            raise BadData(f"a picture of {width}x{height}", f"at least {self.side} pixels a side")
        top, left = int(rng.integers(height - self.side + 1)), int(rng.integers(width - self.side + 1))
        square = whole.picture[top : top + self.side, left : left + self.side]
        return Example(picture=np.ascontiguousarray(square), caption=whole.caption, voice=whole.voice)
