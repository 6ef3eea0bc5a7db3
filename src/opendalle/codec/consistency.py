"""The consistency decoder: DALL·E 3's way from a grid to a picture, a diffusion model distilled to two steps.

The autoencoder's encoder stays as it is and gives the grid; its decoder is replaced by a U-Net that denoises pixels
while it looks at the grid.  Distilled, it says from any noise level at once what the clean picture is; a second look
from half-way down sharpens it.  What it draws depends on noise, so a decoder is given generators; as a `Codec`
(`ConsistencyCodec`) it always takes the same.

Source: Betker et al., "Improving Image Generation with Better Captions", appendix B; Song et al., "Consistency
    Models", arXiv:2303.01469: parameterization section 3, eq. 5 and appendix C; sampling algorithm 1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from opendalle.base.axes import Pictures, Steps
from opendalle.base.errors import BadRequest, require
from opendalle.base.rng import normal_like_rows, picture_generator
from opendalle.codec.protocol import Codec
from opendalle.diffusion.process import q_sample
from opendalle.diffusion.schedules import Schedule, cosine, expand_like
from opendalle.nn.strips import Strips
from opendalle.nn.unet import UNet, UNetConfig, UNetLevel


@dataclass(frozen=True)
class BoundaryScales:
    """What the network's input and output, and the noised picture beside it, are multiplied by at a step."""

    skip: Float[Tensor, " b"]  # of the noised picture: 1 without noise, so that f(x, 0) = x
    out: Float[Tensor, " b"]  # of the network's answer: 0 without noise
    into: Float[Tensor, " b"]  # of the noised picture on its way into the network, which then has unit variance


def boundary_scales(schedule: Schedule, t: Steps, sigma_data: float = 0.5) -> BoundaryScales:
    """Return the scales of EDM, for pictures that were noised with their variance preserved.

    EDM adds noise of spread s to a picture that keeps its size; here the same picture is multiplied by alpha, and
    s = sigma / alpha, so the two scales that meet the noised picture are divided by alpha.

    Args:
        schedule: signal and noise.
        t: step of each sample.
        sigma_data: spread of the pictures' pixels.

    Source: Karras et al., arXiv:2206.00364, table 1; Consistency Models, appendix C, with epsilon 0.
    """
    alpha = schedule.alpha(t)
    noise, data = schedule.sigma(t) / alpha, sigma_data
    total = noise**2 + data**2
    return BoundaryScales(data**2 / total / alpha, noise * data / total.sqrt(), 1 / total.sqrt() / alpha)


@dataclass(frozen=True, kw_only=True)
class ConsistencyDecoderConfig:
    """Shape of the decoder, and the steps it takes."""

    unet: UNetConfig  # takes the noised picture's channels and the grid's; answers for the picture's, or for twice them
    picture_size: int  # pixels; side of the pictures that it was trained on
    picture_channels: int = 3  # 3 RGB, 4 premultiplied RGBA
    grid_mean: tuple[float, ...] = (0.0,)  # of each channel of the grid, as the codec gives it
    grid_std: tuple[float, ...] = (1.0,)  # of each channel of the grid
    factor: int = 8  # pixels per cell, along each axis
    num_steps: int = 1024  # of the noise schedule, a cosine
    num_distilled: int = 64  # noise levels that it was distilled on, evenly spread over the steps
    levels: tuple[float, ...] = (1.0, 0.5)  # where it looks, as shares of the way to pure noise, noisiest first
    sigma_data: float = 0.5  # spread of the pictures' pixels

    def __post_init__(self) -> None:
        for name in ("grid_mean", "grid_std", "levels"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # JSON gives a list back
        numbers = (self.picture_size, self.factor, self.num_steps, self.num_distilled)
        require(min(numbers) >= 1, f"sizes {numbers}", "at least 1 each")
        require(self.picture_channels in (3, 4), f"picture_channels is {self.picture_channels}", "3 or 4")
        require(self.sigma_data > 0, f"sigma_data is {self.sigma_data}", "a positive number")
        fits = len(self.grid_mean) == len(self.grid_std) and min(self.grid_std, default=0.0) > 0
        require(fits, f"grid_mean and grid_std {self.grid_mean, self.grid_std}", "a mean and a spread of each channel")
        fits = self.num_steps % self.num_distilled == 0 and self.num_distilled > 1
        require(fits, f"{self.num_distilled} levels of {self.num_steps} steps", "at least 2, a divisor of the steps")
        fits = len(self.levels) > 0 and all(0 <= one <= 1 for one in self.levels)
        require(fits, f"levels is {self.levels}", "shares from 0 to 1")
        wanted = self.picture_channels + self.grid_channels
        require(self.unet.in_channels == wanted, f"a U-Net that takes {self.unet.in_channels}", f"{wanted} channels")
        fits = self.unet.out_channels in (self.picture_channels, 2 * self.picture_channels)
        require(fits, f"a U-Net that gives {self.unet.out_channels} channels", "the picture's, or twice as many")

    @property
    def grid_channels(self) -> int:
        """Numbers a cell holds."""
        return len(self.grid_mean)

    @property
    def steps(self) -> tuple[int, ...]:
        """Steps of the schedule at which it looks: every level is rounded up to one that it was distilled on."""
        return tuple(self.distilled(int((self.num_steps - 1) * share)) for share in self.levels)

    def distilled(self, t: int) -> int:
        """Round a step up to the next that the decoder was distilled on; the last ones are rounded down.

        Args:
            t: 0 <= t < num_steps.
        """
        apart = self.num_steps // self.num_distilled
        return min((t // apart + 1) * apart, self.num_steps - apart)


class ConsistencyDecoder(nn.Module):
    """Grid to picture, with noise."""

    def __init__(self, config: ConsistencyDecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.unet = UNet(config.unet)

    @cached_property
    def schedule(self) -> Schedule:
        """Signal and noise of every step."""
        return cosine(self.config.num_steps)

    def features(self, grid: Float[Tensor, "b g hg wg"]) -> Float[Tensor, "b g h w"]:
        """Bring a grid to what the U-Net sees of it: zero mean, unit spread, a cell a square of pixels.

        Args:
            grid: as the codec gives it.

        Raises:
            BadRequest: when it is another codec's.
        """
        config = self.config
        if grid.shape[1] != config.grid_channels:
            raise BadRequest(f"a grid of {grid.shape[1]} channels", f"{config.grid_channels}, as this decoder takes")
        mean, std = (grid.new_tensor(one).view(-1, 1, 1) for one in (config.grid_mean, config.grid_std))
        return F.interpolate((grid - mean) / std, scale_factor=float(config.factor), mode="nearest")

    def answer(
        self, x_t: Pictures, t: Steps, features: Float[Tensor, "b g h w"], strips: Strips | None = None
    ) -> Pictures:
        """Say what the clean picture is; not clamped: what an objective compares.

        Args:
            x_t: noised picture.
            t: step of each.
            features: of its grid, from `features`.
            strips: compute it strip by strip; None: all at once.

        Source: Consistency Models, eq. 5.
        """
        scales = boundary_scales(self.schedule, t, self.config.sigma_data)
        skip, out, into = (expand_like(one, x_t) for one in (scales.skip, scales.out, scales.into))
        seen = torch.cat([into * x_t, features], dim=1)
        said = self.unet(seen, t) if strips is None else strips.unet(self.unet, seen, t)
        return skip * x_t + out * said[:, : self.config.picture_channels]  # what is left is a variance nobody asks for

    @torch.no_grad()
    def decode(
        self, grid: Float[Tensor, "b g hg wg"], rngs: Sequence[Generator], *, strips: Strips | None = None
    ) -> Pictures:
        """Grid, as the codec gives it, to pictures in [-1, 1].

        Args:
            grid: one a picture.
            rngs: one a picture, on the CPU; each gives the noise of all steps, for the whole picture.
            strips: compute it strip by strip, in bounded memory; None: all at once.

        Raises:
            BadRequest: when the grid is another codec's, or there is not one generator a picture.

        Source: Consistency Models, algorithm 1.
        """
        if len(rngs) != len(grid):
            raise BadRequest(f"{len(rngs)} generators for {len(grid)} grids", "one a picture")
        features = self.features(grid)
        shape = (self.config.picture_channels, *features.shape[2:])
        picture = features.new_zeros(len(grid), *shape)
        for step in self.config.steps:
            t = torch.full((len(grid),), step, device=grid.device)
            noise = normal_like_rows(rngs, shape, grid.device).to(grid.dtype)
            x_t = q_sample(picture, t, noise, self.schedule)
            picture = self.answer(x_t, t, features, strips).clamp(-1, 1)
        return picture


class ConsistencyCodec:
    """A codec whose grids are drawn by a consistency decoder; a `Codec`.

    Args:
        codec: whose encoder made the grids that the decoder was trained on.
        decoder: the decoder.
        seed: of every picture's noise, so that decoding is without chance.
        strips: draw strip by strip; None: all at once.

    Raises:
        BadConfig: when the two do not belong together.
    """

    def __init__(
        self, codec: Codec, decoder: ConsistencyDecoder, *, seed: int = 0, strips: Strips | None = None
    ) -> None:
        self.codec, self.decoder, self.seed, self.strips = codec, decoder, seed, strips
        config = decoder.config
        came = (codec.picture_channels, codec.grid_channels, codec.factor)
        wanted = (config.picture_channels, config.grid_channels, config.factor)
        require(came == wanted, f"a codec of picture channels, grid channels and factor {came}", f"{wanted}")
        self.picture_channels, self.grid_channels, self.factor = wanted
        self.picture_size = config.picture_size

    def encode(self, pictures: Pictures) -> Float[Tensor, "b g hg wg"]:
        """Pictures in [-1, 1] to their grid, by the codec."""
        return self.codec.encode(pictures)

    def decode(self, grid: Float[Tensor, "b g hg wg"]) -> Pictures:
        """Grid to pictures in [-1, 1], by the decoder."""
        return self.decoder.decode(grid, [picture_generator(self.seed) for _ in grid], strips=self.strips)


CONSISTENCY_PRESETS: Mapping[str, ConsistencyDecoderConfig] = MappingProxyType(
    {
        "openai": ConsistencyDecoderConfig(
            unet=UNetConfig(
                in_channels=7,
                out_channels=6,
                levels=tuple(UNetLevel(width=width, num_blocks=3) for width in (320, 640, 1024, 1024)),
                time_width=1280,
                num_learned_steps=1024,
                middle="residual",
            ),
            picture_size=256,
            grid_mean=(0.38862467, 0.02253063, 0.07381133, -0.0171294),
            grid_std=(0.9654121, 1.0440036, 0.76147926, 0.77022034),
        ),
        "emoji": ConsistencyDecoderConfig(
            unet=UNetConfig(
                in_channels=12,
                out_channels=4,
                levels=tuple(UNetLevel(width=width, num_blocks=1) for width in (32, 64, 96)),
                time_width=128,
                patch=2,
                middle="residual",
            ),
            picture_size=64,
            picture_channels=4,
            grid_mean=(0.0,) * 8,
            grid_std=(1.0,) * 8,
        ),
    }
)
