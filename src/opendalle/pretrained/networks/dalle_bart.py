"""DALL·E mini's network: an encoder reads the prompt, a decoder says a picture word by word.

    prompt ── encoder, once ──▶ keys and values of every decoder layer, once
                                            │
    [start] words so far ── decoder ────────┴──▶ logits of the next word
                            └─ of words seen before only keys and values are kept

Every branch is normalised before and behind.  A norm that stands before a linear layer has no scale, only a shift: the
linear layer's weights can say the same.  No linear layer has a bias.

Source: dalle-mini (Dayma et al., 2021), its "mini" and "mega" models, after BART, arXiv:1910.13461; gated feed-forward
    layers: arXiv:2002.05202; norms behind branches: NormFormer, arXiv:2110.09456.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from opendalle.base.axes import Mask, States, Tokens
from opendalle.base.errors import BadRequest, require
from opendalle.nn.attention import attention_mask
from opendalle.nn.kv_cache import KeysValues, KVCache
from opendalle.nn.thin import ThinLinear, thin_linear


@dataclass(frozen=True, kw_only=True)
class DalleBartConfig:
    """Shape of encoder and decoder; the defaults are those of dalle-mini's "mini" model."""

    width: int = 1_024  # of a token
    depth: int = 12  # layers of the encoder, and of the decoder
    heads: int = 16  # attention heads; they divide width
    gated_width: int = 2_730  # hidden width of the feed-forward layers
    text_vocabulary: int = 50_264  # rows of the prompt's table
    num_text: int = 64  # tokens of a prompt at most
    picture_vocabulary: int = 16_384  # words of the codec: only their logits are computed
    num_rows: int = 16_385  # rows of the words' table and of the read-out; those beyond the words were hardly trained
    num_cells: int = 256  # words of a picture
    start: int = 16_384  # the row that stands before the first word
    pad: int = 1  # the prompt's token for places that are not used; nobody looks at it
    begin: int = 0  # the prompt's first token
    end: int = 2  # the prompt's last token
    norm_eps: float = 1e-5  # added to the variance in layer norms

    def __post_init__(self) -> None:
        sizes = (self.width, self.depth, self.heads, self.gated_width, self.num_text, self.num_cells)
        require(min(sizes) >= 1, f"sizes {sizes}", "at least 1 each")
        require(self.width % self.heads == 0, f"width {self.width}, {self.heads} heads", "a width that they divide")
        require(1 <= self.picture_vocabulary <= self.num_rows, f"num_rows {self.num_rows}", "one a word, or more")
        require(0 <= self.start < self.num_rows, f"start {self.start}", f"one of {self.num_rows} rows")
        known = (self.pad, self.begin, self.end)
        require(0 <= min(known) <= max(known) < self.text_vocabulary, f"tokens {known}", "within text_vocabulary")
        require(len(set(known)) == len(known), f"tokens {known}", "three different ones")
        require(self.norm_eps > 0, f"norm_eps {self.norm_eps}", "a positive number")


class Shift(nn.Module):
    """A layer norm without a scale.

    Args:
        width: of a token.
        eps: added to the variance.
    """

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, tokens: States) -> States:
        """Normalise every token."""
        return F.layer_norm(tokens, self.bias.shape, None, self.bias, self.eps)


class Gated(nn.Module):
    """The feed-forward layer: one half of the hidden numbers opens and closes the other."""

    def __init__(self, config: DalleBartConfig) -> None:
        super().__init__()
        self.norm_in = Shift(config.width, config.norm_eps)
        self.up = ThinLinear(config.width, 2 * config.gated_width)  # rows: gates, then what they let through
        self.norm = Shift(config.gated_width, config.norm_eps)
        self.down = ThinLinear(config.gated_width, config.width)

    def forward(self, tokens: States) -> States:
        """Transform every token."""
        gates, hidden = self.up(self.norm_in(tokens)).chunk(2, dim=-1)
        return self.down(self.norm(F.gelu(gates) * hidden))


class SelfAttention(nn.Module):
    """Tokens look at each other, between two norms."""

    def __init__(self, config: DalleBartConfig) -> None:
        super().__init__()
        width, self.heads = config.width, config.heads
        self.norm_in = Shift(width, config.norm_eps)
        self.qkv = ThinLinear(width, 3 * width)  # rows: all queries, all keys, all values
        self.out = ThinLinear(width, width)
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)

    def forward(
        self, tokens: States, mask: Bool[Tensor, "#b 1 #n m"] | None, *, cache: KVCache | None = None, layer: int = 0
    ) -> States:
        """Mix the tokens.

        Args:
            tokens: with a cache, only those that follow the cached ones.
            mask: True where a token may look at another, cached ones first; None: it may look at all.
            cache: tokens seen before; this call adds its own.
            layer: which of the cache's layers is ours.
        """
        qkv = self.qkv(self.norm_in(tokens))
        queries, keys, values = rearrange(qkv, "b n (three k c) -> three b k n c", three=3, k=self.heads)
        seen = KeysValues(keys, values)
        if cache is not None:
            seen = cache.extend(layer, seen)
        mixed = F.scaled_dot_product_attention(queries, seen.keys, seen.values, attn_mask=mask)
        return self.norm(self.out(rearrange(mixed, "b k n c -> b n (k c)")))


@dataclass(frozen=True)
class Folded:
    """A prompt as one attention sees it, with the attention's own matrices multiplied in.

    Which token a word looks at is a product of the word's query with the token's key, and a query is a matrix applied
    to the word; so the matrix can be applied to the key instead, once a prompt.  The same holds behind: of values and
    the output matrix.  While prompts are short these products are smaller than the matrices, and a decoder that says
    word after word does little but read matrices.
    """

    reads: Float[Tensor, "p km d"]  # of every head and token: what it is looked for by
    writes: Float[Tensor, "p km d"]  # of every head and token: what is added when it is looked at


@dataclass(frozen=True)
class ReadPrompts:
    """Prompts as the decoder needs them, read once; rows of words are grouped by prompt."""

    layers: tuple[KeysValues | Folded, ...]  # one a decoder layer
    mask: Bool[Tensor, "p m"]  # True where a token of a prompt is real


class PromptAttention(nn.Module):
    """Words look at the prompt, between two norms."""

    def __init__(self, config: DalleBartConfig) -> None:
        super().__init__()
        width, self.heads = config.width, config.heads
        self.norm_in = Shift(width, config.norm_eps)
        self.query = ThinLinear(width, width)
        self.kv = ThinLinear(width, 2 * width)  # rows: all keys, all values
        self.out = ThinLinear(width, width)
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)

    def project(self, states: Float[Tensor, "p m d"]) -> KeysValues:
        """Compute keys and values of prompts; they stay as long as the prompts do."""
        keys, values = rearrange(self.kv(states), "p m (two k c) -> two p k m c", two=2, k=self.heads)
        return KeysValues(keys.contiguous(), values.contiguous())

    def fold(self, prompt: KeysValues) -> Folded:
        """Multiply the matrices of this attention into keys and values.

        Args:
            prompt: from `project`.
        """
        query = rearrange(self.query.weight, "(k c) d -> k c d", k=self.heads) * prompt.keys.shape[-1] ** -0.5
        out = rearrange(self.out.weight, "d (k c) -> k c d", k=self.heads)
        return Folded(reads=(prompt.keys @ query).flatten(1, 2), writes=(prompt.values @ out).flatten(1, 2))

    def forward(
        self, tokens: Float[Tensor, "b n d"], prompt: KeysValues | Folded, mask: Bool[Tensor, "p m"]
    ) -> Float[Tensor, "b n d"]:
        """Let every word look at its prompt.

        Args:
            tokens: states of words; as many rows a prompt, those of a prompt together.
            prompt: from `project`, or from `fold`.
            mask: True where a token of a prompt is real.
        """
        asking = rearrange(self.norm_in(tokens), "(p g) n d -> p (g n) d", p=len(mask))
        if isinstance(prompt, Folded):
            near = rearrange(asking @ prompt.reads.mT, "p q (k m) -> p q k m", k=self.heads)
            looks = near.masked_fill(~mask[:, None, None], float("-inf")).softmax(dim=-1)
            found = looks.flatten(2) @ prompt.writes
        else:
            queries = rearrange(self.query(asking), "p q (k c) -> p k q c", k=self.heads)
            mixed = F.scaled_dot_product_attention(
                queries, prompt.keys, prompt.values, attn_mask=mask[:, None, None].expand(-1, -1, queries.shape[2], -1)
            )
            found = self.out(rearrange(mixed, "p k q c -> p q (k c)"))
        return self.norm(found).view_as(tokens)


class EncoderLayer(nn.Module):
    """Attention and feed-forward, each added to what came."""

    def __init__(self, config: DalleBartConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(config)
        self.mlp = Gated(config)

    def forward(self, tokens: States, mask: Bool[Tensor, "#b 1 #n m"] | None) -> States:
        """Run the layer; the mask is that of `SelfAttention`."""
        tokens = tokens + self.attention(tokens, mask)
        return tokens + self.mlp(tokens)


class DecoderLayer(nn.Module):
    """Attention among words, attention to the prompt, feed-forward, each added to what came."""

    def __init__(self, config: DalleBartConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(config)
        self.prompt = PromptAttention(config)
        self.mlp = Gated(config)


class Stack(nn.Module):
    """Embedding, places and layers: what encoder and decoder have in common."""

    def __init__(self, config: DalleBartConfig, num_rows: int, num_places: int, layer: type[nn.Module]) -> None:
        super().__init__()
        self.tokens = nn.Embedding(num_rows, config.width)
        self.places = nn.Embedding(num_places, config.width)
        self.norm_in = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.layers = nn.ModuleList(layer(config) for _ in range(config.depth))
        self.norm = Shift(config.width, config.norm_eps)

    def embed(self, tokens: Tokens, first: int = 0) -> States:
        """Return what the first layer reads of tokens, which stand at place `first` and those after it."""
        return self.norm_in(self.tokens(tokens) + self.places.weight[first : first + tokens.shape[1]])


class DalleBart(nn.Module):
    """Encoder and decoder."""

    def __init__(self, config: DalleBartConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Stack(config, config.text_vocabulary, config.num_text, EncoderLayer)
        self.decoder = Stack(config, config.num_rows, config.num_cells, DecoderLayer)
        self.words_out = ThinLinear(config.width, config.num_rows)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.01)  # as dalle-mini began

    def encode(self, prompts: Tokens, is_real: Mask) -> States:
        """Return states of prompts; those of padding mean nothing.

        Args:
            prompts: tokens, padded at the end.
            is_real: True where a token is no padding.
        """
        states = self.encoder.embed(prompts)
        for layer in self.encoder.layers:
            states = cast(EncoderLayer, layer)(states, is_real[:, None, None])
        return self.encoder.norm(states)

    def read(self, prompts: Tokens) -> ReadPrompts:
        """Read prompts once for all words, as far as the longest goes; fold them where that makes them smaller.

        Args:
            prompts: tokens, padded at the end, as `padded_prompts` gives them.

        Raises:
            BadRequest: when a prompt is longer than the network reads, or has no token.
        """
        config, is_real = self.config, prompts != self.config.pad
        if prompts.shape[1] > config.num_text or not bool(is_real.any(dim=1).all()):
            came = f"prompts of shape {tuple(prompts.shape)}"
            raise BadRequest(came, f"1 to {config.num_text} tokens each, then padding")
        longest = int((is_real * torch.arange(1, prompts.shape[1] + 1, device=prompts.device)).max())
        prompts, is_real = prompts[:, :longest], is_real[:, :longest]
        states, read = self.encode(prompts, is_real), list[KeysValues | Folded]()
        for layer in self.decoder.layers:
            attention = cast(DecoderLayer, layer).prompt
            prompt = attention.project(states)
            read.append(attention.fold(prompt) if prompts.numel() <= config.width // config.heads else prompt)
        return ReadPrompts(tuple(read), is_real)

    def new_cache(self, batch: int, dtype: torch.dtype | None = None) -> KVCache:
        """Make an empty cache for the words of `batch` pictures.

        Args:
            batch: rows.
            dtype: of keys and values; None: what the network computes in, autocast or the weights' own.
        """
        weight, config = self.words_out.weight, self.config
        kind = weight.device.type
        if dtype is None:
            dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        return KVCache(
            num_layers=config.depth,
            batch=batch,
            heads=config.heads,
            capacity=config.num_cells,
            head_width=config.width // config.heads,
            dtype=dtype,
            device=weight.device,
        )

    def states(
        self, tokens: Int[Tensor, "b m"], context: ReadPrompts, cache: KVCache | None = None
    ) -> Float[Tensor, "b n d"]:
        """Return what the logits of the words that follow are read from.

        Args:
            tokens: words of the picture so far, all of them; fewer than a picture has.
            context: from `read`; as many rows a prompt, those of a prompt together.
            cache: what was computed of them before; None: everything is computed, one state a word and one before.

        Raises:
            BadRequest: when there is no place for another word.
        """
        if tokens.shape[1] >= self.config.num_cells:
            raise BadRequest(f"{tokens.shape[1]} words", f"fewer than {self.config.num_cells}, to say the next one")
        seen = 0 if cache is None else cache.length
        start = tokens.new_full((len(tokens), 1), self.config.start)
        new = torch.cat([start, tokens], dim=1)[:, seen:]
        x, num_new = self.decoder.embed(new, seen), new.shape[1]
        mask = None  # a single word sees all before it
        if num_new > 1:
            mask = attention_mask(None, num_new, seen + num_new, is_causal=True, device=x.device)
        for index, one in enumerate(self.decoder.layers):
            layer = cast(DecoderLayer, one)
            x = x + layer.attention(x, mask, cache=cache, layer=index)
            x = x + layer.prompt(x, context.layers[index], context.mask)
            x = x + layer.mlp(x)
        if cache is not None:
            cache.advance(num_new)
        return self.decoder.norm(x)

    def word_logits(self, states: Float[Tensor, "*b d"]) -> Float[Tensor, "*b v"]:
        """Read the codec's words out of states; the read-out's other rows are never drawn."""
        return thin_linear(states, self.words_out.weight[: self.config.picture_vocabulary])

    def forward(self, prompts: Tokens, tokens: Int[Tensor, "b m"]) -> Float[Tensor, "b q v"]:
        """Return logits of every word that was given, and of the next one.

        Args:
            prompts: tokens, padded at the end.
            tokens: words of the picture, fewer than it has.
        """
        return self.word_logits(self.states(tokens, self.read(prompts)))


DALLE_BART_PRESETS: Mapping[str, DalleBartConfig] = MappingProxyType(
    {
        "mini": DalleBartConfig(),
        "mega": DalleBartConfig(
            width=2_048, depth=24, heads=32, gated_width=4_096, text_vocabulary=50_272, num_rows=16_416
        ),
    }
)
