"""Guess and sketch: the means that the two diffusion networks work from.

At the highest noise the best a denoiser can do is to answer the mean of what it is asked for, and most of what the
picture shows is decided there.  A diffusion network learns that answer along with a thousand others; a plain regression
learns nothing else, many times as many pictures a second, and is then simply handed over beside what is noised:

- the guess E[z_i | z_t], from a caption's embedding to its pictures', to the prior;
- the sketch E[x0 | z_i, caption], from a picture's embedding and the caption's words to its grid, to the decoder.

Of several things an embedding says where they are and in which colours, hardly which; that the sketch reads from the
words.

Source: ours; that the mean is the optimal denoiser at full noise follows from DDPM, arXiv:2006.11239, eq. 8 at t = T.
What they are worth stands in docs/decisions/0008 and 0009.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from opendalle.base.axes import Embeddings, Grid
from opendalle.base.errors import BadRequest, require
from opendalle.clip.words import SPREAD
from opendalle.nn.embeddings import LearnedPositions
from opendalle.nn.placed import PlacedThings, PlacedThingsConfig
from opendalle.nn.regression import VectorRegression
from opendalle.nn.transformer import Transformer, TransformerConfig
from opendalle.nn.whitening import Whitening


def check_given(name: str, given: Tensor | None, *, wanted: bool) -> None:
    """Refuse a mean that a network was trained without, and a network that misses the one it was trained with.

    Args:
        name: of the mean: guess or sketch.
        given: what came.
        wanted: whether the network takes it.

    Raises:
        BadRequest: when the two differ.
    """
    if (given is not None) != wanted:
        came = f"no {name}" if given is None else f"a {name}"
        raise BadRequest(came, f"a {name}" if wanted else "none: this network was trained without")


@dataclass(frozen=True, kw_only=True)
class GuessConfig:
    """Shape of a guess network."""

    embedding_width: int  # e, of CLIP's joint space
    width: int = 512  # of the hidden vector
    depth: int = 3  # residual blocks

    def __post_init__(self) -> None:
        require(min(self.embedding_width, self.width) > 0 and self.depth >= 0, f"sizes of {self}", "positive numbers")


class Guess(nn.Module):
    """Pooled caption to the mean of its pictures' embeddings."""

    def __init__(self, config: GuessConfig) -> None:
        super().__init__()
        self.config = config
        self.mean = VectorRegression(config.embedding_width, config.embedding_width, config.width, config.depth)
        self.whitening = Whitening(config.embedding_width)  # of the picture embeddings: all axes count alike

    @torch.no_grad()
    def measure(self, z_t: Embeddings, z_i: Embeddings) -> None:
        """Fit both whitenings.

        Args:
            z_t: many captions' embeddings.
            z_i: many pictures' embeddings.
        """
        self.mean.whitening.fit(z_t)
        self.whitening.fit(z_i)

    def forward(self, z_t: Embeddings) -> Embeddings:
        """Guess the picture embedding; a mean of unit vectors is shorter than one.

        Args:
            z_t: captions' embeddings, as CLIP gives them.
        """
        return self.whitening.inverse(self.mean(z_t))


GUESS_PRESETS: Mapping[str, GuessConfig] = MappingProxyType({"emoji": GuessConfig(embedding_width=256, width=384)})


@dataclass(frozen=True, kw_only=True)
class RoleReaderConfig:
    """Shape of a reader of captions."""

    word_width: int  # of a word's vector
    num_words: int  # most words of a caption
    text: TransformerConfig  # tells which word plays which role
    num_roles: int = 8  # vectors that a caption is gathered into

    def __post_init__(self) -> None:
        require(min(self.word_width, self.num_words, self.num_roles) > 0, f"sizes of {self}", "positive numbers")


class RoleReader(nn.Module):
    """A caption as a few vectors: the first thing, the second, how they stand, what colour is whose, ...

    Nobody says what the roles are.  A small transformer gives every word a weight in every role; what is gathered are
    the words' own vectors, which tell one thing from another far better than states that have seen the whole caption.
    """

    def __init__(self, config: RoleReaderConfig) -> None:
        super().__init__()
        width = config.text.width
        self.words_in = nn.Linear(config.word_width, width)
        self.words_norm = nn.LayerNorm(width)
        self.positions = LearnedPositions(config.num_words, width, std=0.1)
        self.text = Transformer(config.text)
        self.weights = nn.Linear(width, config.num_roles)
        self.values_norm = nn.LayerNorm(config.word_width)

    def forward(self, words: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"] | None = None) -> Float[Tensor, "b k d"]:
        """Gather words.

        Args:
            words: their vectors.
            mask: True where a word is real; None: all are.
        """
        told = self.text(self.positions(self.words_norm(self.words_in(words / SPREAD))), mask=mask)
        weights = self.weights(told)
        if mask is not None:
            weights = weights.masked_fill(~mask[..., None], float("-inf"))
        return torch.einsum("b n k, b n d -> b k d", weights.softmax(dim=1), self.values_norm(words))


@dataclass(frozen=True, kw_only=True)
class SketchConfig:
    """Shape of a sketch network."""

    embedding_width: int  # e, of CLIP's joint space
    channels: int  # of the codec's grid
    side: int  # of the grid, in cells
    width: int = 512  # of the hidden vector
    depth: int = 3  # residual blocks
    reader: RoleReaderConfig | None = None  # of captions; None: the sketch reads none
    things: PlacedThingsConfig | None = None  # drawn once and placed; the last of the reader's roles tell of them

    def __post_init__(self) -> None:
        numbers = (self.embedding_width, self.channels, self.side, self.width)
        require(min(numbers) > 0 and self.depth >= 0, f"sizes of {self}", "positive numbers")
        require(self.things is None or self.own_roles >= 0, f"roles of {self}", "a reader with roles for the things")

    @property
    def own_roles(self) -> int:
        """How many of the reader's roles are read beside the embedding, the first ones."""
        roles = 0 if self.reader is None else self.reader.num_roles
        return roles - (0 if self.things is None else self.things.num_things * self.things.roles_each)


class Sketch(nn.Module):
    """Picture embedding, and caption, to the mean of the grids that have them.

    `error` is how far a guess of z is off, along every principal axis, in units of its spread: what a doubt of 1 means.
    As cascades tell their later stages how noised their input is (arXiv:2106.15282, section 4), the sketch is told how
    far the embedding may be off.
    """

    error: Tensor

    def __init__(self, config: SketchConfig) -> None:
        super().__init__()
        self.config = config
        self.reader = None if config.reader is None else RoleReader(config.reader)
        self.mean = VectorRegression(
            config.embedding_width,
            config.channels * config.side**2,
            config.width,
            config.depth,
            width_beside=0 if config.reader is None else 1 + config.own_roles * config.reader.word_width,
        )
        self.things = None
        if config.things is not None and config.reader is not None:
            sizes = {"hidden_width": config.width, "channels": config.channels, "side": config.side}
            self.things = PlacedThings(config.things, word_width=config.reader.word_width, **sizes)
        self.register_buffer("error", torch.zeros(config.embedding_width))  # until `measure_error`: guesses are right

    @torch.no_grad()
    def measure_error(self, z: Embeddings, guessed: Embeddings) -> None:
        """Measure how far guesses are off; the whitening has been fitted.

        Args:
            z: many pictures' embeddings.
            guessed: what a guess says of their captions.
        """
        off = self.mean.whitening(guessed) - self.mean.whitening(z)
        self.error.copy_(off.square().mean(dim=0).sqrt())

    def forward(
        self,
        z: Embeddings,
        words: Float[Tensor, "b n d"] | None = None,
        mask: Bool[Tensor, "b n"] | None = None,
        doubt: Float[Tensor, " b"] | float = 0.0,
    ) -> Grid:
        """Draw the mean grid.

        Args:
            z: picture embeddings, as CLIP gives them or the prior draws them.
            words: the captions' word vectors, for a sketch that reads them.
            mask: True where a word is real; None: all are.
            doubt: how far z may be off, from 0, the embedding of the picture, to 1, a guess from the caption.

        Raises:
            BadRequest: when such a sketch gets no words.
        """
        if self.reader is None:
            return self._grid(self.mean(z))
        if words is None:
            raise BadRequest("a sketch without words", "the caption's: this sketch reads captions")
        doubts = z.new_zeros(len(z), 1) + torch.as_tensor(doubt, device=z.device).reshape(-1, 1)
        roles = self.reader(words, mask)
        own = self.config.own_roles
        hidden = self.mean.hidden(z, torch.cat([doubts, roles[:, :own].flatten(1)], dim=1))
        grid = self._grid(self.mean.read(hidden))
        return grid if self.things is None else grid + self.things(hidden, roles[:, own:])

    def _grid(self, numbers: Float[Tensor, "b n"]) -> Grid:
        return rearrange(numbers, "b (c h w) -> b c h w", h=self.config.side, w=self.config.side)


SKETCH_PRESETS: Mapping[str, SketchConfig] = MappingProxyType(
    {
        "emoji": SketchConfig(
            embedding_width=256,
            channels=8,
            side=8,
            reader=RoleReaderConfig(
                word_width=256,
                num_words=32,
                text=TransformerConfig(width=128, depth=2, heads=4, mlp_ratio=3),
                num_roles=16,
            ),
            things=PlacedThingsConfig(),
        )
    }
)
