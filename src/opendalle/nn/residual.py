"""The residual block of ADM, shared by the U-Nets and the picture autoencoder.

Source: Dhariwal and Nichol, "Diffusion Models Beat GANs on Image Synthesis", arXiv:2105.05233, section 3: resampling
happens inside the residual branch, and the time embedding enters as a scale and shift of the second norm
("adaptive group normalisation") or, plainly, as a sum after the first convolution.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from opendalle.nn.convolution import Conv3x3
from opendalle.nn.norms import Norm, make_norm

Resample = Literal["none", "up", "down"]
Conditioning = Literal["none", "add", "scale-shift"]


def resample(x: Float[Tensor, "b c h w"], how: Resample) -> Float[Tensor, "b c h2 w2"]:
    """Double a grid by repetition, halve it by averaging 2x2 cells, or leave it alone.

    Args:
        x: any grid; for "down" its height and width are even.
        how: "up", "down" or "none".
    """
    if how == "up":
        return F.interpolate(x, scale_factor=2.0, mode="nearest")
    if how == "down":
        return F.avg_pool2d(x, kernel_size=2)
    return x


class ResidualBlock(nn.Module):
    """Norm, SiLU, (resample), convolution, conditioning, norm, SiLU, dropout, convolution, plus a skip.

    Args:
        in_channels: channels that come; a multiple of `norm_groups`.
        out_channels: channels that leave; a multiple of `norm_groups`.
        embedding_width: width of the conditioning vector, 0 when there is none.
        conditioning: how the vector enters.
        resample: whether the grid doubles or halves inside the block.
        norm: kind of both norms.
        norm_groups: groups of both, where they are group norms.
        norm_eps: epsilon of both norms.
        dropout: share of activations dropped before the last convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        embedding_width: int = 0,
        conditioning: Conditioning = "none",
        resample: Resample = "none",
        norm: Norm = "group",
        norm_groups: int = 32,
        norm_eps: float = 1e-5,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.conditioning: Conditioning = conditioning
        self.resample: Resample = resample
        self.norm_in = make_norm(norm, in_channels, groups=norm_groups, eps=norm_eps)
        self.conv_in = Conv3x3(in_channels, out_channels)
        self.embedding = None
        if conditioning != "none":
            factor = 2 if conditioning == "scale-shift" else 1
            self.embedding = nn.Linear(embedding_width, factor * out_channels)
        self.norm_out = make_norm(norm, out_channels, groups=norm_groups, eps=norm_eps)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = Conv3x3(out_channels, out_channels)
        nn.init.zeros_(self.conv_out.weight)  # every block starts as the identity, so depth does no harm at first
        nn.init.zeros_(_bias(self.conv_out))
        self.skip = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(
        self, x: Float[Tensor, "b c h w"], embedding: Float[Tensor, "b d"] | None = None
    ) -> Float[Tensor, "b c2 h2 w2"]:
        """Transform a grid.

        Args:
            x: the grid.
            embedding: conditioning vector, before its SiLU; needed unless conditioning is "none".
        """
        hidden = resample(F.silu(self.norm_in(x)), self.resample)
        hidden = self.conv_in(hidden)
        if self.embedding is not None and embedding is not None:
            vector = self.embedding(F.silu(embedding))[:, :, None, None]
            if self.conditioning == "scale-shift":
                scale, shift = vector.chunk(2, dim=1)
                hidden = torch.addcmul(shift, self.norm_out(hidden), 1 + scale)
            else:
                hidden = self.norm_out(hidden + vector)
        else:
            hidden = self.norm_out(hidden)
        hidden = self.conv_out(self.dropout(F.silu(hidden)))
        return self.skip(resample(x, self.resample)) + hidden


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias
