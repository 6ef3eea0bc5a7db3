"""What every codec offers, whatever its grid is made of."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor


@runtime_checkable
class Codec(Protocol):
    """Picture <-> grid.

    A grid has mean 0 and standard deviation about 1 in each channel, so one noise schedule fits every codec.
    """

    @property
    def picture_channels(self) -> int:
        """3 for RGB, 4 for premultiplied RGBA."""
        ...

    @property
    def picture_size(self) -> int:
        """Side in pixels of the pictures that the codec was trained on."""
        ...

    @property
    def grid_channels(self) -> int:
        """Channels of the grid."""
        ...

    @property
    def factor(self) -> int:
        """Pixels per grid cell, along each axis."""
        ...

    def encode(self, pictures: Float[Tensor, "b c h w"]) -> Float[Tensor, "b g hg wg"]:
        """Pictures in [-1, 1] to their grid, without chance."""
        ...

    def decode(self, grid: Float[Tensor, "b g hg wg"]) -> Float[Tensor, "b c h w"]:
        """Grid to pictures in [-1, 1], clamped."""
        ...


@runtime_checkable
class TokenCodec(Protocol):
    """Picture <-> words of a visual vocabulary, one a cell."""

    @property
    def picture_channels(self) -> int:
        """3 for RGB, 4 for premultiplied RGBA."""
        ...

    @property
    def picture_size(self) -> int:
        """Side in pixels of the pictures that the codec was trained on."""
        ...

    @property
    def vocabulary(self) -> int:
        """How many words there are."""
        ...

    @property
    def factor(self) -> int:
        """Pixels per cell, along each axis."""
        ...

    def encode_tokens(self, pictures: Float[Tensor, "b c h w"]) -> Int[Tensor, "b hg wg"]:
        """Pictures in [-1, 1] to their words, without chance."""
        ...

    def decode_tokens(self, tokens: Int[Tensor, "b hg wg"]) -> Float[Tensor, "b c h w"]:
        """Words to pictures in [-1, 1], clamped."""
        ...
