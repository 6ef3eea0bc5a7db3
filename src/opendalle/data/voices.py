"""All captions of a picture at once: its own, and those that others have written, by name.

Who encodes pictures once and trains on them many times keeps all that is said of each, and blends when it trains.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from opendalle.data.blending import CaptionSource
from opendalle.data.buckets import Canvas, CanvasSet
from opendalle.data.sets import Example


def voice_name(kind: str, language: str) -> str:
    """Name a caption among the others of its picture, as `descriptive/en`."""
    return f"{kind}/{language}"


class VoicedSet:
    """A set whose examples carry every caption that a source knows of them.

    Args:
        pictures: the set.
        source: where the other captions come from.
    """

    def __init__(self, pictures: CanvasSet, source: CaptionSource) -> None:
        self.pictures, self.source = pictures, source

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.pictures)

    def members(self, canvases: Sequence[Canvas]) -> Sequence[Sequence[int]]:
        """Return for each canvas the examples that are shown in it."""
        return self.pictures.members(canvases)

    def read(self, index: int, rng: np.random.Generator) -> Example:
        """Return an example with all its captions.

        Args:
            index: of the picture.
            rng: of the sample; children of it choose among words.
        """
        children = rng.spawn(len(self.source.kinds) * len(self.source.languages))
        return self._voiced(index, self.pictures.read(index, rng), children)

    def read_on(self, canvas: Canvas, index: int, rng: np.random.Generator) -> Example:
        """Return an example in this shape; else as `read`."""
        children = rng.spawn(len(self.source.kinds) * len(self.source.languages))
        return self._voiced(index, self.pictures.read_on(canvas, index, rng), children)

    def _voiced(self, index: int, example: Example, children: Sequence[np.random.Generator]) -> Example:
        voices = [(kind, language) for kind in self.source.kinds for language in self.source.languages]
        others = {
            voice_name(*voice): text
            for voice, child in zip(voices, children, strict=True)
            if (text := self.source.caption(index, example, *voice, child)) is not None
        }
        return replace(example, others=others)
