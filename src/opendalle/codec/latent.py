"""The KL autoencoder in the layout of the published ones: latent diffusion's, and so DALL·E 3's.

Beside `kl.py`, our own small one, this is the network whose public weights others draw with: Stable Diffusion 1, 2 and
XL share it and differ in the scale that brings its grid to unit spread.

Source: Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", arXiv:2112.10752, section 3.1
    and appendix G (the KL-regularised variant; scale of the grid); its use by DALL·E 3: Betker et al., appendix A.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from jaxtyping import Float
from torch import Tensor, nn

from opendalle.base.axes import Pictures
from opendalle.base.errors import require
from opendalle.codec.convolutional import ConvolutionalConfig, Decoder, Encoder
from opendalle.codec.kl import Posterior
from opendalle.codec.strips import decode_by_strips, encode_by_strips
from opendalle.nn.strips import Strips


def published(picture_size: int) -> ConvolutionalConfig:
    """Return the shape that all of them have: a factor of 8, and attention in the middle alone.

    Args:
        picture_size: in pixels.
    """
    return ConvolutionalConfig(picture_size=picture_size, grid_channels=4, growth=(1, 2, 4, 4), attention_sides=())


@dataclass(frozen=True, kw_only=True)
class LatentAutoencoderConfig:
    """Shape of the autoencoder; the defaults are Stable Diffusion 1's, which DALL·E 3 draws on.

    The factor is the network's: each further entry of its `growth` doubles it.
    """

    network: ConvolutionalConfig = field(default_factory=lambda: published(512))  # encoder and decoder
    scale: float = 0.18215  # of a grid in unit spread over one in the network's own
    mean: float = 0.0  # of a grid in the network's own scale
    is_mixed: bool = True  # whether 1x1 convolutions stand between encoder, posterior and decoder

    def __post_init__(self) -> None:
        require(self.scale > 0, f"scale is {self.scale}", "a positive number")


class LatentAutoencoder(nn.Module):
    """Picture to grid and back; a `Codec`."""

    def __init__(self, config: LatentAutoencoderConfig) -> None:
        super().__init__()
        self.config, network = config, config.network
        cells = network.grid_channels
        self.encoder, self.decoder = Encoder(network, 2 * cells), Decoder(network)
        self.to_posterior = nn.Conv2d(2 * cells, 2 * cells, 1) if config.is_mixed else nn.Identity()
        self.from_grid = nn.Conv2d(cells, cells, 1) if config.is_mixed else nn.Identity()
        self.picture_channels = network.picture_channels
        self.picture_size = network.picture_size
        self.grid_channels = cells
        self.factor = network.factor

    def posterior(self, pictures: Pictures, strips: Strips | None = None) -> Posterior:
        """Return q(grid | picture) in the network's own scale.

        Args:
            pictures: values in [-1, 1], sides a multiple of the factor.
            strips: compute it strip by strip; None: all at once.
        """
        seen = self.encoder(pictures) if strips is None else encode_by_strips(self.encoder, pictures, strips)
        mean, log_variance = self.to_posterior(seen).chunk(2, dim=1)
        return Posterior(mean, log_variance.clamp(-30.0, 20.0))

    def draw(self, grid: Float[Tensor, "b g hg wg"], strips: Strips | None = None) -> Pictures:
        """Decode a grid in the network's own scale, without clamping: what an objective compares.

        Args:
            grid: from a posterior.
            strips: compute it strip by strip; None: all at once.
        """
        cells = self.from_grid(grid)
        return self.decoder(cells) if strips is None else decode_by_strips(self.decoder, cells, strips)

    def encode(self, pictures: Pictures, strips: Strips | None = None) -> Float[Tensor, "b g hg wg"]:
        """Pictures in [-1, 1] to the mean of their posterior, in unit spread."""
        return (self.posterior(pictures, strips).mean - self.config.mean) * self.config.scale

    def decode(self, grid: Float[Tensor, "b g hg wg"], strips: Strips | None = None) -> Pictures:
        """Grid in unit spread to pictures in [-1, 1]."""
        return self.draw(grid / self.config.scale + self.config.mean, strips).clamp(-1, 1)


LATENT_PRESETS: Mapping[str, LatentAutoencoderConfig] = MappingProxyType(
    {
        "sd-1": LatentAutoencoderConfig(),
        "sd-2": LatentAutoencoderConfig(network=published(768)),
        "sd-xl": LatentAutoencoderConfig(network=published(1024), scale=0.13025),
    }
)
