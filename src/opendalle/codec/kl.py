"""A small variational autoencoder between pictures and a compressed grid.

Source: Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", arXiv:2112.10752, section 3.1
(the KL-regularised variant).  Ours folds 4x4 pixels into channels first, so that no convolution ever runs at full
resolution: on a small computer the grid decides what can be learned.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from opendalle.base.errors import require
from opendalle.nn.residual import ResidualBlock


@dataclass(frozen=True, kw_only=True)
class KLAutoencoderConfig:
    """Shape of the autoencoder; the defaults are the bundled `codec-emoji`."""

    picture_size: int = 64  # pixels; any multiple of the factor works, this is what it was trained on
    picture_channels: int = 4  # 3 RGB, 4 premultiplied RGBA
    grid_channels: int = 8  # numbers a grid cell holds
    patch: int = 4  # pixels folded into channels at the door, along each axis
    widths: tuple[int, ...] = (96, 192)  # channels of each level; the grid halves between levels
    encoder_depth: int = 1  # residual blocks a level
    decoder_depth: int = 2  # residual blocks a level: drawing needs more than looking
    norm_groups: int = 32  # of every group norm

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))  # JSON gives a list back
        require(self.picture_channels in (3, 4), f"picture_channels is {self.picture_channels}", "3 or 4")
        require(self.grid_channels >= 1, f"grid_channels is {self.grid_channels}", "at least 1")
        require(self.patch >= 1, f"patch is {self.patch}", "at least 1")
        require(len(self.widths) >= 1, "widths is empty", "one width a level")
        for width in self.widths:
            require(width % self.norm_groups == 0, f"width {width}", f"a multiple of norm_groups {self.norm_groups}")
        require(self.encoder_depth >= 1, f"encoder_depth is {self.encoder_depth}", "at least 1")
        require(self.decoder_depth >= 1, f"decoder_depth is {self.decoder_depth}", "at least 1")
        fits = self.picture_size % self.factor == 0
        require(fits, f"picture_size is {self.picture_size}", f"a multiple of the factor {self.factor}")

    @property
    def factor(self) -> int:
        """Pixels per grid cell, along each axis."""
        return self.patch * 2 ** (len(self.widths) - 1)


@dataclass(frozen=True)
class Posterior:
    """The Gaussian q(grid | picture), before the grid is brought to unit spread."""

    mean: Float[Tensor, "b g h w"]
    log_variance: Float[Tensor, "b g h w"]

    def sample(self, rng: Generator) -> Float[Tensor, "b g h w"]:
        """Draw a grid."""
        noise = torch.randn(self.mean.shape, generator=rng, dtype=torch.float32).to(self.mean)
        return self.mean + (0.5 * self.log_variance).exp() * noise

    def kl(self) -> Float[Tensor, ""]:
        """Return the divergence from the unit Gaussian, in nats a grid number."""
        return 0.5 * (self.mean.square() + self.log_variance.exp() - 1 - self.log_variance).mean()


class Encoder(nn.Sequential):
    """Pictures to the two halves (mean, log-variance) of a posterior."""

    def __init__(self, config: KLAutoencoderConfig) -> None:
        widths = config.widths
        layers: list[nn.Module] = [
            nn.PixelUnshuffle(config.patch),
            nn.Conv2d(config.picture_channels * config.patch**2, widths[0], 3, padding=1),
        ]
        for level, width in enumerate(widths):
            if level > 0:
                layers.append(_block(config, widths[level - 1], width, resample="down"))
            layers += [_block(config, width, width) for _ in range(config.encoder_depth)]
        layers += _head(config, widths[-1], 2 * config.grid_channels)
        super().__init__(*layers)


class Decoder(nn.Sequential):
    """Grids to pictures, not yet clamped."""

    def __init__(self, config: KLAutoencoderConfig) -> None:
        widths = config.widths[::-1]
        layers: list[nn.Module] = [nn.Conv2d(config.grid_channels, widths[0], 3, padding=1)]
        for level, width in enumerate(widths):
            if level > 0:
                layers.append(_block(config, widths[level - 1], width, resample="up"))
            layers += [_block(config, width, width) for _ in range(config.decoder_depth)]
        layers += _head(config, widths[-1], config.picture_channels * config.patch**2)
        layers.append(nn.PixelShuffle(config.patch))
        super().__init__(*layers)

    @property
    def last_layer(self) -> nn.Parameter:
        """Weights of the last convolution, at which the strengths of two losses are compared."""
        return self[-2].weight  # type: ignore[return-value]


class KLAutoencoder(nn.Module):
    """Picture to grid and back, with a grid of zero mean and unit spread.

    `grid_mean` and `grid_std` are measured once after training (see `measure_grid`) and travel with the weights.
    """

    grid_mean: Tensor
    grid_std: Tensor

    def __init__(self, config: KLAutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.register_buffer("grid_mean", torch.zeros(config.grid_channels, 1, 1))
        self.register_buffer("grid_std", torch.ones(config.grid_channels, 1, 1))
        self.picture_channels = config.picture_channels
        self.picture_size = config.picture_size
        self.grid_channels = config.grid_channels
        self.factor = config.factor

    def posterior(self, pictures: Float[Tensor, "b c h w"]) -> Posterior:
        """Return q(grid | picture) in the network's own scale.

        Args:
            pictures: values in [-1, 1], sides a multiple of the factor.
        """
        mean, log_variance = self.encoder(pictures).chunk(2, dim=1)
        return Posterior(mean, log_variance.clamp(-30.0, 20.0))

    def draw(self, grid: Float[Tensor, "b g h w"]) -> Float[Tensor, "b c h2 w2"]:
        """Decode a grid in the network's own scale, without clamping: what the objective compares."""
        return self.decoder(grid)

    def encode(self, pictures: Float[Tensor, "b c h w"]) -> Float[Tensor, "b g h2 w2"]:
        """Pictures in [-1, 1] to the mean of their posterior, in unit spread."""
        return (self.posterior(pictures).mean - self.grid_mean) / self.grid_std

    def decode(self, grid: Float[Tensor, "b g h w"]) -> Float[Tensor, "b c h2 w2"]:
        """Grid in unit spread to pictures in [-1, 1]."""
        return self.draw(grid * self.grid_std + self.grid_mean).clamp(-1, 1)

    @torch.no_grad()
    def measure_grid(self, pictures: Float[Tensor, "b c h w"]) -> None:
        """Set `grid_mean` and `grid_std` from the posteriors' means of some pictures."""
        mean = self.posterior(pictures).mean
        self.grid_mean.copy_(mean.mean(dim=(0, 2, 3)).view(-1, 1, 1))
        self.grid_std.copy_(mean.std(dim=(0, 2, 3)).clamp_min(1e-6).view(-1, 1, 1))


def _block(config: KLAutoencoderConfig, before: int, after: int, resample: str = "none") -> ResidualBlock:
    return ResidualBlock(before, after, resample=resample, norm_groups=config.norm_groups)  # type: ignore[arg-type]


def _head(config: KLAutoencoderConfig, width: int, channels: int) -> list[nn.Module]:
    return [nn.GroupNorm(config.norm_groups, width), nn.SiLU(), nn.Conv2d(width, channels, 3, padding=1)]
