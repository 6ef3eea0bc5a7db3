"""The codec of the paper and of Karlo: pixels are the grid."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from opendalle.base.errors import require


@dataclass(frozen=True, kw_only=True)
class IdentityCodecConfig:
    """Size of the pictures that a decoder draws pixel by pixel."""

    picture_size: int = 64  # pixels; 64 in the paper, section 2.1
    picture_channels: int = 3  # 3 RGB, 4 premultiplied RGBA

    def __post_init__(self) -> None:
        require(self.picture_size >= 1, f"picture_size is {self.picture_size}", "at least 1")
        require(self.picture_channels in (3, 4), f"picture_channels is {self.picture_channels}", "3 or 4")


class IdentityCodec(nn.Module):
    """A codec that changes nothing; it has no weights.

    Source: "Hierarchical Text-Conditional Image Generation with CLIP Latents", arXiv:2204.06125, section 2.1.
    """

    factor = 1

    def __init__(self, config: IdentityCodecConfig) -> None:
        super().__init__()
        self.config = config
        self.picture_channels = self.grid_channels = config.picture_channels
        self.picture_size = config.picture_size

    def encode(self, pictures: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return the pictures."""
        return pictures

    def decode(self, grid: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return the grid, clamped to the range of pictures."""
        return grid.clamp(-1, 1)
