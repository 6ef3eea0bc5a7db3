"""One multi-head attention: over the tokens themselves, over tokens seen before, over a context, or over all at once.

Keys and values always stand in the order [context ; seen before ; own].  A context (a prompt) does not change while a
picture is denoised, so its keys and values are computed by `project_context` once and handed in.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from opendalle.base.errors import require
from opendalle.nn.kv_cache import KeysValues, KVCache


@dataclass(frozen=True)
class AttentionContext:
    """A prompt as a network's attentions need it: computed once, used at every denoising step."""

    layers: tuple[KeysValues, ...]  # one an attention, in the order in which the forward pass meets them
    mask: Bool[Tensor, "b m"] | None  # True where a context token is real; None: all are

    def rows(self, index: slice | Tensor) -> "AttentionContext":
        """Keep some entries of the batch."""
        mask = None if self.mask is None else self.mask[index]
        return AttentionContext(tuple(layer.rows(index) for layer in self.layers), mask)

    def mask_with(self, num_own: int, *, is_causal: bool = False) -> Bool[Tensor, "#b 1 #n m"] | None:
        """Return which keys a token may look at when `num_own` of its own kind follow the context's; None: all.

        Args:
            num_own: tokens behind the context.
            is_causal: hide later ones of them; the whole context stays in sight.
        """
        real = None if self.mask is None else F.pad(self.mask, (0, num_own), value=True)[:, None, None]
        if not is_causal:
            return real
        keys = self.layers[0].keys
        own = attention_mask(None, num_own, keys.shape[2] + num_own, is_causal=True, device=keys.device)
        return own if real is None else own & real

    def fill(self, cache: KVCache) -> None:
        """Put the context into an empty cache, before all tokens: then those see it without being told of it.

        Args:
            cache: as many layers and rows; its capacity holds context and tokens.
        """
        assert cache.length == 0, "a context stands before all tokens"
        assert self.mask is None, "a cache knows no padding"
        for layer, one in enumerate(self.layers):
            cache.extend(layer, one)
        cache.advance(self.layers[0].keys.shape[2])


class Attention(nn.Module):
    """Multi-head attention with fused query, key and value projections and torch's fused kernel.

    Args:
        width: width of a token; a multiple of heads.
        heads: number of heads.
        context_width: width of a context token; None: no context.
        dropout: chance that an attention weight is dropped in training.

    Source: Attention Is All You Need, arXiv:1706.03762, section 3.2; keys of [context ; picture] as in GLIDE,
        arXiv:2112.10741, section 3.1.
    """

    def __init__(self, width: int, heads: int, *, context_width: int | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        require(width % heads == 0, f"width {width} with {heads} heads", "a width that the heads divide")
        self.heads = heads
        self.dropout = dropout
        self.qkv = nn.Linear(width, 3 * width)  # rows: all queries, all keys, all values
        self.context_kv = None if context_width is None else nn.Linear(context_width, 2 * width)
        self.out = nn.Linear(width, width)

    def project_context(self, context: Float[Tensor, "b m d"]) -> KeysValues:
        """Compute a context's keys and values; they can be kept as long as the context stays."""
        assert self.context_kv is not None, "this attention was built without a context"
        keys, values = rearrange(self.context_kv(context), "b m (two k c) -> two b k m c", two=2, k=self.heads)
        return KeysValues(keys, values)

    def forward(
        self,
        tokens: Float[Tensor, "b n d"],
        *,
        mask: Bool[Tensor, "#b #k #n m"] | None = None,
        is_causal: bool = False,
        context: KeysValues | None = None,
        cache: KVCache | None = None,
        layer: int = 0,
    ) -> Float[Tensor, "b n d"]:
        """Let every token look at the keys it may see.

        Args:
            tokens: the queries; also the last n keys.
            mask: True where a query may look at a key; over all keys in their order [context ; seen before ; own].
            is_causal: a token sees itself and earlier ones; only without mask, context and cache.
            context: from `project_context`.
            cache: tokens seen before; this call adds its own.
            layer: which of the cache's layers is ours.
        """
        queries, keys, values = rearrange(self.qkv(tokens), "b n (three k c) -> three b k n c", three=3, k=self.heads)
        own = KeysValues(keys, values)
        if cache is not None:
            own = cache.extend(layer, own)
        seen = own if context is None else context + own
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(
            queries, seen.keys, seen.values, attn_mask=mask, is_causal=is_causal, dropout_p=dropout
        )
        return self.out(rearrange(mixed, "b k n c -> b n (k c)"))


class CrossAttention(nn.Module):
    """Multi-head attention to a context alone: queries from the tokens, keys and values from the context.

    Args:
        width: width of a token; a multiple of heads.
        heads: number of heads.
        context_width: width of a context token; None: keys and values are another attention's.

    Source: latent diffusion, arXiv:2112.10752, section 3.3.
    """

    def __init__(self, width: int, heads: int, context_width: int | None) -> None:
        super().__init__()
        require(width % heads == 0, f"width {width} with {heads} heads", "a width that the heads divide")
        self.heads = heads
        self.queries = nn.Linear(width, width)
        self.context_kv = None if context_width is None else nn.Linear(context_width, 2 * width)  # rows: keys, values
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)  # starts as the identity: what is said is listened to as it is found to help
        nn.init.zeros_(self.out.bias)

    def project_context(self, context: Float[Tensor, "b m d"]) -> KeysValues:
        """Compute a context's keys and values; they can be kept as long as the context stays."""
        assert self.context_kv is not None, "this attention takes another's keys and values"
        keys, values = rearrange(self.context_kv(context), "b m (two k c) -> two b k m c", two=2, k=self.heads)
        return KeysValues(keys, values)

    def forward(
        self, tokens: Float[Tensor, "br n d"], context: KeysValues, mask: Bool[Tensor, "b 1 1 m"] | None
    ) -> Float[Tensor, "br n d"]:
        """Let every token look at the context.

        Args:
            tokens: the queries; their rows are a multiple r of the context's, and each r neighbours share one.
            context: from `project_context`.
            mask: True where a context token is real, at least one a row; None: all are.
        """
        r = len(tokens) // len(context.keys)
        queries = rearrange(self.queries(tokens), "(b r) n (k c) -> b k (r n) c", r=r, k=self.heads)
        mixed = F.scaled_dot_product_attention(queries, context.keys, context.values, attn_mask=mask)
        return self.out(rearrange(mixed, "b k (r n) c -> (b r) n (k c)", r=r))


def attention_mask(
    real: Bool[Tensor, "b m"] | None, num_queries: int, num_keys: int, *, is_causal: bool, device: torch.device
) -> Bool[Tensor, "#b 1 n m"]:
    """Combine padding and causality into one mask; the queries are the last tokens of the keys.

    A token always sees itself: a row without any key would be NaN, and nobody reads a padded token's output.

    Args:
        real: True where a key is no padding; None: all are.
        num_queries: n, tokens asked now.
        num_keys: m >= n, tokens in all.
        is_causal: hide later tokens.
        device: where the mask is wanted.
    """
    position = torch.arange(num_keys, device=device)
    asking = position[num_keys - num_queries :, None]  # (n, 1)
    allowed = (position <= asking) if is_causal else torch.ones(num_queries, num_keys, dtype=torch.bool, device=device)
    allowed = allowed[None, None]  # (1, 1, n, m)
    if real is not None:
        allowed = allowed & (real[:, None, None, :] | (position == asking))
    return allowed
