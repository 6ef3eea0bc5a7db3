"""The U-Net's twin: a transformer over squares of the grid, as PixArt's.

    squares ─▶ depth x [ norm, modulate ─▶ attention ─▶ gate, +
                         attention to the caption ─▶ +
                         norm, modulate ─▶ feed-forward ─▶ gate, + ] ─▶ norm, modulate ─▶ linear ─▶ squares

The step modulates every block by the same six vectors, made once; a block adds its own learned six to them, which saves
a quarter of DiT's weights.  A square stands at fixed waves of its column and row, so grids of any height and width
have their places.

Source: PixArt-α, arXiv:2310.00426, section 2.3 and appendix A.4; DiT, arXiv:2212.09748, section 3.2.
"""

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from opendalle.base.axes import Grid, Steps
from opendalle.base.errors import BadRequest, require
from opendalle.dalle3.text_encoder import TextStates
from opendalle.dalle3.text_keys import TextIn, TextKeys
from opendalle.nn.attention import Attention, AttentionContext, CrossAttention
from opendalle.nn.embeddings import TimeEmbedding, sinusoid
from opendalle.nn.transformer import FeedForward, TransformerConfig

NORM_EPS = 1e-6  # added to the variance in norms, as PixArt's


@dataclass(frozen=True, kw_only=True)
class LatentTransformerConfig:
    """Shape of a latent transformer."""

    channels: int  # of the grid
    text_width: int  # of a token's state
    patch: int = 2  # side of the squares that become tokens, in cells
    width: int  # of a token; a multiple of 4
    depth: int  # blocks
    heads: int  # attention heads; they divide width
    mlp_ratio: float = 4.0  # hidden width of the feed-forward layer over width
    sinusoid_width: int = 256  # of the step's waves
    base_side: int | None = None  # squares that a side counts as, however many it has; None: squares are counted
    shares_keys: bool = False  # whether all blocks look at the same keys and values of a caption, which long captions
    # make cheap
    pools_text: bool = False  # whether the mean of the caption's states joins the step's vector
    learns_variance: bool = False  # whether the prediction has as many channels again, for the variance of each step

    def __post_init__(self) -> None:
        sizes = (self.channels, self.text_width, self.patch, self.sinusoid_width)
        require(min(sizes) > 0, f"sizes of {self}", "positive numbers")
        require(self.width % 4 == 0, f"width {self.width}", "a multiple of 4: sines and cosines of column and row")
        require(
            self.base_side is None or self.base_side > 0, f"base_side {self.base_side}", "a positive number, or None"
        )
        self.make_block()

    def make_block(self) -> TransformerConfig:
        """Describe what a block has in common with every transformer's."""
        return TransformerConfig(
            width=self.width,
            depth=self.depth,
            heads=self.heads,
            mlp_ratio=self.mlp_ratio,
            activation="tanh_gelu",
            norm_eps=NORM_EPS,
        )

    @property
    def multiple(self) -> int:
        """What height and width of a grid must be multiples of, in cells."""
        return self.patch


class LatentBlock(nn.Module):
    """Attention among squares and feed-forward, modulated and gated by the step; between them a look at the caption."""

    def __init__(self, config: LatentTransformerConfig, context_width: int | None) -> None:
        super().__init__()
        width = config.width
        self.table = nn.Parameter(torch.zeros(6, width))  # added to the six vectors that all blocks share
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS, elementwise_affine=False)
        self.attention = Attention(width, config.heads)
        self.cross = CrossAttention(width, config.heads, context_width)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS, elementwise_affine=False)
        self.mlp = FeedForward(config.make_block())

    def forward(
        self, tokens: Float[Tensor, "b n d"], shared: Float[Tensor, "b 6 d"], context: AttentionContext, layer: int
    ) -> Float[Tensor, "b n d"]:
        """Run one block.

        Args:
            tokens: squares.
            shared: modulation of all blocks: shift, scale and gate of the attention, then of the feed-forward.
            context: the caption.
            layer: which of its layers is ours.
        """
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.table + shared).chunk(6, dim=1)
        tokens = tokens + gate1 * self.attention(self.norm1(tokens) * (1 + scale1) + shift1)
        tokens = tokens + self.cross(tokens, context.layers[layer], context.mask_with(0))
        return tokens + gate2 * self.mlp(self.norm2(tokens) * (1 + scale2) + shift2)


class LatentTransformer(nn.Module):
    """Predicts the noise (or whatever it was trained for) in a noised grid, told a caption."""

    def __init__(self, config: LatentTransformerConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.text_in = TextIn(config.text_width, width, width if config.pools_text else None)
        self.time = TimeEmbedding(config.sinusoid_width, width)
        self.modulation = nn.Linear(width, 6 * width)
        self.patch_in = nn.Linear(config.channels * config.patch**2, width)
        has_keys = [not config.shares_keys or layer == 0 for layer in range(config.depth)]
        self.blocks = nn.ModuleList(LatentBlock(config, width if keys else None) for keys in has_keys)
        self.norm_out = nn.LayerNorm(width, eps=NORM_EPS, elementwise_affine=False)
        self.table_out = nn.Parameter(torch.zeros(2, width))
        self.patch_out = nn.Linear(width, config.channels * (1 + config.learns_variance) * config.patch**2)
        for zero in (self.modulation, self.patch_out):  # blocks start as the identity, and the first prediction is zero
            nn.init.zeros_(zero.weight)
            nn.init.zeros_(zero.bias)

    def read(self, said: TextStates) -> TextKeys:
        """Read captions once, for all steps."""
        return self.text_in(said, self._project)

    def _project(self, states: Float[Tensor, "b m d"], mask: Bool[Tensor, "b m"]) -> AttentionContext:
        crosses = [cast(LatentBlock, block).cross for block in self.blocks]
        if self.config.shares_keys:
            return AttentionContext((crosses[0].project_context(states),), mask)
        return AttentionContext(tuple(one.project_context(states) for one in crosses), mask)

    def forward(self, x_t: Grid, t: Steps, said: TextStates | TextKeys) -> Float[Tensor, "b c2 h w"]:
        """Predict; arguments, errors and result are those of `Denoiser.forward`."""
        height, width, patch = x_t.shape[2], x_t.shape[3], self.config.patch
        if height % patch or width % patch:
            raise BadRequest(f"a grid of {height} by {width}", f"multiples of {patch}")
        keys = said if isinstance(said, TextKeys) else self.read(said)
        time = self.time(t)
        if self.config.pools_text:
            time = time + keys.pooled_for(len(x_t))
        shared = rearrange(self.modulation(F.silu(time)), "b (six d) -> b six d", six=6)
        tokens = self.patch_in(rearrange(x_t, "b c (h p) (w q) -> b (h w) (c p q)", p=patch, q=patch))
        places = square_places(height // patch, width // patch, self.config.width, self.config.base_side, x_t.device)
        tokens = tokens + places.to(tokens.dtype)
        for layer, block in enumerate(self.blocks):
            tokens = block(tokens, shared, keys.context, 0 if self.config.shares_keys else layer)
        shift, scale = (self.table_out + time[:, None]).chunk(2, dim=1)
        out = self.patch_out(self.norm_out(tokens) * (1 + scale) + shift)
        return rearrange(out, "b (h w) (p q c) -> b c (h p) (w q)", h=height // patch, p=patch, q=patch)


def square_places(
    rows: int, columns: int, width: int, base_side: int | None, device: torch.device
) -> Float[Tensor, "n d"]:
    """Tell every square its column and row by fixed waves, half the channels each, sines before cosines.

    Args:
        rows: of squares.
        columns: of squares.
        width: of a token, a multiple of 4.
        base_side: so many squares a side counts as; None: as many as there are.
        device: where they are wanted.

    Source: PixArt-α, arXiv:2310.00426, its published code.
    """
    waves = []
    for count in (columns, rows):
        places = torch.arange(count, dtype=torch.float32, device=device)
        if base_side is not None:
            places = places / (count / base_side)
        waves.append(sinusoid(places, width // 2).roll(width // 4, dims=1))
    across, down = waves
    both = torch.cat([across[None].expand(rows, -1, -1), down[:, None].expand(-1, columns, -1)], dim=-1)
    return rearrange(both, "h w d -> (h w) d")
