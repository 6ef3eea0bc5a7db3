"""How DALL·E 2's prior is trained, and the guess and the sketch; the decoder is trained in `decoder_objective`.

Prior: plain squared error of the clean embedding, steps drawn evenly, the caption dropped for 10 % of the samples so
that guidance has something to push away from.  Only the caption is dropped; the noised embedding always stays, which
is what one replica got wrong for a year (DALLE2-pytorch #285).

Source: unCLIP, arXiv:2204.06125, section 2.2 and appendix C.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from opendalle.base.axes import Embeddings, Grid, Mask, States, Tokens
from opendalle.base.errors import require
from opendalle.base.protocols import Losses
from opendalle.dalle2.means import Guess, Sketch
from opendalle.dalle2.priors.diffusion import DiffusionPrior
from opendalle.diffusion.losses import simple_loss
from opendalle.diffusion.process import q_sample
from opendalle.diffusion.schedules import Schedule
from opendalle.nn.whitening import Whitening
from opendalle.training.chance import draw_share, draw_steps


@runtime_checkable
class CaptionReader(Protocol):
    """CLIP's text tower, as far as these objectives know it."""

    def __call__(self, ids: Tokens, mask: Mask) -> tuple[Embeddings, States]:
        """Return pooled embeddings and token states, without gradient."""
        ...


WordReader = Callable[[Tokens], States]  # CLIP's token vectors, as far as these objectives know them


@dataclass(frozen=True, kw_only=True)
class PairBatch:
    """Pictures as CLIP and the codec see them, with their captions."""

    z: Embeddings  # CLIP's picture embeddings
    ids: Tokens  # captions, packed to the context
    mask: Mask
    grid: Grid | None = None  # the codec's grids; the prior does not need them

    def __len__(self) -> int:
        return len(self.z)


@dataclass(frozen=True, kw_only=True)
class PriorLossConfig:
    """How the prior is trained."""

    caption_drop: float = 0.1  # share of samples that see the empty caption

    def __post_init__(self) -> None:
        require(0 <= self.caption_drop < 1, f"caption_drop is {self.caption_drop}", "0 <= share < 1")


class PriorObjective:
    """Meeting point 2 for the prior.

    Args:
        prior: the network, trained in place.
        schedule: noise schedule over its steps.
        read: frozen text tower.
        empty: ids and mask of the empty caption, packed to the context: one row each.
        config: shares.
        guess: frozen, for a prior that takes its embeddings.
    """

    def __init__(
        self,
        prior: DiffusionPrior,
        schedule: Schedule,
        read: CaptionReader,
        empty: tuple[Int[Tensor, " n"], Bool[Tensor, " n"]],
        config: PriorLossConfig,
        guess: Guess | None = None,
    ) -> None:
        self.prior, self.schedule, self.read, self.empty, self.config = prior, schedule, read, empty, config
        self.guess = guess

    @property
    def groups(self) -> Mapping[str, nn.Module]:
        """The prior."""
        return {"prior": self.prior}

    def __call__(self, batch: PairBatch, rng: Generator) -> Losses:
        """Squared error of the clean embedding."""
        dropped = draw_share(self.config.caption_drop, len(batch), rng)
        ids, mask = without_captions(batch, dropped, self.empty)
        pooled, states = self.read(ids, mask)
        x0 = self.prior.normalise(batch.z)
        t, eps = draw_steps(self.schedule, x0, rng)
        with torch.no_grad():
            guess = None if self.guess is None else self.guess(pooled)
        predicted = self.prior(q_sample(x0, t, eps, self.schedule), t, pooled, states, mask, guess)
        loss = simple_loss("x0", predicted, x0, eps, t, self.schedule).mean()
        with torch.no_grad():
            found = self.prior.denormalise(predicted)
            cosine = torch.cosine_similarity(found, batch.z, dim=-1).mean()
        return Losses(total={"prior": loss}, watch={"mse": loss.item(), "cosine": cosine.item()})


class GuessObjective:
    """Meeting point 2 for the guess: plain regression of the picture embedding, all its principal axes alike.

    Args:
        guess: the network, trained in place; its whitenings have been fitted.
        read: frozen text tower.
        empty: ids and mask of the empty caption, packed to the context: one row each.
        config: shares, as of the prior that will take the guesses.
        noise: on z_t along every principal axis, in units of its spread.
    """

    def __init__(
        self,
        guess: Guess,
        read: CaptionReader,
        empty: tuple[Int[Tensor, " n"], Bool[Tensor, " n"]],
        config: PriorLossConfig,
        noise: float = 0.0,
    ) -> None:
        require(noise >= 0, f"noise is {noise}", "at least 0")
        self.guess, self.read, self.empty, self.config, self.noise = guess, read, empty, config, noise

    @property
    def groups(self) -> Mapping[str, nn.Module]:
        """The guess."""
        return {"guess": self.guess}

    def __call__(self, batch: PairBatch, rng: Generator) -> Losses:
        """Squared error of the whitened picture embedding."""
        ids, mask = without_captions(batch, draw_share(self.config.caption_drop, len(batch), rng), self.empty)
        pooled, _ = self.read(*without_common_padding(ids, mask))
        z_t = disturbed(pooled, self.noise, self.guess.mean.whitening, rng)
        loss = (self.guess.mean(z_t) - self.guess.whitening(batch.z)).square().mean()
        return Losses(total={"guess": loss}, watch={"mse": loss.item()})


class SketchObjective:
    """Meeting point 2 for the sketch: plain regression of the grid.

    Args:
        sketch: the network, trained in place; its whitening has been fitted.
        words: frozen token vectors.
        empty: ids and mask of the empty caption, packed to the context: one row each.
        embedding_noise: noise on z along every principal axis, in units of its spread.
        caption_drop: share of samples that see the empty caption: their grid is the mean of z alone.
        doubt_share: of samples whose embedding is spoiled as a guess from the caption would be, more or less of it.
    """

    def __init__(
        self,
        sketch: Sketch,
        words: WordReader,
        empty: tuple[Int[Tensor, " n"], Bool[Tensor, " n"]],
        embedding_noise: float = 0.0,
        caption_drop: float = 0.1,
        doubt_share: float = 0.0,
    ) -> None:
        require(embedding_noise >= 0, f"embedding_noise is {embedding_noise}", "at least 0")
        require(0 <= caption_drop < 1, f"caption_drop is {caption_drop}", "0 <= share < 1")
        require(0 <= doubt_share <= 1, f"doubt_share is {doubt_share}", "a share from 0 to 1")
        self.sketch, self.words, self.empty = sketch, words, empty
        self.embedding_noise, self.caption_drop, self.doubt_share = embedding_noise, caption_drop, doubt_share

    @property
    def groups(self) -> Mapping[str, nn.Module]:
        """The sketch."""
        return {"sketch": self.sketch}

    def __call__(self, batch: PairBatch, rng: Generator) -> Losses:
        """Squared error of the grid."""
        assert batch.grid is not None, "the sketch trains on grids"
        ids, mask = without_captions(batch, draw_share(self.caption_drop, len(batch), rng), self.empty)
        ids, mask = without_common_padding(ids, mask)
        doubt = draw_doubt(self.doubt_share, batch.z, rng)
        z = doubted(batch.z, self.embedding_noise, doubt, self.sketch, rng)
        loss = (self.sketch(z, self.words(ids), mask, doubt) - batch.grid).square().mean()
        return Losses(total={"sketch": loss}, watch={"mse": loss.item()})


def disturbed(
    z: Embeddings, noise: float | Float[Tensor, "b e"], whitening: Whitening | None, rng: Generator
) -> Embeddings:
    """Add noise to embeddings: what learns from them then forgives the prior's small errors.

    Args:
        z: unit vectors.
        noise: in units of their spread, number by number, or along every principal axis; the number 0 changes nothing.
        whitening: gives the axes; None: the numbers as they are.
        rng: all chance.
    """
    if isinstance(noise, float | int) and noise == 0:
        return z
    drawn = noise * torch.randn(z.shape, generator=rng).to(z)
    if whitening is not None:
        return whitening.inverse(whitening(z) + drawn)
    return z + z.std(dim=0, keepdim=True) * drawn


def draw_doubt(share: float, z: Embeddings, rng: Generator) -> Float[Tensor, " b"]:
    """Draw how far each embedding is to be spoiled, evenly from 0 to 1 for a share of them, 0 for the others.

    Args:
        share: of those.
        z: embeddings, for count and device.
        rng: all chance.
    """
    drawn = torch.rand(len(z), generator=rng) * draw_share(share, len(z), rng)
    return drawn.to(z)


def doubted(z: Embeddings, noise: float, doubt: Float[Tensor, " b"], sketch: Sketch, rng: Generator) -> Embeddings:
    """Add noise to embeddings along every principal axis, as far as a guess of them would be off.

    Args:
        z: unit vectors.
        noise: that all of them get, in units of their spread.
        doubt: 0 to 1; 1 is a guess's error.
        sketch: knows the axes, and the error along each.
        rng: all chance.
    """
    spread = (noise**2 + (doubt[:, None] * sketch.error).square()).sqrt()
    return disturbed(z, spread, sketch.mean.whitening, rng)


def without_captions(
    batch: PairBatch, dropped: Bool[Tensor, " b"], empty: tuple[Int[Tensor, " n"], Bool[Tensor, " n"]]
) -> tuple[Tokens, Mask]:
    """Put the empty caption in place of the dropped ones; the batch itself stays as it is.

    Args:
        batch: captions.
        dropped: which ones.
        empty: ids and mask of the empty caption.
    """
    where = dropped[:, None].to(batch.ids.device)
    ids, mask = (one.to(batch.ids.device) for one in empty)
    return torch.where(where, ids, batch.ids), torch.where(where, mask, batch.mask)


def without_common_padding(ids: Tokens, mask: Mask) -> tuple[Int[Tensor, "b m"], Bool[Tensor, "b m"]]:
    """Cut captions to the longest of them: nothing sees padding, which comes last, yet its keys cost time.

    Args:
        ids: packed captions, padding last.
        mask: True where a token is real.
    """
    longest = int(mask.sum(dim=1).amax())
    return ids[:, :longest], mask[:, :longest]
