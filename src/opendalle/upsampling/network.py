"""The upsampler: from a small picture to one four times its side, by diffusion.

A U-Net of convolutions alone, so that it may be trained on crops and run on whole pictures, or on tiles.  It sees the
noised large picture and the small one enlarged, channels side by side, and neither caption nor embedding: the paper
found no gain from them.

Source: unCLIP, arXiv:2204.06125, section 2.1 (last paragraph); sizes in its appendix C.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from opendalle.base.errors import BadRequest, require
from opendalle.nn.residual import Conditioning
from opendalle.nn.unet import UNet, UNetConfig, UNetLevel


@dataclass(frozen=True, kw_only=True)
class UpsamplerConfig:
    """Shape of an upsampler."""

    picture_channels: int  # 3 for RGB, 4 for premultiplied RGBA
    factor: int  # how much larger the side becomes
    unet: UNetConfig  # sees twice the picture's channels: noised and enlarged; no attention
    adds_detail: bool = (
        False  # the U-Net says what the enlarged picture lacks; only where the clean picture is predicted
    )

    def __post_init__(self) -> None:
        require(self.factor > 1, f"factor {self.factor}", "at least 2")
        came, wanted = self.unet.in_channels, 2 * self.picture_channels
        require(came == wanted, f"a U-Net with {came} channels in", f"{wanted}: the noised and the enlarged picture")
        came, wanted = self.unet.out_channels, self.picture_channels
        require(came == wanted, f"a U-Net with {came} channels out", f"{wanted}: the prediction")
        attends = self.unet.middle == "attention" or any(level.has_attention for level in self.unet.levels)
        require(not attends, "a U-Net with attention", "convolutions alone, which run at any size")


def enlarge(small: Float[Tensor, "b c h w"], factor: int) -> Float[Tensor, "b c h2 w2"]:
    """Enlarge pictures in [-1, 1] by cubic interpolation; overshoot is cut off before, never after.

    Args:
        small: pictures.
        factor: how much larger the side becomes.
    """
    size = (small.shape[2] * factor, small.shape[3] * factor)
    return F.interpolate(small.clamp(-1, 1), size=size, mode="bicubic", align_corners=False, antialias=True)


class Upsampler(nn.Module):
    """Predicts the noise (or whatever it was trained for) in a noised large picture, given the small one enlarged."""

    def __init__(self, config: UpsamplerConfig) -> None:
        super().__init__()
        self.config = config
        self.unet = UNet(config.unet)

    def condition(self, small: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        """Enlarge the small picture once, for all steps; small is in [-1, 1]."""
        return enlarge(small, self.config.factor)

    def forward(
        self, x_t: Float[Tensor, "b c h w"], t: Shaped[Tensor, " b"], enlarged: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, "b c h w"]:
        """Predict from a noised picture.

        Args:
            x_t: noised large picture.
            t: diffusion step of each sample, 0 to 999.
            enlarged: from `condition`; crops of both together will do.

        Raises:
            BadRequest: when the pictures have other channels than the config says.
        """
        if x_t.shape[1] != self.config.picture_channels:
            raise BadRequest(f"pictures of {x_t.shape[1]} channels", f"{self.config.picture_channels} channels")
        output = self.unet(torch.cat([x_t, enlarged], dim=1), t)
        return enlarged + output if self.config.adds_detail else output


def paper_upsampler(stage: str, *, conditioning: Conditioning = "scale-shift") -> UpsamplerConfig:
    """Build one of the paper's two upsamplers, which are ADM's.

    Args:
        stage: "64-256" or "256-1024".
        conditioning: how time enters; the paper does not say, and the totals differ by 5 %.

    Source: unCLIP, arXiv:2204.06125, appendix C, table 3: widths 320 x (1, 2, 3, 4), depth 3; 192 x (1, 1, 2, 2, 4, 4),
        depth 2.
    """
    stages = {"64-256": (320, (1, 2, 3, 4), 3), "256-1024": (192, (1, 1, 2, 2, 4, 4), 2)}
    require(stage in stages, f"stage {stage!r}", " or ".join(stages))
    width, multiples, num_blocks = stages[stage]
    return _upsampler(tuple(width * m for m in multiples), num_blocks, conditioning)


def _upsampler(widths: tuple[int, ...], num_blocks: int, conditioning: Conditioning) -> UpsamplerConfig:
    unet = UNetConfig(
        in_channels=6,
        out_channels=3,
        levels=tuple(UNetLevel(width=width, num_blocks=num_blocks) for width in widths),
        time_width=4 * widths[0],
        middle="residual",
        conditioning=conditioning,
    )
    return UpsamplerConfig(picture_channels=3, factor=4, unet=unet)


def _emoji() -> UpsamplerConfig:
    """RGBA, 64 to 256 px: 4x4 squares of pixels are cells of the finest grid, so no convolution runs at 256x256.

    It starts from the enlarged picture, which is most of the answer, and learns what that lacks.
    """
    unet = UNetConfig(
        in_channels=8,
        out_channels=4,
        levels=tuple(UNetLevel(width=64, num_blocks=num_blocks) for num_blocks in (1, 1, 2)),
        time_width=128,
        patch=4,
        middle="residual",
    )
    return UpsamplerConfig(picture_channels=4, factor=4, unet=unet, adds_detail=True)


def _emoji_1024() -> UpsamplerConfig:
    """RGBA, 256 to 1024 px: a cell of the finest grid is one pixel of the small picture.

    What is missing at this size is the sharpness of edges, which lies near them: two levels see far enough.  Cell norms
    look no further than convolutions do, so a picture of any size is drawn in tiles that are the whole, exactly.
    """
    unet = UNetConfig(
        in_channels=8,
        out_channels=4,
        levels=(UNetLevel(width=48, num_blocks=1), UNetLevel(width=48, num_blocks=1)),
        time_width=64,
        patch=4,
        middle="none",
        norm="cell",
        norm_groups=16,
    )
    return UpsamplerConfig(picture_channels=4, factor=4, unet=unet, adds_detail=True)


UPSAMPLER_PRESETS: Mapping[str, UpsamplerConfig] = MappingProxyType(
    {
        "emoji": _emoji(),
        "emoji-1024": _emoji_1024(),
        "karlo": _upsampler((320, 640, 960, 1280), 3, "add"),
        "paper": paper_upsampler("64-256"),
        "paper-1024": paper_upsampler("256-1024"),
    }
)


def native_sides(base: int, upsampler: Upsampler | None) -> tuple[int, ...]:
    """Return the sides of the square pictures that a generation draws natively, smallest first.

    Args:
        base: side of what its codec draws, in pixels.
        upsampler: the first of those that follow; None: none does.
    """
    return (base,) if upsampler is None else (base, base * upsampler.config.factor)
