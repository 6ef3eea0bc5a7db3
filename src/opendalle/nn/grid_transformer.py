"""A transformer as denoiser of a small grid: squares of cells become tokens, and every block is told step and prompt.

On a grid of a few hundred numbers a U-Net has nowhere to go down to; a transformer gives every weight to every square,
and what the prompt fixes for the whole picture enters by modulation, which costs one token's work instead of all.

Source: DiT, "Scalable diffusion models with transformers", arXiv:2212.09748, sections 3.1 and 3.2 (patches, fixed
    positions, adaLN-Zero); keys of [context ; picture] as in GLIDE, arXiv:2112.10741, section 3.1.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from opendalle.base.errors import BadRequest, require
from opendalle.nn.attention import AttentionContext
from opendalle.nn.embeddings import TimeEmbedding, sinusoid
from opendalle.nn.transformer import Transformer, TransformerConfig


@dataclass(frozen=True, kw_only=True)
class GridTransformerConfig:
    """Shape of a grid transformer."""

    in_channels: int  # of the noised grid
    out_channels: int  # of the prediction; twice the grid's when a variance is learned
    patch: int  # side of the squares that become tokens, in cells
    width: int  # of a token; a multiple of 4
    depth: int  # blocks
    heads: int  # attention heads; they divide width
    time_width: int  # width of the vector that carries step and embedding to every block
    context_width: int | None = None  # width of a context token; None: the picture looks at itself only
    mlp_ratio: float = 4.0  # hidden width of the feed-forward layer over width
    dropout: float = 0.0  # of both residual branches, in training

    def __post_init__(self) -> None:
        require(self.in_channels > 0 and self.out_channels > 0, f"channels of {self}", "positive numbers")
        require(self.patch > 0 and self.time_width > 0, f"patch and time_width of {self}", "positive numbers")
        require(self.width % 4 == 0, f"width {self.width}", "a multiple of 4: cosines and sines of row and column")
        self.make_transformer()

    def make_transformer(self) -> TransformerConfig:
        """Describe the transformer over the tokens."""
        return TransformerConfig(
            width=self.width,
            depth=self.depth,
            heads=self.heads,
            mlp_ratio=self.mlp_ratio,
            dropout=self.dropout,
            condition_width=self.time_width,
            context_width=self.context_width,
            final_norm=False,
        )

    @property
    def multiple(self) -> int:
        """What height and width of a grid must be multiples of, in cells."""
        return self.patch


class GridTransformer(nn.Module):
    """The denoiser; a stranger can put it where a `UNet` stands."""

    def __init__(self, config: GridTransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.time = TimeEmbedding(config.width, config.time_width)
        self.patch_in = nn.Linear(config.in_channels * config.patch**2, config.width)
        self.transformer = Transformer(config.make_transformer())
        self.norm_out = nn.LayerNorm(config.width, elementwise_affine=False)
        self.modulation_out = nn.Linear(config.time_width, 2 * config.width)
        self.patch_out = nn.Linear(config.width, config.out_channels * config.patch**2)
        for zero in (self.modulation_out, self.patch_out):  # the first prediction is zero, as a U-Net's
            nn.init.zeros_(zero.weight)
            nn.init.zeros_(zero.bias)

    def prepare_context(
        self, states: Float[Tensor, "b m d"], mask: Bool[Tensor, "b m"] | None = None
    ) -> AttentionContext:
        """Compute every block's keys and values of a prompt; they serve all denoising steps.

        Args:
            states: context tokens, config.context_width wide.
            mask: True where a token is real; None: all are.
        """
        return self.transformer.prepare_context(states, mask)

    def forward(
        self,
        x: Float[Tensor, "b c h w"],
        t: Shaped[Tensor, " b"],
        *,
        embedding: Float[Tensor, "b d"] | None = None,
        context: AttentionContext | None = None,
    ) -> Float[Tensor, "b c2 h w"]:
        """Predict from a noised grid.

        Args:
            x: noised grid; height and width are multiples of config.patch.
            t: diffusion step of each sample.
            embedding: added to the time vector, config.time_width wide.
            context: from `prepare_context`.

        Raises:
            BadRequest: when the grid does not fit the patches.
        """
        height, width, patch = x.shape[2], x.shape[3], self.config.patch
        if height % patch or width % patch:
            raise BadRequest(f"a grid of {height} by {width}", f"multiples of {patch}")
        time = self.time(t)
        if embedding is not None:
            time = time + embedding
        squares = rearrange(x, "b c (h p) (w q) -> b (h w) (c p q)", p=patch, q=patch)
        tokens = self.patch_in(squares)
        tokens = tokens + grid_positions(height // patch, width // patch, self.config.width, tokens)
        tokens = self.transformer(tokens, condition=time, context=context)
        scale, shift = self.modulation_out(F.silu(time))[:, None].chunk(2, dim=-1)
        out = self.patch_out(self.norm_out(tokens) * (1 + scale) + shift)
        return rearrange(out, "b (h w) (c p q) -> b c (h p) (w q)", h=height // patch, p=patch, q=patch)


def grid_positions(height: int, width: int, channels: int, like: Tensor) -> Float[Tensor, "n d"]:
    """Tell every square its row and column by fixed waves, half the channels each; grids of any size have them.

    Args:
        height: rows of squares.
        width: columns of squares.
        channels: width of a token, a multiple of 4.
        like: gives dtype and device.
    """
    rows = sinusoid(torch.arange(height, device=like.device), channels // 2)
    columns = sinusoid(torch.arange(width, device=like.device), channels // 2)
    both = torch.cat([rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)], dim=-1)
    return rearrange(both, "h w d -> (h w) d").to(like.dtype)
