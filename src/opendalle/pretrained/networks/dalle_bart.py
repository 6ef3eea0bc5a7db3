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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from opendalle.base.axes import Mask, States, Tokens
from opendalle.base.errors import BadRequest, require
from opendalle.base.protocols import NextLogits
from opendalle.nn.attention import AttentionContext, attention_mask
from opendalle.nn.kv_cache import KeysValues, KVCache
from opendalle.nn.thin import ThinLinear, thin_linear
from opendalle.samplers import GuidedLogits


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

    def project(self, states: States) -> KeysValues:
        """Compute a prompt's keys and values; they stay as long as the prompt does."""
        keys, values = rearrange(self.kv(states), "b m (two k c) -> two b k m c", two=2, k=self.heads)
        return KeysValues(keys.contiguous(), values.contiguous())

    def forward(self, tokens: States, prompt: KeysValues, mask: Bool[Tensor, "#b 1 #n m"] | None) -> States:
        """Let every word look at the prompt.

        Args:
            tokens: states of words.
            prompt: from `project`.
            mask: True where a token of the prompt is real; None: all are.
        """
        queries = rearrange(self.query(self.norm_in(tokens)), "b n (k c) -> b k n c", k=self.heads)
        mixed = F.scaled_dot_product_attention(queries, prompt.keys, prompt.values, attn_mask=mask)
        return self.norm(self.out(rearrange(mixed, "b k n c -> b n (k c)")))


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

    def read(self, prompts: Tokens) -> AttentionContext:
        """Read prompts once for all words: keys and values of every decoder layer, as far as the longest prompt goes.

        Args:
            prompts: tokens, padded at the end, as `padded_prompts` gives them.

        Raises:
            BadRequest: when a prompt is longer than the network reads, or has no token.
        """
        is_real = prompts != self.config.pad
        if prompts.shape[1] > self.config.num_text or not bool(is_real.any(dim=1).all()):
            came = f"prompts of shape {tuple(prompts.shape)}"
            raise BadRequest(came, f"1 to {self.config.num_text} tokens each, then padding")
        longest = int((is_real * torch.arange(1, prompts.shape[1] + 1, device=prompts.device)).max())
        prompts, is_real = prompts[:, :longest], is_real[:, :longest]
        states = self.encode(prompts, is_real)
        layers = [cast(DecoderLayer, layer) for layer in self.decoder.layers]
        return AttentionContext(tuple(layer.prompt.project(states) for layer in layers), is_real)

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
        self, tokens: Int[Tensor, "b m"], context: AttentionContext, cache: KVCache | None = None
    ) -> Float[Tensor, "b n d"]:
        """Return what the logits of the words that follow are read from.

        Args:
            tokens: words of the picture so far, all of them; fewer than a picture has.
            context: from `read`, one prompt a row.
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
        to_prompt = context.mask_with(0)
        for index, one in enumerate(self.decoder.layers):
            layer = cast(DecoderLayer, one)
            x = x + layer.attention(x, mask, cache=cache, layer=index)
            x = x + layer.prompt(x, context.layers[index], to_prompt)
            x = x + layer.mlp(x)
        if cache is not None:
            cache.advance(num_new)
        return self.decoder.norm(x)

    def word_logits(self, states: Float[Tensor, "*b d"]) -> Float[Tensor, "*b v"]:
        """Read the codec's words out of states; the read-out's other rows are never drawn."""
        return thin_linear(states, self.words_out.weight[: self.config.picture_vocabulary])

    def forward(self, prompts: Tokens, tokens: Int[Tensor, "b m"]) -> Float[Tensor, "b n v"]:
        """Return logits of every word that was given, and of the next one.

        Args:
            prompts: tokens, padded at the end.
            tokens: words of the picture, fewer than it has.
        """
        return self.word_logits(self.states(tokens, self.read(prompts)))


class PromptLogits:
    """What the network says of the words after prompts: a `NextLogits`, without guidance.

    Args:
        network: in evaluation mode.
        context: from `DalleBart.read`; one prompt a row of tokens.
    """

    def __init__(self, network: DalleBart, context: AttentionContext) -> None:
        self.network, self.context = network, context

    def __call__(self, tokens: Int[Tensor, "b n"], cache: Any) -> Float[Tensor, "b v"]:
        """Return logits of the word that follows; without a cache everything is computed anew."""
        return self.network.word_logits(self.network.states(tokens, self.context, cache)[:, -1])


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """What `sample_tokens` needs to draw pictures after prompts."""

    next_logits: NextLogits
    cache: KVCache
    tokens: Int[Tensor, "b 0"]  # no word yet, one row a picture


def drawing(
    network: DalleBart, prompts: Tokens, guidance: float | Float[Tensor, " b"] = 1.0, *, count: int = 1
) -> Drawing:
    """Make ready to draw: prompts are read once, and once the empty prompt, if there is guidance.

    Args:
        network: in evaluation mode.
        prompts: from `padded_prompts`.
        guidance: away from the empty prompt; 1 is off; one number, or one a picture.  dalle-mini drew with 10, min-dalle
            with 16.
        count: pictures a prompt; those of a prompt stand together.

    Source: guidance of logits ("super conditioning", Katherine Crowson, 2022): arXiv:2203.13131, section 3.4.
    """
    num, device = len(prompts), prompts.device
    rows = torch.arange(num, device=device).repeat_interleave(count)
    is_guided = bool((torch.as_tensor(guidance) != 1).any())
    if is_guided:
        empty = padded_prompts([()], network.config).to(device)
        prompts = torch.cat([prompts, F.pad(empty, (0, prompts.shape[1] - empty.shape[1]), value=network.config.pad)])
        rows = torch.cat([rows, torch.full_like(rows, num)])
    said: NextLogits = PromptLogits(network, network.read(prompts).rows(rows))
    if is_guided:
        said = GuidedLogits(said, guidance)
    tokens = prompts.new_zeros(num * count, 0)
    return Drawing(next_logits=said, cache=network.new_cache(len(rows)), tokens=tokens)


def padded_prompts(prompts: Sequence[Sequence[int]], config: DalleBartConfig) -> Tokens:
    """Put prompts between their first and last token, and fill the places behind.

    A prompt that is too long loses its tail, but never its last token: min-dalle cuts that off, too.

    Args:
        prompts: token numbers of each; none at all is the empty prompt.
        config: which tokens, and how many places there are.

    Raises:
        BadRequest: when a number is beyond the table, as one of the published "mini" tokenizer is.
    """
    kept = [tuple(one)[: config.num_text - 2] for one in prompts]
    for token in (token for one in kept for token in one):
        if not 0 <= token < config.text_vocabulary:
            raise BadRequest(f"the token {token}", f"0 to {config.text_vocabulary - 1}", "Take it as an unknown one?")
    longest = max((len(one) for one in kept), default=0) + 2
    rows = [[config.begin, *one, config.end] + [config.pad] * (longest - len(one) - 2) for one in kept]
    return torch.tensor(rows, dtype=torch.long).reshape(len(rows), longest)


DALLE_BART_PRESETS: Mapping[str, DalleBartConfig] = MappingProxyType(
    {
        "mini": DalleBartConfig(),
        "mega": DalleBartConfig(
            width=2_048, depth=24, heads=32, gated_width=4_096, text_vocabulary=50_272, num_rows=16_416
        ),
    }
)
