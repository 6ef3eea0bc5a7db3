"""What a picture set is: something with a length whose examples depend on an index and a generator alone."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8


@dataclass(frozen=True, kw_only=True)
class Example:
    """One picture with one caption."""

    picture: UInt8[np.ndarray, "h w 4"]  # RGBA, straight alpha
    caption: str
    truth: Mapping[str, Any] | None = None  # what is exactly true of the picture, where that is known
    others: Mapping[str, str] = field(default_factory=dict)  # further captions, by name; see data.voices
    voice: str | None = None  # kind of the caption, where it was written anew; None: the set's own words


@runtime_checkable
class PictureSet(Protocol):
    """A set of captioned pictures.  All chance (crop, caption, scene) comes from the generator handed to `read`."""

    def __len__(self) -> int:
        """Return how many examples one epoch visits."""
        ...

    def read(self, index: int, rng: np.random.Generator) -> Example:
        """Return example `index`, 0 <= index < len, as this generator would have it."""
        ...


@runtime_checkable
class NamedSet(PictureSet, Protocol):
    """A set that stands still: what example `index` shows never changes, so things can be written down about it."""

    @property
    def stamp(self) -> str:
        """Hash of all that its pictures show: sets with the same stamp show the same under the same names."""
        ...

    def name(self, index: int) -> str:
        """Return what example `index` is called; no two have the same name."""
        ...
