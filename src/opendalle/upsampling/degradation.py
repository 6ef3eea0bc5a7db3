"""Spoiling pictures as the world spoils them: blurred, resized, noised and squeezed, in an order that nobody knows.

The last upsampler meets pictures that an earlier one drew, or that somebody brings: softer than a shrunken original,
and worse in ways that no single filter describes.  So its small pictures are made by a chain of random operations in
random order.  Ends are fixed: what comes out has the small size, and the last thing that happened to it is JPEG.

Pictures may have alpha, which the published chain does not know.  Colour is premultiplied, so blurs and resizings treat
all four channels alike and nothing bleeds; noise and JPEG touch colour alone, where there is something to touch.

Source: BSRGAN, "Designing a practical degradation model", arXiv:2103.14006, section 3 and figure 2; used for the stage
    to 1024 px by unCLIP, arXiv:2204.06125, section 2.1, as latent diffusion does, arXiv:2112.10752, appendix D.6.1.
    Its camera-sensor noise is left out: drawings never went through a camera.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Generator, Tensor

from opendalle.base.axes import Pictures
from opendalle.base.errors import BadRequest, require

Operation = Literal["blur", "reduce", "fit", "noise", "jpeg"]
Resizing = Literal["linear", "cubic", "area"]
NoiseKind = Literal["colour", "grey", "correlated"]

RESIZINGS: tuple[Resizing, ...] = ("linear", "cubic", "area")
NOISE_KINDS: tuple[NoiseKind, ...] = ("colour", "grey", "correlated")
NOISE_SHARES = (0.4, 0.4, 0.2)  # of the three kinds
KERNEL_SIDES = (7, 25)  # smallest and largest side of a blur's kernel, odd
FLOOR = 1e-3  # smallest variance of a blur, in pixels^2: as good as none
Values = Float[Tensor, "c h w"]  # one picture in [0, 1], colour premultiplied
Resized = Float[Tensor, "c h2 w2"]  # the same of another size


@dataclass(frozen=True, kw_only=True)
class DegradationConfig:
    """How badly pictures are spoiled; the defaults are the paper's."""

    factor: int = 4  # large side over small side
    share: float = 1.0  # of pictures that are spoiled; the others are shrunk and nothing else
    num_blurs: int = 2  # blurs in the chain
    blur_sigma: float = 2.8  # of a round blur, at most, in large pixels
    blur_variance: float = 8.0  # of an oblong blur along each of its axes, at most, in large pixels^2
    halve_share: float = 0.25  # of pictures that are halved before the chain begins, where the factor is 4
    resize_share: float = 0.75  # of pictures reduced by any factor before they are fitted; the others by a blur and a
    # sampling of every few pixels
    noise: tuple[int, int] = (2, 25)  # deviation of the noise, from and to, in 1/255
    jpeg_share: float = 0.9  # of pictures that are also squeezed within the chain, not only at its end
    jpeg_quality: tuple[int, int] = (30, 95)  # from and to, as JPEG counts

    def __post_init__(self) -> None:
        require(self.factor >= 2, f"factor is {self.factor}", "at least 2")
        require(self.num_blurs >= 0, f"num_blurs is {self.num_blurs}", "0 or more")
        for name in ("share", "halve_share", "resize_share", "jpeg_share"):
            require(0 <= getattr(self, name) <= 1, f"{name} is {getattr(self, name)}", "0 to 1")
        require(0 < self.blur_sigma <= 10, f"blur_sigma is {self.blur_sigma}", "above 0, at most 10 pixels")
        require(0 < self.blur_variance <= 100, f"blur_variance is {self.blur_variance}", "above 0, at most 100")
        low, high = self.noise
        require(0 <= low <= high <= 255, f"noise is {self.noise}", "from and to, within 0 to 255")
        low, high = self.jpeg_quality
        require(1 <= low <= high <= 95, f"jpeg_quality is {self.jpeg_quality}", "from and to, within 1 to 95")


def light(*, share: float = 1.0, factor: int = 4) -> DegradationConfig:
    """Build the gentler chain that latent diffusion's published code has beside the paper's.

    Args:
        share: of pictures that are spoiled.
        factor: large side over small side.
    """
    return DegradationConfig(
        factor=factor,
        share=share,
        num_blurs=1,
        blur_sigma=0.7,
        blur_variance=2.0,
        resize_share=0.8,
        noise=(1, 2),
        jpeg_quality=(80, 95),
    )


def degrade(
    pictures: Pictures, config: DegradationConfig, generators: Sequence[Generator]
) -> Float[Tensor, "b c h2 w2"]:
    """Make the small pictures of a batch.

    Args:
        pictures: large ones in [-1, 1], RGB or premultiplied RGBA, on the CPU.
        config: how badly.
        generators: one a picture; all chance comes from it.

    Returns:
        Pictures in [-1, 1] of exactly the small size.

    Raises:
        BadRequest: when sides are no multiples of the factor, or there are not as many generators as pictures.
    """
    height, width = pictures.shape[2:]
    if height % config.factor or width % config.factor:
        raise BadRequest(f"pictures of {width}x{height}", f"sides that are multiples of {config.factor}")
    if len(generators) != len(pictures):
        raise BadRequest(f"{len(generators)} generators", f"{len(pictures)}, one a picture")
    rows = [_degrade(one / 2 + 0.5, config, rng) for one, rng in zip(pictures.float(), generators, strict=True)]
    return (torch.stack(rows) * 2 - 1).to(pictures.dtype)


def _degrade(x: Values, config: DegradationConfig, rng: Generator) -> Resized:
    size = (x.shape[1] // config.factor, x.shape[2] // config.factor)
    if not _coin(config.share, rng):
        return within(F.interpolate(x[None], size=size, mode="bicubic", antialias=True)[0])
    x, factor = within(x), config.factor
    if factor == 4 and min(x.shape[1:]) >= 4 and _coin(config.halve_share, rng):
        x, factor = resize(x, (x.shape[1] // 2, x.shape[2] // 2), _pick(RESIZINGS, rng)), 2
    for operation in draw_order(config.num_blurs, rng):
        if operation == "blur":
            x = blur_with(x, draw_kernel(config, rng))
        elif operation == "reduce":
            x = _reduce(x, factor, config.resize_share, rng)
        elif operation == "fit":
            x = resize(x, size, _pick(RESIZINGS, rng))
        elif operation == "noise":
            x = _noise(x, config.noise, rng)
        elif _coin(config.jpeg_share, rng):
            x = jpeg(x, _whole(*config.jpeg_quality, rng))
    return jpeg(x, _whole(*config.jpeg_quality, rng))


def draw_order(num_blurs: int, rng: Generator) -> tuple[Operation, ...]:
    """Shuffle the operations; the fitting to the small size alone never comes before the other reduction.

    Args:
        num_blurs: how many blurs there are.
        rng: the picture's.
    """
    operations: list[Operation] = [*["blur"] * num_blurs, "reduce", "fit", "noise", "jpeg"]  # type: ignore[list-item]
    order = [operations[place] for place in torch.randperm(len(operations), generator=rng).tolist()]
    reduce, fit = order.index("reduce"), order.index("fit")
    if fit < reduce:
        order[fit], order[reduce] = order[reduce], order[fit]
    return tuple(order)


def draw_kernel(config: DegradationConfig, rng: Generator) -> Float[Tensor, "s s"]:
    """Draw a blur: half of them round, half oblong at any angle.

    Args:
        config: how wide they may be.
        rng: the picture's.
    """
    half_sides = (KERNEL_SIDES[0] // 2, KERNEL_SIDES[1] // 2)
    side = 2 * _whole(*half_sides, rng) + 1
    if _coin(0.5, rng):
        variance = (config.blur_sigma * _uniform(0, 1, rng)) ** 2
        return gaussian(side, variance, variance)
    one, other = (config.blur_variance * _uniform(0, 1, rng) for _ in range(2))
    return gaussian(side, one, other, angle=_uniform(0, math.pi, rng))


def gaussian(side: int, one: float, other: float, *, angle: float = 0.0, shift: float = 0.0) -> Float[Tensor, "s s"]:
    """A Gaussian's values at the pixels of a square, of sum 1.

    Args:
        side: of the square, in pixels.
        one: variance along its first axis, in pixels^2; at least FLOOR.
        other: variance along its second axis.
        angle: of the first axis with the rows, in radians.
        shift: of its middle from the square's, along rows and columns, in pixels.
    """
    along = torch.arange(side, dtype=torch.float64) - (side - 1) / 2 - shift
    y, x = along[:, None], along[None, :]
    first = math.cos(angle) * x + math.sin(angle) * y
    second = math.cos(angle) * y - math.sin(angle) * x
    values = torch.exp(-0.5 * (first**2 / max(one, FLOOR) + second**2 / max(other, FLOOR)))
    return (values / values.sum()).float()


def blur_with(x: Values, kernel: Float[Tensor, "s s"], stride: int = 1) -> Resized:
    """Weigh each pixel's neighbours by a kernel; borders are repeated.

    Args:
        x: a picture.
        kernel: of odd side and sum 1.
        stride: every how many pixels a result is kept, beginning with the first.
    """
    margin, channels = kernel.shape[0] // 2, x.shape[0]
    padded = F.pad(x[None], (margin,) * 4, mode="replicate")
    return F.conv2d(padded, kernel.expand(channels, 1, -1, -1), stride=stride, groups=channels)[0]


def resize(x: Values, size: tuple[int, int], how: Resizing) -> Resized:
    """Resize as most programs do: linear and cubic without regard for what is lost between the pixels they look at.

    Args:
        x: a picture.
        size: height and width wanted.
        how: one of RESIZINGS.
    """
    if how == "area":
        return F.interpolate(x[None], size=size, mode="area")[0]
    mode = "bilinear" if how == "linear" else "bicubic"
    return within(F.interpolate(x[None], size=size, mode=mode, align_corners=False)[0])


def _reduce(x: Values, factor: int, resize_share: float, rng: Generator) -> Resized:
    """Make a picture smaller by any factor up to twice the wanted one, or sample a blurred one at the wanted rate."""
    if _coin(resize_share, rng):
        scale = _uniform(1, 2 * factor, rng)
        return resize(x, (max(1, int(x.shape[1] / scale)), max(1, int(x.shape[2] / scale))), _pick(RESIZINGS, rng))
    variance = _uniform(0.1, 0.6 * factor, rng) ** 2
    # The first of every few pixels stands for all of them, so the blur looks at their middle.
    return blur_with(x, gaussian(KERNEL_SIDES[1], variance, variance, shift=(factor - 1) / 2), stride=factor)


def _noise(x: Values, levels: tuple[int, int], rng: Generator) -> Values:
    share, kind = _uniform(0, 1, rng), NOISE_KINDS[-1]
    for name, part in zip(NOISE_KINDS, NOISE_SHARES, strict=True):
        if share < part:
            kind = name
            break
        share -= part
    level = levels[1] if kind == "correlated" else _whole(*levels, rng)
    return add_noise(x, draw_noise(kind, level / 255, x.shape[1:], rng))


def draw_noise(kind: NoiseKind, deviation: float, size: Sequence[int], rng: Generator) -> Float[Tensor, "3 h w"]:
    """Draw Gaussian noise of three colours.

    Args:
        kind: colours apart, all the same, or mixed at random with deviations of their own up to the one given.
        deviation: of each colour.
        size: height and width.
        rng: the picture's.
    """
    if kind == "grey":
        return torch.randn(1, *size, generator=rng).expand(3, -1, -1) * deviation
    noise = torch.randn(3, *size, generator=rng) * deviation
    if kind == "colour":
        return noise
    turn = torch.linalg.qr(torch.randn(3, 3, generator=rng)).Q
    mix = turn * torch.rand(3, generator=rng).sqrt()  # its square is the covariance: axes turned, lengths drawn
    return torch.einsum("ij,jhw->ihw", mix, noise)


def add_noise(x: Values, noise: Float[Tensor, "3 h w"]) -> Values:
    """Add noise to colour, as much as there is of the picture.

    Args:
        x: a picture.
        noise: for its three colours.
    """
    solid = x[3:] if len(x) == 4 else torch.ones_like(x[:1])
    return within(torch.cat([x[:3] + noise * solid, x[3:]]))


def jpeg(x: Values, quality: int) -> Values:
    """Write colour as JPEG and read it again; alpha, which JPEG has not, stays.

    Args:
        x: a picture.
        quality: 1 to 95.
    """
    pixels = (x[:3].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "jpeg", quality=quality)
    read = torch.from_numpy(np.array(Image.open(file)))
    return within(torch.cat([read.permute(2, 0, 1).to(x) / 255, x[3:]]))


def within(x: Values) -> Values:
    """Hold a picture in its range: alpha in [0, 1], colour no brighter than alpha lets it be.

    Args:
        x: a picture, perhaps overshot.
    """
    alpha = x[3:].clamp(0, 1)
    colour = x[:3].clamp(0, 1)
    return torch.cat([torch.minimum(colour, alpha), alpha]) if len(x) == 4 else colour


def _uniform(low: float, high: float, rng: Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=rng))


def _whole(low: int, high: int, rng: Generator) -> int:
    """Draw a whole number, both ends included."""
    return int(torch.randint(low, high + 1, (), generator=rng))


def _coin(share: float, rng: Generator) -> bool:
    return float(torch.rand((), generator=rng)) < share


def _pick(choices: Sequence[Resizing], rng: Generator) -> Resizing:
    return choices[_whole(0, len(choices) - 1, rng)]
