"""The text encoder: T5's, whose last state of every token the denoiser looks at.

    ids ─▶ vectors ─▶ depth x [ norm ─▶ attention ─▶ +, norm ─▶ feed-forward ─▶ + ] ─▶ norm ─▶ states
                               ╰─ logits + a learned number for how far apart two tokens stand, the same in every layer

It is trained as half of a text-to-text model, on text alone, and stays as it is while pictures are learned.  T5 reads
pieces of words; ByT5 is the same network reading bytes, so it knows how a word is spelled.

Source: Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer",
    arXiv:1910.10683, section 2.1; gated feed-forward: Shazeer, arXiv:2002.05202; bytes: Xue et al., arXiv:2105.13626.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from opendalle.base.axes import Mask, States, Tokens
from opendalle.base.errors import BadModel, BadRequest, require

# Added to the logit of a padded key.  It underflows to a weight of exactly 0, and unlike minus infinity it leaves a row
# of padding alone finite; bfloat16 can hold it.
HIDDEN = -1e30


@dataclass(frozen=True, kw_only=True)
class TextEncoderConfig:
    """Shape of a T5 encoder."""

    vocabulary: int  # tokens; the published tables are padded to a multiple of 128
    width: int  # of a token
    depth: int  # layers
    heads: int  # attention heads
    head_width: int = 64  # of a head; all together need not be the width
    hidden: int  # width inside of a feed-forward layer
    feed_forward: Literal["relu", "gated-gelu"] = "gated-gelu"  # relu: the first T5; gated-gelu: version 1.1 and ByT5
    num_buckets: int = 32  # kinds of distance between tokens, half of them backwards
    max_distance: int = 128  # tokens; all that is farther shares the last kind
    norm_eps: float = 1e-6  # added to the mean square in norms

    def __post_init__(self) -> None:
        sizes = (self.vocabulary, self.width, self.depth, self.heads, self.head_width, self.hidden)
        require(min(sizes) >= 1, f"sizes {sizes}", "at least 1 each")
        known = ("relu", "gated-gelu")
        require(self.feed_forward in known, f"feed_forward {self.feed_forward!r}", " or ".join(known))
        is_split = self.num_buckets >= 4 and self.num_buckets % 4 == 0
        require(is_split, f"num_buckets {self.num_buckets}", "a multiple of 4: two directions, near and far")
        near = self.num_buckets // 4
        require(self.max_distance > near, f"max_distance {self.max_distance}", f"more than the {near} near distances")
        require(self.norm_eps > 0, f"norm_eps {self.norm_eps}", "a positive number")


@dataclass(frozen=True, kw_only=True)
class TextStates:
    """What captions give to the denoiser's cross-attention."""

    states: States  # last state of every token; zero where there is none
    mask: Mask  # True where a token is real

    def rows(self, index: slice | Tensor) -> "TextStates":
        """Keep some captions."""
        return TextStates(states=self.states[index], mask=self.mask[index])


def distance_buckets(num_tokens: int, num_buckets: int, max_distance: int) -> Int[Tensor, "n n"]:
    """Say of which kind the distance is from each token to each other one.

    Each near distance is a kind of its own, farther ones share kinds that grow geometrically; what lies behind a token
    has kinds of its own.

    Args:
        num_tokens: n.
        num_buckets: kinds in all, half of them for what comes before.
        max_distance: from here on all distances are one kind.

    Returns:
        Row: the token that looks; column: the one that it looks at; 0 to num_buckets - 1.

    Source: arXiv:1910.10683, section 2.1.
    """
    place = torch.arange(num_tokens)
    distance = place[None, :] - place[:, None]
    kinds = num_buckets // 2
    return kinds_of_distance(distance.abs(), kinds, max_distance) + kinds * (distance > 0)


def kinds_of_distance(distance: Int[Tensor, "n m"], kinds: int, max_distance: int) -> Int[Tensor, "n m"]:
    """Say of which kind distances in one direction are: the nearer half of the kinds is one distance each.

    Args:
        distance: at least 0.
        kinds: how many there are.
        max_distance: from here on all distances are the last kind.

    Returns:
        0 to kinds - 1.
    """
    near = kinds // 2
    # In float32, as the published models were trained: at powers of two the rounding decides.
    times = (distance.clamp(min=near).float() / near).log() / math.log(max_distance / near)
    far = (near + (times * (kinds - near)).long()).clamp(max=kinds - 1)
    return torch.where(distance < near, distance, far)


class DistanceAttention(nn.Module):
    """Multi-head attention that adds to each logit a number for the distance; it does not scale the logits.

    The scale of one over the root of the head's width is in the spread of fresh weights instead.
    """

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        inner = config.heads * config.head_width
        self.heads = config.heads
        self.qkv = nn.Linear(config.width, 3 * inner, bias=False)  # rows: all queries, all keys, all values
        self.out = nn.Linear(inner, config.width, bias=False)

    def forward(self, tokens: Float[Tensor, "b n d"], bias: Float[Tensor, "#b k n n"]) -> Float[Tensor, "b n d"]:
        """Let every token look at all.

        Args:
            tokens: normalised.
            bias: added to the logits: distances, and HIDDEN for padding.
        """
        queries, keys, values = rearrange(self.qkv(tokens), "b n (three k c) -> three b k n c", three=3, k=self.heads)
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias.to(queries.dtype), scale=1.0)
        return self.out(rearrange(mixed, "b k n c -> b n (k c)"))


class TextFeedForward(nn.Module):
    """Two linear maps with a ReLU between them, or with one half of the first gating the other half."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.is_gated = config.feed_forward == "gated-gelu"
        self.up = nn.Linear(config.width, config.hidden * (2 if self.is_gated else 1), bias=False)  # rows: gate, value
        self.down = nn.Linear(config.hidden, config.width, bias=False)

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Transform every token."""
        if not self.is_gated:
            return self.down(self.up(tokens).relu())
        gate, value = self.up(tokens).chunk(2, dim=-1)
        return self.down(F.gelu(gate, approximate="tanh") * value)


class TextLayer(nn.Module):
    """Attention and feed-forward, each normalised before and added after."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.norm1 = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.attention = DistanceAttention(config)
        self.norm2 = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.mlp = TextFeedForward(config)

    def forward(self, tokens: Float[Tensor, "b n d"], bias: Float[Tensor, "#b k n n"]) -> Float[Tensor, "b n d"]:
        """Run one layer; the arguments are those of its attention."""
        tokens = tokens + self.attention(self.norm1(tokens), bias)
        return tokens + self.mlp(self.norm2(tokens))


class TextEncoder(nn.Module):
    """A T5 encoder; in float32 or bfloat16, never in float16."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.distances = nn.Embedding(config.num_buckets, config.heads)
        self.layers = nn.ModuleList(TextLayer(config) for _ in range(config.depth))
        self.norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self._initialise()

    def forward(self, ids: Tokens, mask: Mask) -> TextStates:
        """Read captions.

        Args:
            ids: as a tokenizer packs them, in [0, vocabulary).
            mask: True where a token is real.

        Raises:
            BadModel: when it is asked to compute in float16.
            BadRequest: when a number is no token.
        """
        refuse_half(self)
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < self.config.vocabulary:
            came = f"tokens from {int(ids.min())} to {int(ids.max())}"
            raise BadRequest(came, f"0 to {self.config.vocabulary - 1}", "Is it the tokenizer of this encoder?")
        bias = self._bias(mask)
        states = self.tokens(ids)
        for layer in self.layers:
            states = layer(states, bias)
        return TextStates(states=self.norm(states) * mask[..., None], mask=mask)

    def _bias(self, mask: Mask) -> Float[Tensor, "b k n n"]:
        """What is added to the logits of every layer."""
        buckets = distance_buckets(mask.shape[1], self.config.num_buckets, self.config.max_distance)
        learned = rearrange(self.distances(buckets.to(mask.device)), "n m k -> 1 k n m")
        return learned.masked_fill(~mask[:, None, None, :], HIDDEN)

    @torch.no_grad()
    def _initialise(self) -> None:
        """Draw fresh weights: the queries carry the scale that the logits lack."""
        width, inner = self.config.width, self.config.heads * self.config.head_width
        nn.init.normal_(self.tokens.weight)
        nn.init.normal_(self.distances.weight, std=width**-0.5)
        for one in self.layers:
            layer = cast(TextLayer, one)
            nn.init.normal_(layer.attention.qkv.weight, std=width**-0.5)
            layer.attention.qkv.weight[:inner] *= self.config.head_width**-0.5
            nn.init.normal_(layer.attention.out.weight, std=inner**-0.5)
            nn.init.normal_(layer.mlp.up.weight, std=width**-0.5)
            nn.init.normal_(layer.mlp.down.weight, std=self.config.hidden**-0.5)


def refuse_half(network: nn.Module) -> None:
    """Refuse to compute in float16, by a network's weights or by autocast.

    Args:
        network: T5's encoder or decoder.

    Raises:
        BadModel: when it would.
    """
    weights = tuple(network.parameters())
    kind = weights[0].device.type
    is_autocast = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16
    if is_autocast or any(one.dtype == torch.float16 for one in weights):
        todo = "T5's states grow beyond what float16 can hold (65,504) and all becomes NaN."
        raise BadModel("a T5 network in float16", "float32 or bfloat16", todo)


TEXT_ENCODER_PRESETS: Mapping[str, TextEncoderConfig] = MappingProxyType(
    {
        # Bytes, as small as a bundled model wants it: signs carry words, and a caption may be Chinese.  2.3 M weights.
        "emoji": TextEncoderConfig(vocabulary=384, width=192, depth=6, heads=4, head_width=48, hidden=384),
        "t5-small": TextEncoderConfig(
            vocabulary=32_128, width=512, depth=6, heads=8, hidden=2_048, feed_forward="relu"
        ),
        "t5-base": TextEncoderConfig(
            vocabulary=32_128, width=768, depth=12, heads=12, hidden=3_072, feed_forward="relu"
        ),
        # Of DALL·E 3 (the paper says T5-XXL), PixArt and Stable Diffusion 3: 4.8 billion weights.
        "t5-v1_1-xxl": TextEncoderConfig(vocabulary=32_128, width=4_096, depth=24, heads=64, hidden=10_240),
        "byt5-small": TextEncoderConfig(vocabulary=384, width=1_472, depth=12, heads=6, hidden=3_584),
    }
)
