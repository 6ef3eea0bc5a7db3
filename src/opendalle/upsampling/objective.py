"""How an upsampler is trained: on crops, from small pictures that are a little worse than they should be.

At inference the small picture comes from a decoder and a codec, never from shrinking a real one.  The paper blurs the
conditioning (a Gaussian of three pixels, sigma 0.6) so that the upsampler does not trust every pixel; ours may also be
handed small pictures that have been through the codec, which is what it will meet.

Source: unCLIP, arXiv:2204.06125, section 2.1; sizes of kernel and crops in appendix C.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from opendalle.base.axes import Pictures
from opendalle.base.errors import require
from opendalle.base.protocols import Losses
from opendalle.diffusion.losses import min_snr_weight, simple_loss
from opendalle.diffusion.predictions import Prediction, check_prediction
from opendalle.diffusion.process import q_sample
from opendalle.diffusion.schedules import Schedule
from opendalle.upsampling.network import Upsampler


@dataclass(frozen=True, kw_only=True)
class ScalePair:
    """The same pictures, large and small; the small ones perhaps spoiled already."""

    large: Pictures  # factor times the side of the small ones
    small: Float[Tensor, "b c h2 w2"]

    def __len__(self) -> int:
        return len(self.large)


@dataclass(frozen=True, kw_only=True)
class UpsamplerLossConfig:
    """How the upsampler is trained."""

    prediction: Prediction = "eps"  # what the network predicts
    crop: int = 64  # side of the crops, in large pixels; a quarter of 256 as in the paper
    crops: int = 1  # crops taken from each picture: reading a large picture costs more than cutting it
    blur_share: float = 0.5  # share of small pictures that are blurred
    blur_sigma: float = 0.6  # of the blur, in small pixels; its kernel is three pixels wide
    min_snr: float | None = None  # cap of the signal-to-noise weight; None: the simple loss

    def __post_init__(self) -> None:
        require(self.crop >= 8, f"crop is {self.crop}", "at least 8 pixels")
        require(self.crops >= 1, f"crops is {self.crops}", "at least 1")
        require(0 <= self.blur_share <= 1, f"blur_share is {self.blur_share}", "0 to 1")
        require(self.blur_sigma > 0, f"blur_sigma is {self.blur_sigma}", "a positive number of pixels")


class UpsamplerObjective:
    """Meeting point 2 for an upsampler.

    Args:
        upsampler: the network, trained in place.
        schedule: noise schedule over its steps.
        config: crops, blur, weighting.

    Raises:
        BadConfig: when a crop does not fit the network's grid.
    """

    def __init__(self, upsampler: Upsampler, schedule: Schedule, config: UpsamplerLossConfig) -> None:
        check_prediction(config.prediction, schedule)
        multiple = upsampler.config.unet.multiple
        require(config.crop % multiple == 0, f"crop is {config.crop}", f"a multiple of {multiple}")
        self.upsampler, self.schedule, self.config = upsampler, schedule, config

    @property
    def groups(self) -> Mapping[str, nn.Module]:
        """The upsampler."""
        return {"upsampler": self.upsampler}

    def __call__(self, batch: ScalePair, rng: Generator) -> Losses:
        """Error of the prediction on random crops."""
        config = self.config
        blurred = torch.rand(len(batch), generator=rng) < config.blur_share
        small = torch.where(
            blurred.to(batch.small.device)[:, None, None, None], blur(batch.small, config.blur_sigma), batch.small
        )
        x0, enlarged = self._crops(batch.large, self.upsampler.condition(small), rng)
        t = torch.randint(self.schedule.num_steps, (len(x0),), generator=rng).to(x0.device)
        eps = torch.randn(x0.shape, generator=rng).to(x0)
        output = self.upsampler(q_sample(x0, t, eps, self.schedule), t, enlarged)
        simple = simple_loss(config.prediction, output, x0, eps, t, self.schedule)
        loss = simple
        if config.min_snr is not None:
            loss = simple * min_snr_weight(config.prediction, t, self.schedule, config.min_snr)
        return Losses(total={"upsampler": loss.mean()}, watch={"simple": simple.mean().item()})

    def _crops(
        self, large: Pictures, enlarged: Pictures, rng: Generator
    ) -> tuple[Float[Tensor, "n c s s"], Float[Tensor, "n c s s"]]:
        """Cut both pictures of each pair at the same random places."""
        size, (height, width) = self.config.crop, large.shape[2:]
        require(min(height, width) >= size, f"pictures of {height}x{width}", f"at least a crop of {size}")
        rows, enlarged_rows = [], []
        for one, other in zip(large, enlarged, strict=True):
            for _ in range(self.config.crops):
                y = int(torch.randint(height - size + 1, (1,), generator=rng))
                x = int(torch.randint(width - size + 1, (1,), generator=rng))
                rows.append(one[:, y : y + size, x : x + size])
                enlarged_rows.append(other[:, y : y + size, x : x + size])
        return torch.stack(rows), torch.stack(enlarged_rows)


def blur(pictures: Pictures, sigma: float) -> Float[Tensor, "b c h w"]:
    """Blur with a Gaussian kernel of three by three pixels; borders are repeated.

    Args:
        pictures: any.
        sigma: of the Gaussian, in pixels.
    """
    side = math.exp(-0.5 / sigma**2)
    line = torch.tensor([side, 1.0, side], dtype=pictures.dtype, device=pictures.device)
    line = line / line.sum()
    channels = pictures.shape[1]
    kernel = (line[:, None] * line).expand(channels, 1, 3, 3)
    return F.conv2d(F.pad(pictures, (1, 1, 1, 1), mode="replicate"), kernel, groups=channels)
