"""How the denoiser of DALL·E 3 is trained: the error of its prediction in a noised latent grid, told the caption.

A caption is hidden now and then, so that guidance has something to push away from.  Reading a long caption costs as
much as denoising a small grid: so a picture may be noised several times a visit, at steps far apart, and is read once.

Source: latent diffusion, arXiv:2112.10752, eq. 3; hiding captions: arXiv:2207.12598, algorithm 1.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool
from torch import Generator, Tensor, nn

from opendalle.base.axes import Grid, Mask, Tokens
from opendalle.base.errors import require
from opendalle.base.protocols import Losses
from opendalle.dalle3.denoiser import Denoiser
from opendalle.dalle3.text_encoder import TextStates
from opendalle.dalle3.text_keys import hidden, without_common_padding
from opendalle.diffusion.losses import hybrid_loss, min_snr_weight, simple_loss
from opendalle.diffusion.predictions import Prediction, check_prediction
from opendalle.diffusion.process import q_sample
from opendalle.diffusion.schedules import Schedule
from opendalle.training.chance import draw_share, draw_steps

ReadTokens = Callable[[Tokens, Mask], TextStates]  # the frozen text encoder, as far as this objective knows it


@dataclass(frozen=True, kw_only=True)
class SpelledCaptions:
    """Captions as a tokenizer packs them."""

    ids: Tokens
    mask: Mask  # True where a token is real; every row has at least its end


@dataclass(frozen=True, kw_only=True)
class CaptionedGrids:
    """Pictures as a codec sees them, of one height and width, with their captions."""

    grid: Grid
    captions: SpelledCaptions | TextStates  # yet to be read, or read before and kept
    shares: Mapping[str, float] = field(default_factory=dict)  # what the batch is made of, to be watched

    def __len__(self) -> int:
        return len(self.grid)


@dataclass(frozen=True, kw_only=True)
class DenoiserLossConfig:
    """How the denoiser is trained."""

    prediction: Prediction = "v"  # what the network predicts
    caption_drop: float = 0.1  # share of pictures that see the empty caption
    copies: int = 1  # noised copies of each picture, each at another step, that share what was read of its caption
    min_snr: float | None = None  # cap of the signal-to-noise weight; None: the simple loss, unweighted

    def __post_init__(self) -> None:
        require(0 <= self.caption_drop < 1, f"caption_drop is {self.caption_drop}", "0 <= share < 1")
        require(self.copies >= 1, f"copies is {self.copies}", "at least 1")
        require(self.min_snr is None or self.min_snr > 0, f"min_snr is {self.min_snr}", "a positive cap, or None")


class DenoiserObjective:
    """Meeting point 2 for the denoiser.

    Args:
        denoiser: the network, trained in place; when it learns its variance the loss is the hybrid one.
        schedule: noise schedule over its steps.
        read: frozen text encoder, for captions that are yet to be read.
        empty: the empty caption as it was read, one row.
        config: prediction, shares, weighting.

    Raises:
        BadConfig: when the prediction does not exist, or min-SNR meets a learned variance.
    """

    def __init__(
        self, denoiser: Denoiser, schedule: Schedule, read: ReadTokens, empty: TextStates, config: DenoiserLossConfig
    ) -> None:
        check_prediction(config.prediction, schedule)
        learns = denoiser.config.learns_variance
        require(not learns or config.min_snr is None, "min_snr with a learned variance", "one of the two")
        self.denoiser, self.schedule, self.read, self.config = denoiser, schedule, read, config
        self.empty = without_common_padding(empty)

    @property
    def groups(self) -> Mapping[str, nn.Module]:
        """The denoiser."""
        return {"denoiser": self.denoiser}

    def __call__(self, batch: CaptionedGrids, rng: Generator) -> Losses:
        """Error of the prediction, with the variational bound when the variance is learned."""
        config = self.config
        dropped = draw_share(config.caption_drop, len(batch), rng)
        keys = self.denoiser.read(self._said(batch.captions, dropped))
        x0 = batch.grid.repeat_interleave(config.copies, dim=0)
        t, eps = draw_steps(self.schedule, x0, rng, apart=config.copies)
        x_t = q_sample(x0, t, eps, self.schedule)
        output = self.denoiser(x_t, t, keys)
        if self.denoiser.config.learns_variance:
            hybrid = hybrid_loss(config.prediction, output, x0, eps, x_t, t, self.schedule)
            loss, simple = hybrid.total.mean(), hybrid.simple
        else:
            simple = simple_loss(config.prediction, output, x0, eps, t, self.schedule)
            loss = simple.mean()
            if config.min_snr is not None:
                loss = (simple * min_snr_weight(config.prediction, t, self.schedule, config.min_snr)).mean()
        watch = {"simple": simple.mean().item(), "hidden": dropped.float().mean().item(), **batch.shares}
        return Losses(total={"denoiser": loss}, watch=watch)

    @torch.no_grad()
    def _said(self, captions: SpelledCaptions | TextStates, dropped: Bool[Tensor, " b"]) -> TextStates:
        """Read what is yet to be read, hide what is to be hidden, and leave no common padding."""
        if isinstance(captions, SpelledCaptions):
            longest = int(captions.mask.sum(dim=1).amax())
            captions = self.read(captions.ids[:, :longest], captions.mask[:, :longest])
        return without_common_padding(hidden(captions, dropped.to(captions.mask.device), self.empty))
