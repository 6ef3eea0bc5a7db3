"""How DALL·E 2's decoder is trained: on grids, told of each picture as much as chance leaves.

The picture embedding is dropped for 10 % and the caption for 50 % of the samples, independently (the paper's figure 8
speaks of 5 %, which is both at once).

Source: unCLIP, arXiv:2204.06125, section 2.1 and appendix C.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Generator, Tensor, nn

from opendalle.base.errors import require
from opendalle.base.protocols import Losses
from opendalle.dalle2.decoder import Decoder
from opendalle.dalle2.known import draw_known, known_channels
from opendalle.dalle2.means import Sketch
from opendalle.dalle2.objectives import (
    CaptionReader,
    PairBatch,
    WordReader,
    disturbed,
    doubted,
    draw_doubt,
    draw_steps,
    without_captions,
    without_common_padding,
)
from opendalle.diffusion.losses import hybrid_loss, min_snr_weight, simple_loss
from opendalle.diffusion.predictions import Prediction, check_prediction
from opendalle.diffusion.process import q_sample
from opendalle.diffusion.schedules import Schedule
from opendalle.training.chance import draw_share


@dataclass(frozen=True, kw_only=True)
class DecoderLossConfig:
    """How the decoder is trained."""

    prediction: Prediction = "eps"  # what the network predicts
    embedding_drop: float = 0.1  # share of samples that see the null embedding; 1: a decoder of captions alone
    caption_drop: float = 0.5  # share of samples that see the empty caption; independent of the other
    min_snr: float | None = None  # cap of the signal-to-noise weight; None: the simple loss, unweighted
    embedding_noise: float = 0.0  # noise on z in units of its own spread, along principal axes where there is a sketch
    doubt_share: float = 0.0  # of samples whose embedding is spoiled as a guess would be; the sketch is told
    known_share: float = 0.0  # of samples of which something is known, for a decoder that can be told

    def __post_init__(self) -> None:
        require(0 <= self.caption_drop < 1, f"caption_drop is {self.caption_drop}", "0 <= share < 1")
        require(self.min_snr is None or self.min_snr > 0, f"min_snr is {self.min_snr}", "a positive cap, or None")
        require(self.embedding_noise >= 0, f"embedding_noise is {self.embedding_noise}", "at least 0")
        for name in ("embedding_drop", "doubt_share", "known_share"):
            require(0 <= getattr(self, name) <= 1, f"{name} is {getattr(self, name)}", "a share from 0 to 1")


@dataclass(frozen=True)
class Told:
    """What a decoder is told of a batch."""

    given: dict[str, Any]  # keywords of `Decoder.condition`
    is_empty: Bool[Tensor, " b"]  # whose caption is the empty one


class DecoderInputs:
    """Draws what a decoder is told of a batch: what is dropped, what is spoiled, what is known.

    Args:
        read: frozen text tower.
        empty: ids and mask of the empty caption, packed to the context: one row each.
        config: shares.
        sketch: frozen, for a decoder that takes its grids.
        words: frozen token vectors, for the sketch.
    """

    def __init__(
        self,
        read: CaptionReader,
        empty: tuple[Int[Tensor, " n"], Bool[Tensor, " n"]],
        config: DecoderLossConfig,
        sketch: Sketch | None = None,
        words: WordReader | None = None,
    ) -> None:
        self.read, self.empty, self.config, self.sketch, self.words = read, empty, config, sketch, words

    def __call__(self, batch: PairBatch, rng: Generator, *, has_known: bool) -> Told:
        """Draw it; `has_known` is whether the decoder can be told what is known."""
        assert batch.grid is not None, "the decoder trains on grids"
        config, x0 = self.config, batch.grid
        has_embedding = ~draw_share(config.embedding_drop, len(batch), rng).to(x0.device)
        dropped = draw_share(config.caption_drop, len(batch), rng)
        ids, mask = without_common_padding(*without_captions(batch, dropped, self.empty))
        pooled, states = self.read(ids, mask)
        sketch = None
        if self.sketch is None:
            z = disturbed(batch.z, config.embedding_noise, None, rng)
        else:
            doubt = draw_doubt(config.doubt_share, batch.z, rng)
            z = doubted(batch.z, config.embedding_noise, doubt, self.sketch, rng)
            with torch.no_grad():
                sketch = self.sketch(z, None if self.words is None else self.words(ids), mask, doubt)
        known = known_channels(x0, draw_known(config.known_share, x0, rng)) if has_known else None
        given = {"z": z, "text_embedding": pooled, "text_states": states, "text_mask": mask}
        return Told({**given, "has_embedding": has_embedding, "sketch": sketch, "known": known}, dropped.to(x0.device))


class DecoderObjective:
    """Meeting point 2 for the decoder.

    Args:
        decoder: the network, trained in place; when it learns its variance the loss is the hybrid one.
        schedule: noise schedule over its steps.
        read: frozen text tower.
        empty: ids and mask of the empty caption, packed to the context: one row each.
        config: prediction, shares, weighting.
        sketch: frozen, for a decoder that takes its grids.
        words: frozen token vectors, for the sketch.

    Raises:
        BadConfig: when the prediction does not exist, or min-SNR meets a learned variance.
    """

    def __init__(
        self,
        decoder: Decoder,
        schedule: Schedule,
        read: CaptionReader,
        empty: tuple[Int[Tensor, " n"], Bool[Tensor, " n"]],
        config: DecoderLossConfig,
        sketch: Sketch | None = None,
        words: WordReader | None = None,
    ) -> None:
        check_prediction(config.prediction, schedule)
        learns = decoder.config.learns_variance
        require(not learns or config.min_snr is None, "min_snr with a learned variance", "one of the two")
        self.decoder, self.schedule, self.config = decoder, schedule, config
        self.inputs = DecoderInputs(read, empty, config, sketch, words)

    @property
    def groups(self) -> Mapping[str, nn.Module]:
        """The decoder."""
        return {"decoder": self.decoder}

    def __call__(self, batch: PairBatch, rng: Generator) -> Losses:
        """Error of the prediction, with the variational bound when the variance is learned."""
        assert batch.grid is not None, "the decoder trains on grids"
        config, x0 = self.config, batch.grid
        told = self.inputs(batch, rng, has_known=self.decoder.config.has_known)
        conditioning = self.decoder.condition(**told.given)
        t, eps = draw_steps(self.schedule, x0, rng)
        x_t = q_sample(x0, t, eps, self.schedule)
        output = self.decoder(x_t, t, conditioning)
        if self.decoder.config.learns_variance:
            hybrid = hybrid_loss(config.prediction, output, x0, eps, x_t, t, self.schedule)
            loss, simple = hybrid.total.mean(), hybrid.simple
        else:
            simple = simple_loss(config.prediction, output, x0, eps, t, self.schedule)
            loss = simple.mean()
            if config.min_snr is not None:
                loss = (simple * min_snr_weight(config.prediction, t, self.schedule, config.min_snr)).mean()
        return Losses(total={"decoder": loss}, watch={"simple": simple.mean().item()})
