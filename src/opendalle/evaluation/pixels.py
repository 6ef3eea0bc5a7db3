"""Numbers read straight off pixels: likeness to a reference, and sharpness.

All pictures are (b, c, h, w) in [-1, 1], so the peak-to-peak range is 2.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from opendalle.base.errors import BadPicture

RANGE = 2.0  # of pixel values in [-1, 1]
_LUMA = (0.299, 0.587, 0.114)  # weights of red, green, blue, ITU-R BT.601


def psnr(first: Float[Tensor, "b c h w"], second: Float[Tensor, "..."]) -> Float[Tensor, " b"]:
    """Return the peak signal-to-noise ratio of each pair in decibels; infinite for equal pictures."""
    _check_pair(first, second)
    error = (first.double() - second.double()).square().mean(dim=(1, 2, 3))
    return (10 * torch.log10(RANGE**2 / error)).float()


def ssim(
    first: Float[Tensor, "b c h w"], second: Float[Tensor, "..."], window: int = 11, sigma: float = 1.5
) -> Float[Tensor, " b"]:
    """Return the structural similarity of each pair, at most 1, averaged over channels and every whole window.

    Args:
        first: pictures in [-1, 1].
        second: the pictures they are compared with.
        window: side of the Gaussian window in pixels.
        sigma: its standard deviation in pixels.

    Raises:
        BadPicture: when pictures are smaller than the window, or do not come in pairs.

    Source: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004, equation 13,
    K1 = 0.01, K2 = 0.03.
    """
    _check_pair(first, second)
    if min(first.shape[-2:]) < window:
        raise BadPicture(f"pictures of {tuple(first.shape[-2:])}", f"at least {window} pixels a side")
    x, y = first.double(), second.double()
    mean_x, mean_y = _blur(x, window, sigma), _blur(y, window, sigma)
    variance_x = _blur(x * x, window, sigma) - mean_x**2
    variance_y = _blur(y * y, window, sigma) - mean_y**2
    covariance = _blur(x * y, window, sigma) - mean_x * mean_y
    c1, c2 = (0.01 * RANGE) ** 2, (0.03 * RANGE) ** 2
    likeness = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    likeness = likeness / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))
    return likeness.mean(dim=(1, 2, 3)).float()


def gradient_energy(pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
    """Return the mean squared step between neighbouring pixels' luma, across plus down: higher is sharper.

    Args:
        pictures: RGB in [-1, 1]; compare only pictures of one size.
    """
    weights = torch.tensor(_LUMA, dtype=pictures.dtype, device=pictures.device).view(1, 3, 1, 1)
    luma = (pictures * weights).sum(dim=1)  # (b, h, w)
    return luma.diff(dim=2).square().mean(dim=(1, 2)) + luma.diff(dim=1).square().mean(dim=(1, 2))


def _blur(x: Float[Tensor, "b c h w"], window: int, sigma: float) -> Float[Tensor, "b c i j"]:
    """Gaussian average of every whole window: along rows, then along columns."""
    place = torch.arange(window, dtype=x.dtype, device=x.device) - (window - 1) / 2
    kernel = torch.exp(-(place**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    flat = x.flatten(0, 1).unsqueeze(1)  # (b*c, 1, h, w)
    flat = F.conv2d(F.conv2d(flat, kernel.view(1, 1, 1, window)), kernel.view(1, 1, window, 1))
    return flat.view(x.shape[0], x.shape[1], flat.shape[-2], flat.shape[-1])


def _check_pair(first: Tensor, second: Tensor) -> None:
    if first.shape != second.shape:
        raise BadPicture(f"pictures of {tuple(first.shape)} and {tuple(second.shape)}", "two sets of one shape")
