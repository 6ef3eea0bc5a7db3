"""DALL·E 1's transformer: reads a caption and the picture's words so far, says which word comes next.

    [start] caption, each unused place with a padding token of its own | words of the picture in raster order
       ╰─ token + place                                                   ╰─ word + row + column

Source: Ramesh et al., arXiv:2102.12092, section 2.2 and appendix B.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from opendalle.base.axes import States, Tokens
from opendalle.base.errors import BadRequest, require
from opendalle.dalle1.attention import Reading, SparseAttention
from opendalle.dalle1.gradient_scaling import BranchScale, GradientScaleConfig
from opendalle.dalle1.patterns import KERNEL, Edge, Pattern, check_pattern, layer_patterns
from opendalle.nn.kv_cache import KVCache
from opendalle.nn.transformer import FeedForward, TransformerConfig


@dataclass(frozen=True, kw_only=True)
class Dalle1TransformerConfig:
    """Shape of the transformer, and what the paper leaves open."""

    text_vocabulary: int = 16_384  # tokens of the tokenizer; the places' padding tokens come on top
    num_text: int = 256  # caption tokens
    picture_vocabulary: int = 8_192  # words of the codec
    grid_height: int = 32  # rows of words
    grid_width: int = 32  # words a row
    width: int = 3_968  # of a token
    depth: int = 64  # layers
    heads: int = 62  # attention heads; they divide width
    mlp_ratio: float = 4.0  # hidden width of the feed-forward layer over width
    dropout: float = 0.0  # of attention weights and of both residual branches, in training
    pattern: Literal["paper", "dense", "row", "column", "convolution"] = "paper"  # of all layers; paper: its mix
    kernel: int = KERNEL  # side of the convolution's window
    edge: Edge = "wrap"  # what it does at the grid's border; see `patterns.visible`
    # Open in the paper.  With a start token the first caption token is predicted too, and all shifts by one place.
    has_start: bool = True
    ties_embeddings: bool = False  # open: whether a word's vector also reads it out
    norm: Literal["pre", "sandwich"] = "pre"  # open: norms before each branch, or also behind it, as CogView has
    initialisation: Literal["sparse-transformer", "gpt"] = "sparse-transformer"  # open: spread of fresh weights

    def __post_init__(self) -> None:
        sizes = (self.text_vocabulary, self.num_text, self.picture_vocabulary, self.grid_height, self.grid_width)
        require(min(sizes) >= 1, f"sizes {sizes}", "at least 1 each")
        check_pattern("row" if self.pattern == "paper" else self.pattern, self.kernel, self.edge)
        require(self.norm in ("pre", "sandwich"), f"norm {self.norm!r}", "pre or sandwich")
        known = ("sparse-transformer", "gpt")
        require(self.initialisation in known, f"initialisation {self.initialisation!r}", " or ".join(known))
        _ = self.block  # checks the rest

    @property
    def block(self) -> TransformerConfig:
        """Width, depth, heads and the rest, as a layer's bricks want them."""
        return TransformerConfig(
            width=self.width, depth=self.depth, heads=self.heads, mlp_ratio=self.mlp_ratio, dropout=self.dropout
        )

    @property
    def num_read(self) -> int:
        """Tokens before the picture's first word."""
        return self.num_text + self.has_start

    @property
    def num_cells(self) -> int:
        """Words of a picture."""
        return self.grid_height * self.grid_width

    @property
    def num_text_tokens(self) -> int:
        """The caption's vocabulary: the tokenizer's, then one padding token a place."""
        return self.text_vocabulary + self.num_text

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        """The pattern of each layer."""
        return layer_patterns(self.depth) if self.pattern == "paper" else (self.pattern,) * self.depth


@dataclass(frozen=True)
class TokenLogits:
    """What is said of the tokens that follow, each kind in its own vocabulary: the other kind's logits are cut off."""

    text: Float[Tensor, "b t v"]  # of every caption token; without a start token of all but the first
    picture: Float[Tensor, "b n w"]  # of every word that was given, and of the next one, if there is one


class Layer(nn.Module):
    """Sparse attention and feed-forward, each normalised before and added after."""

    def __init__(self, config: Dalle1TransformerConfig, reading: Reading, index: int) -> None:
        super().__init__()
        self.index, block = index, config.block
        norms = 2 if config.norm == "pre" else 4
        self.norms = nn.ModuleList(nn.LayerNorm(config.width, eps=block.norm_eps) for _ in range(norms))
        self.attention = SparseAttention(config.width, config.heads, reading, dropout=config.dropout)
        self.mlp = FeedForward(block)
        self.dropout = nn.Dropout(config.dropout)
        self.scales: tuple[BranchScale, ...] = ()
        for linear in (self.attention.qkv, self.attention.out, self.mlp.up, self.mlp.down):
            is_last = linear in (self.attention.out, self.mlp.down)
            nn.init.normal_(linear.weight, std=spread_of(config, linear.in_features, is_last=is_last))
            nn.init.zeros_(linear.bias)

    def scale_gradients(self, config: GradientScaleConfig) -> tuple[BranchScale, ...]:
        """Give each of the two branches a gradient scale of its own.

        Args:
            config: how the scales move.
        """
        self.scales = (BranchScale(config), BranchScale(config))
        for scale, module, norms in zip(self.scales, (self.attention, self.mlp), self._norms(), strict=True):
            for one in (module, *norms):
                scale.follow(one)
        return self.scales

    def forward(self, tokens: States, *, cache: KVCache | None = None) -> States:
        """Run one layer; the arguments are those of `SparseAttention.forward`."""

        def attend(x: Tensor) -> Tensor:
            return self._branch(0, self.attention(self.norms[0](x), cache=cache, layer=self.index))

        def think(x: Tensor) -> Tensor:
            return self._branch(1, self.mlp(self.norms[1](x)))

        if self.scales:
            tokens = tokens + self.scales[0].enclose(tokens, attend)
            return tokens + self.scales[1].enclose(tokens, think)
        tokens = tokens + attend(tokens)
        return tokens + think(tokens)

    def _branch(self, number: int, x: Tensor) -> Tensor:
        return self.dropout(self.norms[2 + number](x) if len(self.norms) == 4 else x)

    def _norms(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """Return the norms of either branch."""
        return list(self.norms[::2]), list(self.norms[1::2])


class Dalle1Transformer(nn.Module):
    """A caption and a picture's words as one sentence, and what comes next in it."""

    def __init__(self, config: Dalle1TransformerConfig) -> None:
        super().__init__()
        self.config, width = config, config.width
        self.text = nn.Embedding(config.num_text_tokens, width)
        self.places = nn.Embedding(config.num_text, width)
        self.words = nn.Embedding(config.picture_vocabulary, width)
        self.rows = nn.Embedding(config.grid_height, width)
        self.columns = nn.Embedding(config.grid_width, width)
        self.start = nn.Parameter(torch.zeros(1, width)) if config.has_start else None
        readings = {
            one: Reading(
                one, config.grid_height, config.grid_width, config.num_read, kernel=config.kernel, edge=config.edge
            )
            for one in dict.fromkeys(config.patterns)
        }
        self.layers = nn.ModuleList(Layer(config, readings[one], index) for index, one in enumerate(config.patterns))
        self.norm = nn.LayerNorm(width, eps=config.block.norm_eps)
        ties = config.ties_embeddings
        self.text_out = None if ties else nn.Linear(width, config.num_text_tokens, bias=False)
        self.words_out = None if ties else nn.Linear(width, config.picture_vocabulary, bias=False)
        self._initialise()

    def forward(self, text: Tokens, tokens: Int[Tensor, "b m"]) -> TokenLogits:
        """Say of every token what it was likely to be, after those before it.

        Args:
            text: caption tokens, padded by `padded_text`.
            tokens: words of the picture in raster order, from none to all.

        Raises:
            BadRequest: when they do not fit the network.
        """
        of_text, of_picture = self.states(text, tokens)
        return TokenLogits(text=self.text_logits(of_text), picture=self.word_logits(of_picture))

    def states(self, text: Tokens, tokens: Int[Tensor, "b m"]) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b w d"]]:
        """Return what the logits of caption and picture are read from; arguments and errors are those of `forward`."""
        self._check(text, tokens)
        x = torch.cat([self._text_states(text), self._word_states(tokens, 0)], dim=1)
        for layer in self.layers:
            x = layer(x)
        x, last = self.norm(x), self.config.num_read - 1
        return x[:, :last], x[:, last : last + self.config.num_cells]

    def text_logits(self, states: Float[Tensor, "*b d"]) -> Float[Tensor, "*b v"]:
        """Read caption tokens out of states."""
        return F.linear(states, self.text.weight) if self.text_out is None else self.text_out(states)

    def word_logits(self, states: Float[Tensor, "*b d"]) -> Float[Tensor, "*b v"]:
        """Read words out of states."""
        return F.linear(states, self.words.weight) if self.words_out is None else self.words_out(states)

    def new_cache(self, batch: int, dtype: torch.dtype | None = None) -> KVCache:
        """Make an empty cache for `batch` captions with their pictures.

        Args:
            batch: rows.
            dtype: of keys and values; None: what the network computes in, autocast or the weights' own.
        """
        weight = self.text.weight
        kind = weight.device.type
        if dtype is None:
            dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        config = self.config
        return KVCache(
            num_layers=config.depth,
            batch=batch,
            heads=config.heads,
            capacity=config.num_read + config.num_cells,
            head_width=config.width // config.heads,
            dtype=dtype,
            device=weight.device,
        )

    def read(self, text: Tokens, cache: KVCache) -> Float[Tensor, "b w"]:
        """Read captions into an empty cache; return the logits of the picture's first word.

        Args:
            text: caption tokens, padded by `padded_text`.
            cache: from `new_cache`.
        """
        return self._go_on(self._text_states(text), cache)[:, -1]

    def advance(self, tokens: Int[Tensor, "b m"], cache: KVCache) -> Float[Tensor, "b m w"]:
        """Take in the words that follow; return the logits of the word after each.

        Args:
            tokens: one or more, after those in the cache.
            cache: captions, and the words so far.
        """
        return self._go_on(self._word_states(tokens, cache.length - self.config.num_read), cache)

    def scale_gradients(self, config: GradientScaleConfig) -> tuple[BranchScale, ...]:
        """Give every residual branch a gradient scale of its own, for training in half precision.

        Args:
            config: how the scales move.
        """
        layers = [cast(Layer, layer) for layer in self.layers]
        return tuple(scale for layer in layers for scale in layer.scale_gradients(config))

    def _go_on(self, x: States, cache: KVCache) -> Float[Tensor, "b n w"]:
        for layer in self.layers:
            x = layer(x, cache=cache)
        cache.advance(x.shape[1])
        return self.word_logits(self.norm(x))

    def _text_states(self, text: Tokens) -> Float[Tensor, "b m d"]:
        x = self.text(text) + self.places.weight
        if self.start is not None:
            x = torch.cat([self.start.expand(len(x), 1, -1).to(x.dtype), x], dim=1)
        return x

    def _word_states(self, tokens: Int[Tensor, "b m"], first: int) -> Float[Tensor, "b m d"]:
        cells = torch.arange(first, first + tokens.shape[1], device=tokens.device)
        across = self.config.grid_width
        return self.words(tokens) + self.rows(cells // across) + self.columns(cells % across)

    def _check(self, text: Tokens, tokens: Tensor) -> None:
        config = self.config
        if text.shape[1] != config.num_text or tokens.shape[1] > config.num_cells or len(text) != len(tokens):
            came = f"captions of shape {tuple(text.shape)}, words of shape {tuple(tokens.shape)}"
            raise BadRequest(came, f"as many rows, {config.num_text} tokens, at most {config.num_cells} words")

    def _initialise(self) -> None:
        config = self.config
        for table in (self.text, self.places, self.words, self.rows, self.columns):
            nn.init.normal_(table.weight, std=spread_of(config, config.width))
        if self.start is not None:
            nn.init.normal_(self.start, std=spread_of(config, config.width))
        for out in (self.text_out, self.words_out):
            if out is not None:
                nn.init.zeros_(out.weight)  # all words alike, at first


def spread_of(config: Dalle1TransformerConfig, fan_in: int, *, is_last: bool = False) -> float:
    """Return the standard deviation of a fresh weight.

    Args:
        config: which rule.
        fan_in: numbers that the layer reads.
        is_last: whether the layer ends a residual branch: then it is smaller, the deeper the network is.

    Source: Sparse Transformer, arXiv:1904.10509, whose rule the paper says it takes; GPT-2 for the other.
    """
    std = 0.125 * fan_in**-0.5 if config.initialisation == "sparse-transformer" else 0.02
    return std * (2 * config.depth) ** -0.5 if is_last else std


def padded_text(ids: Tokens, length: Int[Tensor, " b"], text_vocabulary: int) -> Tokens:
    """Put each place's own padding token where a caption has ended.

    Padding is never masked: a short caption looks like no other, and the network learns what its end means.

    Args:
        ids: caption tokens; what stands behind the length does not matter.
        length: of each caption, from 0 (the empty caption).
        text_vocabulary: the first padding token's number.

    Source: section 2.2.
    """
    place = torch.arange(ids.shape[1], device=ids.device)
    return torch.where(place < length[:, None], ids, text_vocabulary + place)


DALLE1_PRESETS: Mapping[str, Dalle1TransformerConfig] = MappingProxyType(
    {
        "emoji": Dalle1TransformerConfig(
            text_vocabulary=12_288,
            num_text=24,
            picture_vocabulary=4_096,
            grid_height=8,
            grid_width=8,
            width=192,
            depth=6,
            heads=3,
            ties_embeddings=True,
            initialisation="gpt",
        ),
        "small": Dalle1TransformerConfig(
            num_text=64, grid_height=16, grid_width=16, width=512, depth=12, heads=8, initialisation="gpt"
        ),
        "paper": Dalle1TransformerConfig(),
    }
)
