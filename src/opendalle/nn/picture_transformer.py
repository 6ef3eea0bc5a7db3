"""What stands between a latent U-Net's convolutions: cells look at each other, then at what was said, then think.

    x ─▶ norm ─▶ linear ─▶ [ norm ─▶ attention ─▶ +
                             norm ─▶ attention to the context ─▶ +
                             norm ─▶ feed-forward ─▶ + ] ─▶ linear ─▶ + x

Source: latent diffusion, arXiv:2112.10752, section 3.3 and appendix E.2.1.
"""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from opendalle.nn.attention import Attention, AttentionContext, CrossAttention
from opendalle.nn.kv_cache import KeysValues
from opendalle.nn.norms import Norm, make_norm
from opendalle.nn.transformer import FeedForward, TransformerConfig


class PictureTransformer(nn.Module):
    """One transformer layer over the cells of a grid, which also looks at a context, added to the grid.

    Args:
        width: channels of the grid.
        heads: attention heads of both attentions; they divide width.
        context_width: width of a context token.
        layer: which of the context's layers is ours.
        norm: kind of the grid's norm.
        norm_groups: its groups, where it is a group norm.
        norm_eps: added to the variance in all norms.
    """

    def __init__(
        self, width: int, heads: int, context_width: int, layer: int, *, norm: Norm, norm_groups: int, norm_eps: float
    ) -> None:
        super().__init__()
        self.layer = layer
        self.norm_in = make_norm(norm, width, groups=norm_groups, eps=norm_eps)
        self.cells_in = nn.Linear(width, width)
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.cross = CrossAttention(width, heads, context_width)
        self.norm3 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = FeedForward(TransformerConfig(width=width, depth=1, heads=heads))
        self.cells_out = nn.Linear(width, width)
        nn.init.zeros_(self.cells_out.weight)  # starts as the identity
        nn.init.zeros_(self.cells_out.bias)

    def project_context(self, states: Float[Tensor, "b m d"]) -> KeysValues:
        """Compute a context's keys and values; they can be kept as long as the context stays."""
        return self.cross.project_context(states)

    def forward(self, x: Float[Tensor, "b c h w"], context: AttentionContext | None) -> Float[Tensor, "b c h w"]:
        """Let every cell look at all cells, and at the context if there is one."""
        cells = self.cells_in(rearrange(self.norm_in(x), "b c h w -> b (h w) c"))
        cells = cells + self.attention(self.norm1(cells))
        if context is not None:
            cells = cells + self.cross(self.norm2(cells), context.layers[self.layer], context.mask_with(0))
        cells = cells + self.mlp(self.norm3(cells))
        return x + rearrange(self.cells_out(cells), "b (h w) c -> b c h w", h=x.shape[2])
