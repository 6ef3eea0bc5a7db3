"""The other half of T5: a decoder that writes, token by token, while it looks at what the encoder read.

    source ids ─▶ TextEncoder ─▶ states ───────────────────────╮
    so far ─▶ vectors ─▶ depth x [ norm ─▶ self-attention ─▶ +, norm ─▶ cross-attention ─▶ +, norm ─▶ mlp ─▶ + ]
                                   ╰─ to what came before, with distances   ╰─ without distances
           ─▶ norm ─▶ head ─▶ logits of the next token

The encoder that the denoiser looks at is made by this: what a text-to-text model must know of a sentence to write
another one about it stands in the encoder's states.  One table of tokens serves both halves, and lies in the encoder.

Source: Raffel et al., arXiv:1910.10683, section 2.1; a head of its own: version 1.1 of T5, and ByT5, arXiv:2105.13626.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from opendalle.base.axes import Mask, States, Tokens
from opendalle.base.errors import BadConfig, BadRequest, require
from opendalle.dalle3.text_encoder import (
    HIDDEN,
    DistanceAttention,
    TextEncoder,
    TextEncoderConfig,
    TextFeedForward,
    TextStates,
    kinds_of_distance,
    refuse_half,
)
from opendalle.nn.kv_cache import KeysValues, KVCache

START = 0  # token before the first one written: T5's padding


@dataclass(frozen=True, kw_only=True)
class TextDecoderConfig(TextEncoderConfig):
    """Shape of a T5 decoder; vocabulary and width are those of its encoder, and all kinds of distance look back."""

    has_own_head: bool = True  # weights of its own read words out of states; else the table of tokens does
    scales_states: bool = False  # states times width^-1/2 before the head: the first T5, whose head is the table

    def __post_init__(self) -> None:
        super().__post_init__()
        near = self.num_buckets // 2
        require(self.max_distance > near, f"max_distance {self.max_distance}", f"more than the {near} near distances")


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What a decoder need not compute again for each token."""

    read: tuple[KeysValues, ...]  # keys and values of the source, layer by layer
    unread: Float[Tensor, "b 1 1 m"]  # added to the logits of the source's tokens: HIDDEN where there is none
    looking_back: Float[
        Tensor, "1 k n n"
    ]  # added to the logits of what was written: distances, HIDDEN for what follows
    cache: KVCache | None = None  # of what was written; None: everything is computed at once, with gradients

    @property
    def length(self) -> int:
        """Number of tokens already written."""
        return 0 if self.cache is None else self.cache.length


def back_buckets(num_tokens: int, num_buckets: int, max_distance: int) -> Int[Tensor, "n n"]:
    """Say of which kind the distance back from each token to each other one is; what follows counts as near.

    Args:
        num_tokens: n.
        num_buckets: kinds.
        max_distance: from here on all distances are one kind.

    Returns:
        Row: the token that looks; column: the one that it looks at; 0 to num_buckets - 1.

    Source: arXiv:1910.10683, section 2.1.
    """
    place = torch.arange(num_tokens)
    return kinds_of_distance((place[:, None] - place[None, :]).clamp(min=0), num_buckets, max_distance)


class WritingAttention(DistanceAttention):
    """Self-attention that can take keys and values of earlier tokens out of a cache."""

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, tokens: Float[Tensor, "b n d"], bias: Float[Tensor, "1 k n m"], cache: KVCache | None, layer: int
    ) -> Float[Tensor, "b n d"]:
        """Let every token look back.

        Args:
            tokens: normalised, those that are new.
            bias: added to the logits, of all tokens so far.
            cache: holds the others; None: there are no others.
            layer: which one of the cache.
        """
        queries, keys, values = rearrange(self.qkv(tokens), "b n (three k c) -> three b k n c", three=3, k=self.heads)
        seen = KeysValues(keys, values) if cache is None else cache.extend(layer, KeysValues(keys, values))
        return self.out(_mixed(queries, seen, bias))


class ReadingAttention(nn.Module):
    """Attention to the source; like T5's others it does not scale its logits, and here it adds nothing to them."""

    def __init__(self, config: TextDecoderConfig) -> None:
        super().__init__()
        inner = config.heads * config.head_width
        self.heads = config.heads
        self.queries = nn.Linear(config.width, inner, bias=False)
        self.keys_values = nn.Linear(config.width, 2 * inner, bias=False)  # rows: all keys, all values
        self.out = nn.Linear(inner, config.width, bias=False)

    def read(self, states: States) -> KeysValues:
        """Compute what does not hang on what is written."""
        return KeysValues(*rearrange(self.keys_values(states), "b m (two k c) -> two b k m c", two=2, k=self.heads))

    def forward(
        self, tokens: Float[Tensor, "b n d"], read: KeysValues, unread: Float[Tensor, "b 1 1 m"]
    ) -> Float[Tensor, "b n d"]:
        """Let every written token look at the source."""
        queries = rearrange(self.queries(tokens), "b n (k c) -> b k n c", k=self.heads)
        return self.out(_mixed(queries, read, unread))


class WritingLayer(nn.Module):
    """Self-attention, attention to the source and feed-forward, each normalised before and added after."""

    def __init__(self, config: TextDecoderConfig) -> None:
        super().__init__()
        self.norm1 = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.attention = WritingAttention(config)
        self.norm2 = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.reading = ReadingAttention(config)
        self.norm3 = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.mlp = TextFeedForward(config)

    def forward(
        self, tokens: Float[Tensor, "b n d"], bias: Float[Tensor, "1 k n m"], memory: Memory, layer: int
    ) -> Float[Tensor, "b n d"]:
        """Run one layer; `bias` is of the self-attention."""
        tokens = tokens + self.attention(self.norm1(tokens), bias, memory.cache, layer)
        tokens = tokens + self.reading(self.norm2(tokens), memory.read[layer], memory.unread)
        return tokens + self.mlp(self.norm3(tokens))


class TextDecoder(nn.Module):
    """A T5 decoder without its table of tokens, which is the encoder's; in float32 or bfloat16, never in float16."""

    def __init__(self, config: TextDecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.distances = nn.Embedding(config.num_buckets, config.heads)
        self.layers = nn.ModuleList(WritingLayer(config) for _ in range(config.depth))
        self.norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.head = nn.Linear(config.width, config.vocabulary, bias=False) if config.has_own_head else None
        self._initialise()

    def remember(self, said: TextStates, capacity: int, *, cached: bool = False) -> Memory:
        """Look at the source once.

        Args:
            said: what the encoder read.
            capacity: tokens that will be written at most.
            cached: for writing token by token, without gradients.

        Raises:
            BadModel: when it is asked to compute in float16.
        """
        refuse_half(self)
        config, device = self.config, said.states.device
        layers = [cast(WritingLayer, one) for one in self.layers]
        cache = None
        if cached:
            cache = KVCache(
                num_layers=config.depth,
                batch=len(said.states),
                heads=config.heads,
                capacity=capacity,
                head_width=config.head_width,
                dtype=said.states.dtype,
                device=device,
            )
        buckets = back_buckets(capacity, config.num_buckets, config.max_distance).to(device)
        follows = torch.ones(capacity, capacity, dtype=torch.bool, device=device).triu(1)
        back = rearrange(self.distances(buckets), "n m k -> 1 k n m").masked_fill(follows, HIDDEN)
        unread = torch.zeros(said.mask.shape, dtype=said.states.dtype, device=device)
        return Memory(
            read=tuple(layer.reading.read(said.states) for layer in layers),
            unread=unread.masked_fill(~said.mask, HIDDEN)[:, None, None, :],
            looking_back=back,
            cache=cache,
        )

    def forward(self, vectors: States, memory: Memory) -> States:
        """Run the layers over the tokens that follow those of the memory.

        Args:
            vectors: of these tokens, from the encoder's table.
            memory: of the source, and of the tokens before.

        Returns:
            The last state of each, from which the head reads the token that follows.

        Raises:
            BadRequest: when the memory has no room for them.
        """
        first, count, room = memory.length, vectors.shape[1], memory.looking_back.shape[-1]
        if first + count > room:
            raise BadRequest(f"{first + count} tokens for a memory of {room}", f"at most {room} tokens")
        bias = memory.looking_back[:, :, first : first + count, : first + count]
        for index, layer in enumerate(self.layers):
            vectors = layer(vectors, bias, memory, index)
        if memory.cache is not None:
            memory.cache.advance(count)
        return self.norm(vectors)

    @torch.no_grad()
    def _initialise(self) -> None:
        """Draw fresh weights as the encoder does: the queries carry the scale that the logits lack."""
        width, inner, scale = (
            self.config.width,
            self.config.heads * self.config.head_width,
            self.config.head_width**-0.5,
        )
        nn.init.normal_(self.distances.weight, std=width**-0.5)
        for one in self.layers:
            layer = cast(WritingLayer, one)
            nn.init.normal_(layer.attention.qkv.weight, std=width**-0.5)
            layer.attention.qkv.weight[:inner] *= scale
            nn.init.normal_(layer.reading.queries.weight, std=width**-0.5 * scale)
            nn.init.normal_(layer.reading.keys_values.weight, std=width**-0.5)
            for out in (layer.attention.out, layer.reading.out):
                nn.init.normal_(out.weight, std=inner**-0.5)
            nn.init.normal_(layer.mlp.up.weight, std=width**-0.5)
            nn.init.normal_(layer.mlp.down.weight, std=self.config.hidden**-0.5)
        if self.head is not None:
            nn.init.normal_(self.head.weight, std=width**-0.5)


class TextToText(nn.Module):
    """Both halves: reads one text, writes another.

    Args:
        encoder: reads; its table of tokens serves both.
        decoder: writes.

    Raises:
        BadConfig: when they are not of one width and vocabulary.
    """

    def __init__(self, encoder: TextEncoder, decoder: TextDecoder) -> None:
        super().__init__()
        one, other = encoder.config, decoder.config
        if (one.width, one.vocabulary) != (other.width, other.vocabulary):
            raise BadConfig(
                f"a decoder of width {other.width} with {other.vocabulary} tokens",
                f"width {one.width} and {one.vocabulary} tokens, as the encoder",
            )
        self.encoder, self.decoder = encoder, decoder

    def forward(self, ids: Tokens, mask: Mask, written: Int[Tensor, "b m"]) -> Float[Tensor, "b m v"]:
        """Return the logits of every token of a text, each from those before it.

        Args:
            ids: tokens of the source.
            mask: True where one is real.
            written: tokens of the text; START is put before them, and of the last one nothing is seen.

        Raises:
            BadModel: when it is asked to compute in float16.
            BadRequest: when a number is no token.
        """
        return self.write(self.encoder(ids, mask), written)

    def write(self, said: TextStates, written: Int[Tensor, "b m"]) -> Float[Tensor, "b m v"]:
        """Do what `forward` does behind the encoder.

        Args:
            said: what it read.
            written: as there.

        Raises:
            BadModel: when it is asked to compute in float16.
        """
        before = F.pad(written[:, :-1], (1, 0), value=START)
        return self.logits(self.decoder(self.encoder.tokens(before), self.decoder.remember(said, before.shape[1])))

    def logits(self, states: Float[Tensor, "*n d"]) -> Float[Tensor, "*n v"]:
        """Read words out of the decoder's states."""
        if self.decoder.config.scales_states:
            states = states * self.decoder.config.width**-0.5
        head = self.decoder.head
        return F.linear(states, self.encoder.tokens.weight if head is None else head.weight)

    def next_logits(self, tokens: Int[Tensor, "b n"], cache: Any) -> Float[Tensor, "b v"]:
        """Return the logits of the token that follows: meeting point 1's twin.

        Args:
            tokens: START and all that was written so far.
            cache: the `Memory` of the source; without a cache in it everything is computed anew.
        """
        fresh = tokens[:, cache.length :]
        return self.logits(self.decoder(self.encoder.tokens(fresh), cache)[:, -1])


def _mixed(queries: Float[Tensor, "b k n c"], seen: KeysValues, bias: Float[Tensor, "..."]) -> Float[Tensor, "b n d"]:
    mixed = F.scaled_dot_product_attention(queries, seen.keys, seen.values, attn_mask=bias.to(queries.dtype), scale=1.0)
    return rearrange(mixed, "b k n c -> b n (k c)")


TEXT_DECODER_PRESETS: Mapping[str, TextDecoderConfig] = MappingProxyType(
    {
        # Half as deep as its encoder: for bytes ByT5 found a deep encoder and a shallow decoder best.  1.6 M weights.
        "emoji": TextDecoderConfig(vocabulary=384, width=192, depth=3, heads=4, head_width=48, hidden=384),
        "t5-small": TextDecoderConfig(
            vocabulary=32_128,
            width=512,
            depth=6,
            heads=8,
            hidden=2_048,
            feed_forward="relu",
            has_own_head=False,
            scales_states=True,
        ),
        "byt5-small": TextDecoderConfig(vocabulary=384, width=1_472, depth=4, heads=6, hidden=3_584),
    }
)
