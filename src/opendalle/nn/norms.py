"""The norms of a grid: over groups of channels of the whole grid, or over the channels of each cell alone.

A group norm looks at every cell, so what a convolutional network draws in one corner depends on all the others, and a
picture drawn in tiles is another picture.  A cell norm looks at one cell: a network with it reaches only as far as its
convolutions, and its tiles are the whole, exactly.

Source: Group normalization, arXiv:1803.08494; layer normalization over channels as in ConvNeXt, arXiv:2201.03545,
    section 2.6.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Norm = Literal["group", "cell"]


class CellNorm(nn.Module):
    """Give the channels of every cell zero mean and unit variance, then scale and shift each channel.

    Its weights have the names and shapes of a group norm's.

    Args:
        width: channels.
        eps: added to the variance.
    """

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Normalise a grid; one that is channels_last is read as it lies."""
        cells = x.permute(0, 2, 3, 1)
        return F.layer_norm(cells, self.weight.shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


def make_norm(kind: Norm, width: int, *, groups: int, eps: float) -> nn.Module:
    """Build a norm.

    Args:
        kind: "group" or "cell".
        width: channels.
        groups: of a group norm; they divide the width.
        eps: added to the variance.
    """
    return CellNorm(width, eps) if kind == "cell" else nn.GroupNorm(groups, width, eps=eps)
