"""The autoregressive prior: a picture embedding written as a sentence of codes, one after the other.

One causal transformer reads, in this order: the caption's token states, the caption's embedding z_t, a token for how
near the picture is to its caption (the dot product z_i · z_t, in buckets), and the codes so far; what stands at the
last of them is the distribution of the next code.  In training the nearness is that of the picture; to draw, it is
drawn from the upper half of what training saw, which asks for a picture that fits its caption better than most.

The paper leaves open, and we chose:

- the caption's states stand before z_t as tokens, as in the diffusion prior (the paper's context of 384 has no room
  for 256 of them beside 319 codes; a caption of ours is short);
- nearness has buckets of equally many pictures, so the upper half of the distribution is the upper half of the
  buckets, each as likely;
- one table of codes serves all axes: a code is a rank among training pictures, and its place says along which axis;
- where the caption is dropped, for guidance, a word of its own stands for the nearness: nothing of the caption remains;
- codes are drawn at temperature 1 from all buckets unless the config says otherwise.

Ours is the guess, as beside the diffusion prior: least squares from z_t says along each axis which bucket to expect,
and a token carries the guess for the code that follows it.  Buckets are equally full, so without a caption every code
is as likely as any other, and to find in z_t another direction for every axis a small network needs very long.

Source: unCLIP, arXiv:2204.06125, section 2.2 ("Autoregressive prior") and appendix C.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from opendalle.base.axes import Embeddings
from opendalle.base.errors import require
from opendalle.dalle2.priors.codes import EmbeddingCodes
from opendalle.dalle2.priors.linear import ridge
from opendalle.dalle2.priors.protocol import Said, check_states, without_unused
from opendalle.nn.embeddings import LearnedPositions
from opendalle.nn.kv_cache import KVCache
from opendalle.nn.transformer import Transformer, TransformerConfig
from opendalle.samplers.autoregressive import GuidedLogits, TokenOptions, sample_tokens

GUESS_PENALTY = 1e-4  # of the least squares, as in `ridge`
NUM_PREFIX_TOKENS = 2  # z_t and nearness, between the caption's states and the codes


@dataclass(frozen=True, kw_only=True)
class AutoregressivePriorConfig:
    """Shape of an autoregressive prior, and how it is drawn from when nobody says otherwise."""

    embedding_width: int  # e, of CLIP's joint space
    text_width: int  # of a caption token's state
    num_text_tokens: int  # states a caption is padded or cut to
    transformer: TransformerConfig  # causal
    num_codes: int  # principal axes that are kept
    num_buckets: int = 1_024  # values of a code
    num_nearness: int = 16  # values of the nearness token
    has_guess: bool = False  # whether each token carries what least squares expects of the code that follows
    text_scale: float = 1.0  # multiplies z_t on the way in; sqrt(e) brings unit vectors to unit variance
    guidance: float = 1.0  # 1 is off
    drawing: TokenOptions = field(default_factory=TokenOptions)  # how boldly codes are drawn

    def __post_init__(self) -> None:
        widths = (self.embedding_width, self.text_width, self.num_text_tokens)
        require(min(widths) > 0, f"widths of {self}", "positive numbers")
        require(self.num_nearness >= 2 and self.num_nearness % 2 == 0, f"{self.num_nearness} values", "an even number")
        require(self.text_scale > 0, f"text_scale {self.text_scale}", "a positive number")
        require(self.guidance >= 0, f"guidance {self.guidance}", "at least 0; 1 is off")
        require(self.transformer.is_causal, "a transformer that sees later tokens", "is_causal=True")


class AutoregressivePrior(nn.Module):
    """Writes the codes of a picture embedding."""

    is_random = True
    knobs = frozenset({"guidance"})
    nearness_edges: Tensor
    guess_weight: Tensor
    guess_bias: Tensor

    def __init__(self, config: AutoregressivePriorConfig) -> None:
        super().__init__()
        self.config = config
        width = config.transformer.width
        self.codes = EmbeddingCodes(config.embedding_width, config.num_codes, config.num_buckets)
        self.register_buffer("nearness_edges", torch.linspace(-1, 1, config.num_nearness + 1)[1:-1].clone())
        self.text_in = nn.Linear(config.text_width, width)
        self.text_embedding_in = nn.Linear(config.embedding_width, width)
        self.nearness_in = nn.Embedding(config.num_nearness + 1, width)  # the last one: no caption to be near to
        self.code_in = nn.Embedding(config.num_buckets, width)
        self.guess_in = nn.Embedding(config.num_buckets, width) if config.has_guess else None
        if config.has_guess:
            self.register_buffer("guess_weight", torch.zeros(config.num_codes, config.embedding_width))
            self.register_buffer("guess_bias", torch.zeros(config.num_codes))
        self.positions = LearnedPositions(config.num_text_tokens + NUM_PREFIX_TOKENS + config.num_codes - 1, width)
        self.transformer = Transformer(config.transformer)
        self.out = nn.Linear(width, config.num_buckets)
        for table in (self.nearness_in, self.code_in, self.guess_in):
            if table is not None:
                nn.init.normal_(table.weight, std=0.02)

    @torch.no_grad()
    def measure(self, z: Embeddings, z_t: Embeddings) -> None:
        """Fit the codes and the guess, and divide the nearness of pictures to captions into buckets of equally many.

        Args:
            z: the training pictures' embeddings.
            z_t: their captions' embeddings.
        """
        self.codes.fit(z)
        near = (z * z_t).sum(dim=1).sort().values
        starts = torch.arange(1, self.config.num_nearness) * len(near) // self.config.num_nearness
        self.nearness_edges.copy_(near[starts])
        if self.guess_in is not None:
            weight, bias = ridge(z_t.double(), self.codes.along(z).double(), GUESS_PENALTY)
            self.guess_weight.copy_(weight.T)
            self.guess_bias.copy_(bias)

    def guess(self, z_t: Embeddings) -> Int[Tensor, "b n"] | None:
        """Return the codes that least squares expects of captions; None for a prior without a guess.

        Args:
            z_t: their embeddings.
        """
        if self.guess_in is None:
            return None
        return self.codes.buckets(z_t @ self.guess_weight.T + self.guess_bias)

    def nearness_of(
        self, z: Embeddings, z_t: Embeddings, is_dropped: Bool[Tensor, " b"] | None = None
    ) -> Int[Tensor, " b"]:
        """Return the nearness token of pictures.

        Args:
            z: their embeddings.
            z_t: their captions' embeddings.
            is_dropped: where the caption was dropped; None: nowhere.
        """
        near = torch.searchsorted(self.nearness_edges, (z * z_t).sum(dim=1), right=True)
        return near if is_dropped is None else torch.where(is_dropped, self.config.num_nearness, near)

    def draw_nearness(self, said: Said, generators: Sequence[Generator]) -> Int[Tensor, " b"]:
        """Draw a nearness token a row from the upper half of its training distribution.

        Args:
            said: captions; an empty one has nothing to be near to.
            generators: one a row.
        """
        half = self.config.num_nearness // 2
        drawn = torch.cat([torch.randint(half, 2 * half, (1,), generator=one) for one in generators])
        drawn = drawn.to(said.pooled.device)
        return drawn if said.is_empty is None else torch.where(said.is_empty, 2 * half, drawn)

    def forward(
        self,
        codes: Int[Tensor, "b n"],
        nearness: Int[Tensor, " b"],
        text_embedding: Float[Tensor, "b e"],
        text_states: Float[Tensor, "b m d"],
        text_mask: Bool[Tensor, "b m"] | None = None,
    ) -> Float[Tensor, "b n1 v"]:
        """Say what each code may be, given those before it; all at once, the way to train.

        Args:
            codes: those known, from the first; the last of num_codes need not be given.
            nearness: from `nearness_of`.
            text_embedding: z_t, as CLIP gives it.
            text_states: the caption's token states, num_text_tokens of them.
            text_mask: True where a token is real; None: all are.

        Returns:
            Logits of the first code, of the second, ..., of the one after the last one given.
        """
        guess = self.guess(text_embedding)
        prefix, mask = self._prefix(nearness, text_embedding, text_states, text_mask, guess)
        tokens = torch.cat([prefix, self._code_tokens(codes, guess)], dim=1)
        states = self.transformer(tokens, mask=_pad(mask, codes.shape[1]))
        return self.out(states[:, prefix.shape[1] - 1 :])

    @torch.no_grad()
    def draw(
        self,
        said: Said,
        empty: Said,
        generators: Sequence[Generator],
        *,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> Embeddings:
        """Write one embedding a row; the arguments are those of `Prior.draw`, steps are not heeded."""
        scale = self.config.guidance if guidance is None else guidance
        nearness = self.draw_nearness(said, generators)
        start, num_codes = nearness.new_zeros(len(said), 0), self.config.num_codes
        next_code = NextCode(self, said, nearness)
        next_logits = next_code
        if scale != 1:
            next_code = NextCode(self, joined(said, empty), torch.cat([nearness, self._unknown(nearness)]))
            next_logits = GuidedLogits(next_code, scale)
        cache = next_code.new_cache()
        states = sample_tokens(
            next_logits, start, num_codes, generators=generators, options=self.config.drawing, cache=cache
        )
        (ended,) = deque(states, maxlen=1)
        return self.codes.decode(ended.tokens)

    def _unknown(self, nearness: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
        return torch.full_like(nearness, self.config.num_nearness)

    def _prefix(
        self,
        nearness: Int[Tensor, " b"],
        text_embedding: Float[Tensor, "b e"],
        text_states: Float[Tensor, "b m d"],
        text_mask: Bool[Tensor, "b m"] | None,
        guess: Int[Tensor, "b k"] | None,
    ) -> tuple[Float[Tensor, "b n c"], Bool[Tensor, "b n"] | None]:
        """All that stands before the codes; a place that is padding in every caption is left out."""
        check_states(text_states, self.config.num_text_tokens)
        embedding = self.text_embedding_in(text_embedding * self.config.text_scale)
        last = self.nearness_in(nearness)
        if self.guess_in is not None and guess is not None:
            last = last + self.guess_in(guess[:, 0])
        tokens = [self.text_in(text_states), embedding[:, None], last[:, None]]
        return without_unused(self.positions(torch.cat(tokens, dim=1)), _pad(text_mask, NUM_PREFIX_TOKENS))

    def _code_tokens(
        self, codes: Int[Tensor, "b n"], guess: Int[Tensor, "b k"] | None, first: int = 0
    ) -> Float[Tensor, "b n c"]:
        """Codes from the one numbered `first` on, as tokens, each with the guess for the code after it."""
        tokens = self.code_in(codes)
        if self.guess_in is not None and guess is not None:
            tokens = tokens + self.guess_in(guess[:, first + 1 : first + 1 + codes.shape[1]])
        return self.positions(tokens, start=self.config.num_text_tokens + NUM_PREFIX_TOKENS + first)


class NextCode:
    """An autoregressive prior that has its captions: `next_logits` over codes.

    Asked without a cache it computes everything; with one, whatever the cache does not hold yet.

    Args:
        prior: the network.
        said: captions.
        nearness: tokens of how near the pictures shall be, as many rows.
    """

    def __init__(self, prior: AutoregressivePrior, said: Said, nearness: Int[Tensor, " b"]) -> None:
        self.prior, self.guess = prior, prior.guess(said.pooled)
        self.prefix, self.mask = prior._prefix(nearness, said.pooled, said.states, said.mask, self.guess)

    def new_cache(self) -> KVCache:
        """Make an empty cache that has room for a whole embedding."""
        capacity = self.prefix.shape[1] + self.prior.config.num_codes - 1
        return self.prior.transformer.new_cache(len(self.prefix), capacity)

    @torch.no_grad()
    def __call__(self, tokens: Int[Tensor, "b n"], cache: KVCache | None) -> Float[Tensor, "b v"]:
        """Return logits of the code after these.

        Args:
            tokens: all codes so far.
            cache: of this object's own making, or None.
        """
        prior, num_prefix = self.prior, self.prefix.shape[1]
        known = 0 if cache is None else cache.length
        first = max(known - num_prefix, 0)
        fresh = prior._code_tokens(tokens[:, first:], self.guess, first=first)
        if known < num_prefix:
            fresh = torch.cat([self.prefix[:, known:], fresh], dim=1)
        states = prior.transformer(fresh, mask=_pad(self.mask, tokens.shape[1]), cache=cache)
        return prior.out(states[:, -1])


def joined(first: Said, second: Said) -> Said:
    """Put the rows of one after those of the other."""
    mask = None
    if first.mask is not None or second.mask is not None:
        all_real = torch.ones_like(first.states[..., 0], dtype=torch.bool)
        mask = torch.cat([all_real if one.mask is None else one.mask for one in (first, second)])
    return Said(torch.cat([first.pooled, second.pooled]), torch.cat([first.states, second.states]), mask)


def _pad(mask: Bool[Tensor, "b n"] | None, count: int) -> Bool[Tensor, "b m"] | None:
    """Extend a mask over tokens that are always real."""
    return None if mask is None else F.pad(mask, (0, count), value=True)


AUTOREGRESSIVE_PRESETS: Mapping[str, AutoregressivePriorConfig] = MappingProxyType(
    {
        "emoji": AutoregressivePriorConfig(  # the recipe counts the axes that hold 99 % of the spread
            embedding_width=256,
            text_width=256,
            num_text_tokens=32,
            transformer=TransformerConfig(width=128, depth=4, heads=4, is_causal=True),
            num_codes=40,
            num_buckets=128,
            has_guess=True,
            text_scale=16.0,
            guidance=2.0,
        ),
        "paper": AutoregressivePriorConfig(  # its context of 384 in all: 63 places for the caption beside 319 codes
            embedding_width=1024,
            text_width=2048,
            num_text_tokens=63,
            transformer=TransformerConfig(width=1664, depth=24, heads=26, is_causal=True),
            num_codes=319,
            text_scale=32.0,
        ),
    }
)
