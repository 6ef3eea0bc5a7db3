"""The convolutional encoder and decoder that VQGAN and latent diffusion share.

Residual blocks, a halving or doubling between levels, and in the middle a block, attention over all cells and a block.
Laid out like the published networks, so that their weights fit by a change of names.

Source: Esser et al., "Taming Transformers", arXiv:2012.09841, appendix A, table 7.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from opendalle.base.axes import Grid, Pictures
from opendalle.base.errors import require
from opendalle.nn.residual import ResidualBlock

NORM_EPS = 1e-6


@dataclass(frozen=True, kw_only=True)
class ConvolutionalConfig:
    """Shape of encoder and decoder; the defaults are the published VQGAN's for 16x16 cells."""

    picture_size: int = 256  # pixels; any multiple of the factor works, this is what it was trained on
    picture_channels: int = 3  # 3 RGB, 4 premultiplied RGBA
    grid_channels: int = 256  # numbers a cell holds
    width: int = 128  # channels of the finest level
    growth: tuple[int, ...] = (1, 1, 2, 2, 4)  # channels of each level over width; the grid halves between levels
    blocks: int = 2  # residual blocks a level; the decoder has one more
    attention_sides: tuple[int, ...] = (16,)  # sides of the grids, in cells, on which blocks are followed by attention
    patch: int = 1  # pixels folded into channels at the door, along each axis; the published networks fold none
    norm_groups: int = 32  # of every group norm
    dropout: float = 0.0  # share of activations dropped in training

    def __post_init__(self) -> None:
        for name in ("growth", "attention_sides"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # JSON gives a list back
        require(self.picture_channels in (3, 4), f"picture_channels is {self.picture_channels}", "3 or 4")
        numbers = (self.grid_channels, self.width, self.blocks, self.patch, *self.growth)
        require(len(self.growth) > 0 and min(numbers) >= 1, f"sizes {numbers}", "at least 1 each, and one level")
        fits = self.width % self.norm_groups == 0
        require(fits, f"width is {self.width}", f"a multiple of norm_groups {self.norm_groups}")
        fits = self.picture_size % self.factor == 0
        require(fits, f"picture_size is {self.picture_size}", f"a multiple of the factor {self.factor}")
        require(0 <= self.dropout < 1, f"dropout is {self.dropout}", "0 <= share < 1")

    @property
    def factor(self) -> int:
        """Pixels per cell, along each axis."""
        return self.patch * 2 ** (len(self.growth) - 1)

    @property
    def sides(self) -> tuple[int, ...]:
        """Side of the grid on each level, in cells, finest first."""
        return tuple(self.picture_size // self.patch // 2**level for level in range(len(self.growth)))


class CellAttention(nn.Module):
    """Every cell looks at every other one, with a single head, and adds what it finds."""

    def __init__(self, channels: int, norm_groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(norm_groups, channels, eps=NORM_EPS)
        self.query, self.key, self.value, self.out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Grid) -> Grid:
        """Mix the cells."""
        normed = self.norm(x)
        queries, keys, values = (
            rearrange(layer(normed), "b c h w -> b 1 (h w) c") for layer in (self.query, self.key, self.value)
        )  # one head, told as such: the kernels that never hold all pairs of cells take four axes only
        mixed = F.scaled_dot_product_attention(queries, keys, values)
        return x + self.out(rearrange(mixed, "b 1 (h w) c -> b c h w", h=x.shape[2]))


class Halving(nn.Module):
    """A convolution of stride 2 that pads only at the right and below, as the published one does."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Grid) -> Float[Tensor, "b c2 h2 w2"]:
        """Halve the grid."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Doubling(nn.Module):
    """Every cell four times, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Grid) -> Float[Tensor, "b c2 h2 w2"]:
        """Double the grid."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """The blocks of one size of grid, each perhaps with attention, and the way to the next size."""

    def __init__(
        self, config: ConvolutionalConfig, before: int, after: int, *, blocks: int, side: int, onward: nn.Module | None
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_block(config, before if k == 0 else after, after) for k in range(blocks))
        looks = side in config.attention_sides
        self.attention = nn.ModuleList(CellAttention(after, config.norm_groups) for _ in range(blocks if looks else 0))
        self.onward = onward

    def forward(self, x: Grid) -> Float[Tensor, "b c2 h2 w2"]:
        """Run the level."""
        for k, block in enumerate(self.blocks):
            x = block(x)
            if len(self.attention):
                x = self.attention[k](x)
        return x if self.onward is None else self.onward(x)


class Encoder(nn.Module):
    """Pictures to grids.

    Args:
        config: shape.
        channels: numbers a cell is given; of a posterior twice those of the grid.
    """

    def __init__(self, config: ConvolutionalConfig, channels: int) -> None:
        super().__init__()
        self.fold = nn.PixelUnshuffle(config.patch)
        self.conv_in = nn.Conv2d(config.picture_channels * config.patch**2, config.width, 3, padding=1)
        levels, before = list[nn.Module](), config.width
        for level, (growth, side) in enumerate(zip(config.growth, config.sides, strict=True)):
            after = growth * config.width
            onward = Halving(after) if level < len(config.growth) - 1 else None
            levels.append(Level(config, before, after, blocks=config.blocks, side=side, onward=onward))
            before = after
        self.levels = nn.ModuleList(levels)
        self.middle = _middle(config, before)
        self.head = _head(config, before, channels)

    def forward(self, pictures: Pictures) -> Float[Tensor, "b c2 h2 w2"]:
        """Look at pictures in [-1, 1]."""
        x = self.conv_in(self.fold(pictures))
        for level in self.levels:
            x = level(x)
        return self.head(self.middle(x))


class Decoder(nn.Module):
    """Grids to pictures, not yet clamped.

    Args:
        config: shape.
    """

    def __init__(self, config: ConvolutionalConfig) -> None:
        super().__init__()
        before = config.growth[-1] * config.width
        self.conv_in = nn.Conv2d(config.grid_channels, before, 3, padding=1)
        self.middle = _middle(config, before)
        levels = list[nn.Module]()
        for level in reversed(range(len(config.growth))):
            after = config.growth[level] * config.width
            onward, side = (Doubling(after) if level > 0 else None), config.sides[level]
            levels.append(Level(config, before, after, blocks=config.blocks + 1, side=side, onward=onward))
            before = after
        self.levels = nn.ModuleList(levels)  # coarsest first
        self.head = _head(config, before, config.picture_channels * config.patch**2)
        self.unfold = nn.PixelShuffle(config.patch)

    def forward(self, grid: Grid) -> Float[Tensor, "b c2 h2 w2"]:
        """Draw grids."""
        x = self.middle(self.conv_in(grid))
        for level in self.levels:
            x = level(x)
        return self.unfold(self.head(x))

    @property
    def last_layer(self) -> nn.Parameter:
        """Weights of the last convolution, at which the strengths of two losses are compared."""
        return self.head[-1].weight  # type: ignore[return-value]


def _block(config: ConvolutionalConfig, before: int, after: int) -> ResidualBlock:
    return ResidualBlock(before, after, norm_groups=config.norm_groups, norm_eps=NORM_EPS, dropout=config.dropout)


def _middle(config: ConvolutionalConfig, width: int) -> nn.Sequential:
    return nn.Sequential(
        _block(config, width, width), CellAttention(width, config.norm_groups), _block(config, width, width)
    )


def _head(config: ConvolutionalConfig, width: int, channels: int) -> nn.Sequential:
    norm = nn.GroupNorm(config.norm_groups, width, eps=NORM_EPS)
    return nn.Sequential(norm, nn.SiLU(), nn.Conv2d(width, channels, 3, padding=1))
