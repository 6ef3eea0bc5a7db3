"""One pre-norm transformer; CLIP's towers, the diffusion prior, GPT- and DiT-like networks are configurations of it."""

from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from opendalle.base.errors import require
from opendalle.nn.attention import Attention, AttentionContext, attention_mask
from opendalle.nn.kv_cache import KVCache

Activation = Literal["gelu", "tanh_gelu", "quick_gelu"]


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Shape of a transformer."""

    width: int  # of a token
    depth: int  # blocks
    heads: int  # attention heads; they divide width
    mlp_ratio: float = 4.0  # hidden width of the feed-forward layer over width
    is_causal: bool = False  # a token sees itself and earlier ones only
    activation: Activation = "gelu"  # gelu is exact, tanh_gelu its usual approximation (PixArt); quick_gelu is
    # x * sigmoid(1.702 x), OpenAI CLIP
    norm_eps: float = 1e-5  # added to the variance in layer norms
    dropout: float = 0.0  # of attention weights and of both residual branches, in training
    condition_width: int | None = None  # width of a vector that modulates every block (adaLN-Zero); None: none
    context_width: int | None = None  # width of a context token that every block looks at too; None: no context
    final_norm: bool = True  # layer norm after the last block

    def __post_init__(self) -> None:
        require(self.width > 0 and self.depth > 0, f"width {self.width}, depth {self.depth}", "positive numbers")
        require(
            self.heads > 0 and self.width % self.heads == 0,
            f"width {self.width} with {self.heads} heads",
            "a width that the heads divide",
        )
        require(self.mlp_ratio > 0, f"mlp_ratio {self.mlp_ratio}", "a positive number")
        require(self.activation in get_args(Activation), f"activation {self.activation!r}", str(get_args(Activation)))
        require(self.norm_eps > 0, f"norm_eps {self.norm_eps}", "a positive number")
        require(0 <= self.dropout < 1, f"dropout {self.dropout}", "0 <= dropout < 1")
        for name in ("condition_width", "context_width"):
            width = getattr(self, name)
            require(width is None or width > 0, f"{name} {width}", "a positive number, or None")


class FeedForward(nn.Module):
    """Two linear layers with an activation between them, applied to every token alone."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        hidden = round(config.width * config.mlp_ratio)
        self.activation = config.activation
        self.up = nn.Linear(config.width, hidden)
        self.down = nn.Linear(hidden, config.width)

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Transform every token."""
        hidden = self.up(tokens)
        if self.activation == "quick_gelu":
            return self.down(hidden * torch.sigmoid(1.702 * hidden))
        return self.down(F.gelu(hidden, approximate="tanh" if self.activation == "tanh_gelu" else "none"))


class Block(nn.Module):
    """Attention and feed-forward, each normalised before and added after.

    Source: adaLN-Zero as in DiT, arXiv:2212.09748, section 3.2; used only with a condition.
    """

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.norm1 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.attention = Attention(
            config.width, config.heads, context_width=config.context_width, dropout=config.dropout
        )
        self.norm2 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)
        self.modulation = None
        if config.condition_width is not None:
            self.modulation = nn.Linear(config.condition_width, 6 * config.width)
            nn.init.zeros_(self.modulation.weight)  # every block starts as the identity
            nn.init.zeros_(self.modulation.bias)
        self._initialise(config.width, residual=(2 * config.depth) ** -0.5)

    def _initialise(self, width: int, residual: float) -> None:
        """Draw weights as CLIP does: smaller in wide layers, and smaller still where a branch joins the sum."""
        for linear, std in (
            (self.attention.qkv, width**-0.5),
            (self.attention.out, width**-0.5 * residual),
            (self.mlp.up, (2 * width) ** -0.5),
            (self.mlp.down, width**-0.5 * residual),
        ):
            nn.init.normal_(linear.weight, std=std)
            nn.init.zeros_(linear.bias)

    def forward(
        self,
        tokens: Float[Tensor, "b n d"],
        *,
        mask: Bool[Tensor, "#b 1 #n m"] | None,
        is_causal: bool,
        condition: Float[Tensor, "b c"] | None,
        context: AttentionContext | None,
        cache: KVCache | None,
    ) -> Float[Tensor, "b n d"]:
        """Run one block; the arguments are those of `Transformer.forward`, mask and causality already combined."""
        prompt = None if context is None else context.layers[self.layer]
        seen = {"mask": mask, "is_causal": is_causal, "context": prompt, "cache": cache, "layer": self.layer}
        if self.modulation is None:
            tokens = tokens + self.dropout(self.attention(self.norm1(tokens), **seen))
            return tokens + self.dropout(self.mlp(self.norm2(tokens)))
        assert condition is not None, "this transformer was built with a condition"
        scale1, shift1, gate1, scale2, shift2, gate2 = self.modulation(F.silu(condition))[:, None].chunk(6, dim=-1)
        mixed = self.attention(self.norm1(tokens) * (1 + scale1) + shift1, **seen)
        tokens = tokens + gate1 * self.dropout(mixed)
        return tokens + gate2 * self.dropout(self.mlp(self.norm2(tokens) * (1 + scale2) + shift2))


class Transformer(nn.Module):
    """A stack of pre-norm blocks over tokens that already carry their positions."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps) if config.final_norm else nn.Identity()

    def prepare_context(
        self, states: Float[Tensor, "b m d"], mask: Bool[Tensor, "b m"] | None = None
    ) -> AttentionContext:
        """Compute every block's keys and values of a context, when the config has a context_width.

        Args:
            states: context tokens.
            mask: True where a token is real; None: all are.
        """
        attentions = [cast(Block, block).attention for block in self.blocks]
        return AttentionContext(tuple(one.project_context(states) for one in attentions), mask)

    def new_cache(self, batch: int, capacity: int) -> KVCache:
        """Make an empty cache for `batch` rows of at most `capacity` tokens, in the weights' dtype and on their device.

        Args:
            batch: rows.
            capacity: tokens of the longest sequence.
        """
        weight = next(self.parameters())
        return KVCache(
            num_layers=self.config.depth,
            batch=batch,
            heads=self.config.heads,
            capacity=capacity,
            head_width=self.config.width // self.config.heads,
            dtype=weight.dtype,
            device=weight.device,
        )

    def forward(
        self,
        tokens: Float[Tensor, "b n d"],
        *,
        mask: Bool[Tensor, "b m"] | None = None,
        condition: Float[Tensor, "b c"] | None = None,
        context: AttentionContext | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "b n d"]:
        """Run all blocks.

        Args:
            tokens: with a cache, only those that follow the cached ones.
            mask: True where a token is real; over cached and new tokens, m in all; None: all are real.
            condition: vector of every row, when the config has a condition_width.
            context: from `prepare_context`; every token sees all of it.  Not with a mask or a cache; one that shall be
                seen by cached tokens is put into the cache by `AttentionContext.fill`.
            cache: tokens seen before; it grows by these.
        """
        num_new = tokens.shape[1]
        assert context is None or (mask is None and cache is None), "a context stands alone"
        num_keys = num_new + (0 if cache is None else cache.length)
        is_plain = mask is None and num_new == num_keys  # then the kernel's own causal path serves, and no mask is made
        allowed = None
        if not is_plain and not (mask is None and num_new == 1):  # one new token sees everything before it
            allowed = attention_mask(mask, num_new, num_keys, is_causal=self.config.is_causal, device=tokens.device)
        is_causal = self.config.is_causal and is_plain and context is None
        if context is not None:
            allowed = context.mask_with(num_new, is_causal=self.config.is_causal)
        for block in self.blocks:
            tokens = block(tokens, mask=allowed, is_causal=is_causal, condition=condition, context=context, cache=cache)
        if cache is not None:
            cache.advance(num_new)
        return self.norm(tokens)
