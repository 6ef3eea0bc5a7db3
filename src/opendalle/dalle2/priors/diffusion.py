"""The diffusion prior: from a caption to the CLIP embedding that a picture of it could have.

One causal transformer reads, in this order: the caption's token states, the caption's CLIP embedding z_t, the
diffusion step, the noised picture embedding, and a learned query; what stands at the query is the clean embedding.
The caption comes first and nothing before it changes, so while an embedding is denoised only the last three tokens
need computing: `condition` reads the caption once, `step` goes on from there.

`DiffusionDraws` is this network with all that it is drawn with: its guess, its schedule, its sampler.

Source: unCLIP, arXiv:2204.06125, section 2.2 ("Diffusion prior").
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Generator, Tensor, nn

from opendalle.base.axes import Embeddings
from opendalle.base.errors import require
from opendalle.base.rng import normal_like_rows
from opendalle.dalle2.means import Guess, check_given
from opendalle.dalle2.priors.protocol import Said, check_states, without_unused
from opendalle.nn.embeddings import LearnedPositions, TimeEmbedding
from opendalle.nn.kv_cache import KVCache
from opendalle.nn.transformer import Transformer, TransformerConfig
from opendalle.nn.whitening import Whitening
from opendalle.samplers.course import SamplerOptions
from opendalle.samplers.guided import GuidedDenoise
from opendalle.samplers.sample import last_state, sample
from opendalle.samplers.settings import StageSettings

SMALLEST_STD = 1e-4  # of a number that hardly varies
NUM_STEP_TOKENS = 3  # step, noised embedding, query: what changes while an embedding is denoised
PIXEL_STD = 17.2 / math.sqrt(1024)  # spread of a number of a unit embedding of width 1024 after the paper's factor 17.2


@dataclass(frozen=True, kw_only=True)
class DiffusionPriorConfig:
    """Shape of a diffusion prior."""

    embedding_width: int  # e, of CLIP's joint space
    text_width: int  # of a caption token's state
    num_text_tokens: int  # states a caption is padded or cut to
    transformer: TransformerConfig  # causal
    has_guess: bool = False  # whether E[z_i | z_t] stands beside the noised embedding
    is_whitened: bool = False  # whether embeddings are turned to their principal axes before they are scaled
    text_scale: float = 1.0  # multiplies z_t on the way in; sqrt(e) brings unit vectors to unit variance

    def __post_init__(self) -> None:
        require(self.embedding_width > 0 and self.text_width > 0, f"widths of {self}", "positive numbers")
        require(self.num_text_tokens > 0, f"num_text_tokens {self.num_text_tokens}", "a positive number")
        require(self.text_scale > 0, f"text_scale {self.text_scale}", "a positive number")
        require(self.transformer.is_causal, "a transformer that sees later tokens", "is_causal=True")


@dataclass(frozen=True)
class PriorConditioning:
    """A caption as the prior has read it: what `step` needs of it."""

    cache: KVCache  # keys and values of text states and z_t, with room for the step's tokens
    mask: Bool[Tensor, "b n"] | None  # True where one of all tokens is real; None: all are
    guess: Float[Tensor, "b e"] | None = None  # E[z_i | z_t], normalised

    def rows(self, index: slice | Tensor) -> "PriorConditioning":
        """Keep some entries of the batch."""
        mask, guess = (None if one is None else one[index] for one in (self.mask, self.guess))
        return PriorConditioning(self.cache.rows(index), mask, guess)


class DiffusionPrior(nn.Module):
    """Predicts the clean picture embedding, normalised, from a noised one and a caption.

    Noise schedules are tuned to pixels, whose spread is about a half; a number of a unit embedding spreads far less.
    The paper multiplies by 17.2, Karlo stores a mean and a spread for every number, ours may also turn the axes: one
    affine map, kept with the weights, so that nobody has to guess it.
    """

    embedding_mean: Tensor
    embedding_std: Tensor

    def __init__(self, config: DiffusionPriorConfig) -> None:
        super().__init__()
        self.config = config
        width = config.transformer.width
        self.text_in = nn.Linear(config.text_width, width)
        self.text_embedding_in = nn.Linear(config.embedding_width, width)
        self.time = TimeEmbedding(width, width)
        self.noised_in = nn.Linear(config.embedding_width * (2 if config.has_guess else 1), width)
        self.query = nn.Parameter(torch.randn(width) * 0.01)
        self.positions = LearnedPositions(config.num_text_tokens + 1 + NUM_STEP_TOKENS, width)
        self.transformer = Transformer(config.transformer)
        self.out = nn.Linear(width, config.embedding_width)
        std = 1 / (PIXEL_STD * math.sqrt(config.embedding_width))  # until `set_statistics`: the paper's factor
        self.whitening = Whitening(config.embedding_width) if config.is_whitened else None
        self.register_buffer("embedding_mean", torch.zeros(config.embedding_width))
        self.register_buffer("embedding_std", torch.full((config.embedding_width,), std))

    def measure(self, z: Float[Tensor, "n e"]) -> None:
        """Store what `normalise` needs to know of the training pictures' embeddings.

        Args:
            z: many of them, as CLIP gives them.
        """
        if self.whitening is not None:
            self.whitening.fit(z)
        else:
            self.set_statistics(z.mean(dim=0), z.std(dim=0).clamp_min(SMALLEST_STD))

    @torch.no_grad()
    def set_statistics(self, mean: Float[Tensor, " e"], std: Float[Tensor, " e"]) -> None:
        """Store mean and spread of the training pictures' embeddings, number by number.

        Args:
            mean: of every number.
            std: of every number, positive.

        Raises:
            BadConfig: when a spread is not positive.
        """
        require(bool((std > 0).all()), f"a smallest std of {std.min().item()}", "positive numbers")
        self.embedding_mean.copy_(mean)
        self.embedding_std.copy_(std)

    def normalise(self, z: Float[Tensor, "b e"]) -> Float[Tensor, "b e"]:
        """Turn CLIP's embeddings into what is diffused; a new tensor, the caller's stays as it is."""
        if self.whitening is not None:
            return self.whitening(z)
        return (z - self.embedding_mean) / self.embedding_std

    def denormalise(self, z: Float[Tensor, "b e"]) -> Float[Tensor, "b e"]:
        """Turn what was denoised into CLIP's embeddings again."""
        if self.whitening is not None:
            return self.whitening.inverse(z)
        return z * self.embedding_std + self.embedding_mean

    def forward(
        self,
        z_noised: Float[Tensor, "b e"],
        t: Shaped[Tensor, " b"],
        text_embedding: Float[Tensor, "b e"],
        text_states: Float[Tensor, "b n d"],
        text_mask: Bool[Tensor, "b n"] | None = None,
        guess: Float[Tensor, "b e"] | None = None,
    ) -> Float[Tensor, "b e"]:
        """Predict the clean embedding, all tokens at once: the way to train.

        Args:
            z_noised: noised picture embedding, normalised.
            t: diffusion step of each sample, 0 to 999.
            text_embedding: z_t, as CLIP gives it.
            text_states: the caption's token states, num_text_tokens of them.
            text_mask: True where a token is real; None: all are.
            guess: E[z_i | z_t], not normalised, for a prior that takes one.

        Returns:
            x0, the clean picture embedding, normalised; `denormalise` makes it CLIP's again.
        """
        steps = self._step_tokens(z_noised, t, self._known(guess))
        tokens = torch.cat([self._text_tokens(text_embedding, text_states), steps], dim=1)
        tokens, mask = without_unused(self.positions(tokens), _pad(text_mask))
        states = self.transformer(tokens, mask=mask)
        return self.out(states[:, -1])

    @torch.no_grad()
    def condition(
        self,
        text_embedding: Float[Tensor, "b e"],
        text_states: Float[Tensor, "b n d"],
        text_mask: Bool[Tensor, "b n"] | None = None,
        guess: Float[Tensor, "b e"] | None = None,
    ) -> PriorConditioning:
        """Read a caption once, for all steps; the arguments are those of `forward`.  No gradient."""
        tokens = self.positions(self._text_tokens(text_embedding, text_states))
        cache = self.transformer.new_cache(tokens.shape[0], tokens.shape[1] + NUM_STEP_TOKENS)
        mask = _pad(text_mask)
        self.transformer(tokens, mask=None if mask is None else mask[:, :-NUM_STEP_TOKENS], cache=cache)
        return PriorConditioning(cache, mask, self._known(guess))

    @torch.no_grad()
    def step(
        self, z_noised: Float[Tensor, "b e"], t: Shaped[Tensor, " b"], conditioning: PriorConditioning
    ) -> Float[Tensor, "b e"]:
        """Predict the clean embedding of a caption already read; equals `forward`, computes three tokens.  No gradient.

        Args:
            z_noised: noised picture embedding, normalised.
            t: diffusion step of each sample, 0 to 999.
            conditioning: from `condition`, as many rows.
        """
        start = self.config.num_text_tokens + 1
        conditioning.cache.rewind(start)
        tokens = self.positions(self._step_tokens(z_noised, t, conditioning.guess), start=start)
        states = self.transformer(tokens, mask=conditioning.mask, cache=conditioning.cache)
        return self.out(states[:, -1])

    def _text_tokens(
        self, text_embedding: Float[Tensor, "b e"], text_states: Float[Tensor, "b n d"]
    ) -> Float[Tensor, "b m c"]:
        """Caption states, then z_t."""
        check_states(text_states, self.config.num_text_tokens)
        embedding = self.text_embedding_in(text_embedding * self.config.text_scale)
        return torch.cat([self.text_in(text_states), embedding[:, None]], dim=1)

    def _known(self, guess: Float[Tensor, "b e"] | None) -> Float[Tensor, "b e"] | None:
        """Normalise a guess, and refuse one too few or too many."""
        check_given("guess", guess, wanted=self.config.has_guess)
        return None if guess is None else self.normalise(guess)

    def _step_tokens(
        self, z_noised: Float[Tensor, "b e"], t: Shaped[Tensor, " b"], guess: Float[Tensor, "b e"] | None
    ) -> Float[Tensor, "b 3 c"]:
        """Diffusion step, noised embedding (with its guess beside it), query."""
        noised = self.noised_in(z_noised if guess is None else torch.cat([z_noised, guess.to(z_noised.dtype)], dim=1))
        return torch.stack(
            [self.time(t).to(noised.dtype), noised, self.query.to(noised.dtype).expand_as(noised)], dim=1
        )


def _pad(text_mask: Bool[Tensor, "b n"] | None) -> Bool[Tensor, "b m"] | None:
    """Extend a caption's mask over z_t and the step's tokens, which are always real."""
    return None if text_mask is None else F.pad(text_mask, (0, 1 + NUM_STEP_TOKENS), value=True)


class DiffusionDraws:
    """A diffusion prior as a `Prior`.

    Args:
        network: in evaluation mode.
        settings: how it was trained and is sampled.
        guess: for a network that takes one.
    """

    is_random = True
    knobs = frozenset({"steps", "guidance"})

    def __init__(self, network: DiffusionPrior, settings: StageSettings, guess: Guess | None = None) -> None:
        self.network, self.settings, self.guess = network, settings, guess
        self.schedule = settings.make_schedule()

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
        """Denoise one embedding a row; the arguments are those of `Prior.draw`."""
        settings, network = self.settings, self.network
        noise = normal_like_rows(generators, (network.config.embedding_width,), said.pooled.device)
        denoise = GuidedDenoise(
            network.step,
            {"conditioning": self._read(said)},
            {"conditioning": self._read(empty)},
            schedule=self.schedule,
            prediction=settings.prediction,
            scale=settings.guidance if guidance is None else guidance,
            clip=settings.clip_range,
        )
        options = SamplerOptions(variance=settings.variance, noise_power=tuple(settings.noise_power) or None)
        drawn = sample(
            denoise,
            noise,
            settings.grid(self.schedule, steps),
            schedule=self.schedule,
            sampler=settings.sampler,
            options=options,
            generators=generators,
        )
        return network.denormalise(last_state(drawn).x_t)

    def _read(self, said: Said) -> PriorConditioning:
        guess = None if self.guess is None else self.guess(said.pooled)
        return self.network.condition(said.pooled, said.states, said.mask, guess)


PRIOR_PRESETS: Mapping[str, DiffusionPriorConfig] = MappingProxyType(
    {
        "emoji": DiffusionPriorConfig(
            embedding_width=256,
            text_width=256,
            num_text_tokens=32,
            transformer=TransformerConfig(width=256, depth=6, heads=4, is_causal=True),
            has_guess=True,
            is_whitened=True,
            text_scale=16.0,
        ),
        "karlo": DiffusionPriorConfig(  # OpenAI CLIP L/14 in, raw embeddings normalised by stored statistics
            embedding_width=768,
            text_width=768,
            num_text_tokens=77,
            transformer=TransformerConfig(width=2048, depth=20, heads=32, is_causal=True),
        ),
        "paper": DiffusionPriorConfig(  # context 256 in all; the paper leaves the share of the caption open
            embedding_width=1024,
            text_width=1024,
            num_text_tokens=252,
            transformer=TransformerConfig(width=2048, depth=24, heads=32, is_causal=True),
            text_scale=32.0,
        ),
    }
)
