"""The five meeting points: all traffic between rooms goes through these shapes.

1. `Denoise`     network (with prediction kind, conditioning, guidance wrapped in) -> sampler; twin: `NextLogits`
2. `Objective`   network -> training loop
3. `Pipeline`    generation -> doors and study
4. a key map     `map(state_dict) -> state_dict`, foreign weights to ours and back (a plain function)
5. probes        optional protocols of a pipeline, for study
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from opendalle.base.jobs import Hooks
from opendalle.base.records import Sample


@dataclass(frozen=True)
class Denoised:
    """What a denoiser says of x_t: the clean data and the noise it believes in, and its variance if it learned one."""

    x0: Float[Tensor, "b *d"]
    eps: Float[Tensor, "b *d"]
    log_variance: Float[Tensor, "b *d"] | None = None  # of q(x_{t-1} | x_t) as learned; None: the schedule's


@runtime_checkable
class Denoise(Protocol):
    """Meeting point 1: everything a diffusion sampler may know of a network."""

    def __call__(self, x_t: Float[Tensor, "b *d"], t: Int[Tensor, " b"]) -> Denoised:
        """Denoise x_t at step t of the training schedule; t grows with noise."""
        ...


@runtime_checkable
class NextLogits(Protocol):
    """The autoregressive twin of `Denoise`."""

    def __call__(self, tokens: Int[Tensor, "b n"], cache: Any) -> Float[Tensor, "b v"]:
        """Return logits of the token that follows."""
        ...


@dataclass(frozen=True, kw_only=True)
class Losses:
    """One scalar per named parameter group, to be minimised, and numbers that are only watched."""

    total: Mapping[str, Float[Tensor, ""]]  # group -> scalar with a graph; the loop calls backward on their sum
    watch: Mapping[str, float] = field(default_factory=dict)


@runtime_checkable
class Objective(Protocol):
    """Meeting point 2: what a training loop may know of a model.

    Two optional hooks, found by name: `backward(batch, rng) -> Losses` when the objective runs its own backward
    passes (gradient caching), `after_step()` when a teacher or a codebook follows the weights.
    """

    @property
    def groups(self) -> Mapping[str, nn.Module]:
        """Trainable modules by group; each group has an optimiser of its own."""
        ...

    def __call__(self, batch: Any, rng: Generator) -> Losses:
        """Return the losses of one micro-batch; all chance comes from rng."""
        ...


@runtime_checkable
class Pipeline(Protocol):
    """Meeting point 3: a generation, seen from the doors.  Stop iterating to cancel."""

    def generate(self, prompt: str = "", *, hooks: Hooks | None = None, **asked: Any) -> Iterator[Sample]:
        """Draw; keyword arguments are the fields of `Request`.  Previews come only when asked for."""
        ...


@runtime_checkable
class TextEncoder(Protocol):
    """Probe: caption -> joint embedding."""

    def encode_text(self, captions: Sequence[str]) -> Float[Tensor, "b e"]:
        """Unit-length text embeddings."""
        ...


@runtime_checkable
class PictureEncoder(Protocol):
    """Probe: picture -> joint embedding."""

    def embed(self, pictures: Float[Tensor, "b c h w"]) -> Float[Tensor, "b e"]:
        """Unit-length picture embeddings; pictures in [-1, 1]."""
        ...


@runtime_checkable
class PriorProbe(Protocol):
    """Probe: caption -> picture embedding, by any of the priors that a model has."""

    @property
    def priors(self) -> Sequence[str]:
        """Their names."""
        ...

    def prior(self, captions: Sequence[str], seeds: Sequence[int], **asked: Any) -> Float[Tensor, "b e"] | None:
        """Draw one embedding a caption, from one seed each; None: the prior gives none.  `asked` are Request fields."""
        ...


@runtime_checkable
class WrittenCaption(Protocol):
    """What a captioner says of a picture."""

    @property
    def text(self) -> str:
        """The caption."""
        ...

    @property
    def log_likelihood(self) -> float:
        """Of the caption after the picture, in nats."""
        ...


@runtime_checkable
class WritesCaptions(Protocol):
    """Probe: picture -> caption."""

    @property
    def picture_size(self) -> int:
        """Side of the pictures it looks at, in pixels."""
        ...

    @property
    def picture_channels(self) -> int:
        """3: RGB, laid on white; 4: premultiplied RGBA."""
        ...

    def caption_many(
        self,
        pictures: Float[Tensor, "b c h w"],
        *,
        kind: str = "short",
        language: str = "en",
        decoding: Any = None,
        seeds: Sequence[int] | None = None,
    ) -> Sequence[WrittenCaption]:
        """Write one caption a picture; pictures in [-1, 1], one seed each, decoding None: its best."""
        ...


@dataclass(frozen=True, kw_only=True)
class PairLikelihood:
    """How likely pairs of caption and picture are, in nats."""

    text: Float[Tensor, " b"]  # the caption by itself
    picture: Float[Tensor, " b"]  # the picture after it


@runtime_checkable
class LikelihoodProbe(Protocol):
    """Probe: how likely a model finds captioned pictures that it did not draw."""

    def log_likelihood(self, captions: Sequence[str], pictures: Any) -> PairLikelihood:
        """Say it of pictures (of any size and shape, as a sequence), one caption each, or of one with many captions."""
        ...


@runtime_checkable
class DenoiseLossProbe(Protocol):
    """Probe: how well a model denoises captioned pictures that it did not draw."""

    def denoise_loss(
        self, captions: Sequence[str], pictures: Any, seeds: Sequence[int] | None = None
    ) -> Float[Tensor, " b"]:
        """Return the mean squared error of the noise it finds, one caption and one seed a picture, guidance off."""
        ...


@runtime_checkable
class ScoredPipeline(Protocol):
    """Probe: candidates, each with all that the model itself could choose by."""

    def generate_scored(self, prompts: Sequence[str], seeds: Sequence[int], **asked: Any) -> Iterator[Sample]:
        """Draw one picture of each caption, none of them chosen, with `Sample.scores`.  `asked` are Request fields."""
        ...
