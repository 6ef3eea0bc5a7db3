"""A set that stands still: the first draws of a set that is otherwise new every time.

What is written down about a picture (a caption, an embedding) needs a picture that comes again.
"""

import hashlib
import json

import numpy as np

from opendalle.base.errors import require
from opendalle.data.order import SampleOrder
from opendalle.data.sets import Example, PictureSet


class FixedSet:
    """The first `count` samples that a run over a set would see, in the order of that run.

    Args:
        pictures: the set that they are drawn from.
        count: how many; a shorter set is the beginning of a longer one.
        seed: of the run; another seed is another set.
        stamp: hash of what `pictures` can show.

    Raises:
        BadConfig: when there is nothing to draw.
    """

    def __init__(self, pictures: PictureSet, *, count: int, seed: int, stamp: str) -> None:
        require(count >= 1, f"a set of {count} draws", "at least one")
        self.pictures, self.count, self.seed = pictures, count, seed
        self.stamp = hashlib.sha256(json.dumps([stamp, seed]).encode()).hexdigest()
        self._order = SampleOrder(len(pictures), seed)

    def __len__(self) -> int:
        """Return the number of draws."""
        return self.count

    def name(self, index: int) -> str:
        """Return the number of a draw, from 0, in eight digits."""
        return f"{index:08d}"

    def read(self, index: int, rng: np.random.Generator) -> Example:
        """Return draw `index`, the same every time.

        Args:
            index: 0 <= index < len.
            rng: not asked: the draw has a generator of its own.
        """
        return self.pictures.read(self._order.place(index).index, self._order.generator(index))
