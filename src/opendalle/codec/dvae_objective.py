"""How a discrete autoencoder is trained: the bound on the pictures' likelihood, with words relaxed into mixtures.

    reconstruction   -ln p(picture | words), logit-Laplace on (0, 1), nats a channel of a pixel
    KL               from what the encoder says of each cell to "any word", summed over cells
    loss             reconstruction + beta * KL / (channels * rows * columns)

The divisor is the point that replicas missed: the paper divides the *whole* loss by the numbers of a picture, so a KL
of one nat a cell weighs beta / 192, not beta.  Temperature and beta follow cosines over the first part of a run.

Source: Ramesh et al., arXiv:2102.12092, section 2.1, appendix A.2 (schedules) and A.3 (likelihood, eq. 2); relaxation
of Jang et al., arXiv:1611.01144, eq. 2.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from opendalle.base.axes import Pictures
from opendalle.base.errors import require
from opendalle.base.protocols import Losses
from opendalle.codec.codebook import CodebookUse, RangeWatch, Warnings, collapsed
from opendalle.codec.dvae import DiscreteVAE, squeeze, unsqueeze
from opendalle.codec.likeness import PictureBatch, psnr

Warn = Callable[[str], None]
COMPARED = 4  # pictures of a batch that are drawn from hard words too, to see the gap
REMEMBERED = 256  # pictures whose words the running count remembers
ADVICE = (
    "Raise the weight of the KL term (it keeps words in use), lower the learning rate, or let the temperature fall "
    "more slowly."
)


@dataclass(frozen=True, kw_only=True)
class DiscreteVAELossConfig:
    """Weights and schedules; the defaults are the paper's, its updates told as shares of its 3 million."""

    kl: float = 6.6  # beta, at its end
    kl_share: float = 5_000 / 3_000_000  # part of the run over which beta grows from 0
    temperature: float = 1 / 16  # of the relaxation, at its end
    temperature_share: float = 150_000 / 3_000_000  # part of the run over which it falls from 1

    def __post_init__(self) -> None:
        require(self.kl >= 0, f"kl is {self.kl}", "at least 0")
        require(0 < self.temperature <= 1, f"temperature is {self.temperature}", "above 0, at most 1")
        for name in ("kl_share", "temperature_share"):
            require(0 <= getattr(self, name) <= 1, f"{name} is {getattr(self, name)}", "a share from 0 to 1")


class DiscreteVAEObjective:
    """Meeting point 2 for a discrete autoencoder.

    Args:
        codec: trained in place.
        config: weights and schedules.
        warn: told, once each, of a collapsed codebook and of pictures in a wrong range.
    """

    def __init__(self, codec: DiscreteVAE, config: DiscreteVAELossConfig, warn: Warn | None = None) -> None:
        self.codec, self.config = codec, config
        self.share_done = 0.0
        cells = (codec.picture_size // codec.factor) ** 2
        self.use = CodebookUse(codec.vocabulary, REMEMBERED * cells)
        self._warnings, self._range = Warnings(warn), RangeWatch()

    @property
    def groups(self) -> Mapping[str, nn.Module]:
        """The autoencoder."""
        return {"codec": self.codec}

    def before_step(self, pictures: int, total: int) -> None:
        """Follow the run, for the schedules."""
        self.share_done = pictures / total

    def remember(self) -> dict[str, Tensor]:
        """Return what is not in the weights: the count of words."""
        return {"counts": self.use.counts}

    def recall(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `remember` gave."""
        self.use.counts = state["counts"].double()

    @property
    def temperature(self) -> float:
        """Of the relaxation, now."""
        return cosine(1.0, self.config.temperature, self.share_done, self.config.temperature_share)

    @property
    def kl_weight(self) -> float:
        """Beta, now."""
        return cosine(0.0, self.config.kl, self.share_done, self.config.kl_share)

    def __call__(self, batch: PictureBatch, rng: Generator) -> Losses:
        """Return the bound and, to watch, what it consists of, the codebook's use and the gap to hard words."""
        codec, pictures, margin = self.codec, batch.pictures, self.codec.config.squeeze
        logits = codec.logits(pictures)
        words = relaxed(logits, self.temperature, rng)
        mu, log_b = codec.decoder.from_mixture(words).chunk(2, dim=1)
        reconstruction = -log_likelihood(squeeze(pictures, margin), mu, log_b).mean()
        kl = kl_from_uniform(logits)
        loss = reconstruction + self.kl_weight * kl.sum(dim=(1, 2)).mean() / pictures[0].numel()
        watch = {"reconstruction": reconstruction.item(), "kl": kl.mean().item(), "temperature": self.temperature}
        return Losses(total={"codec": loss}, watch=watch | self._look(pictures, logits, unsqueeze(mu, margin)))

    @torch.no_grad()
    def _look(self, pictures: Pictures, logits: Tensor, drawn: Pictures) -> dict[str, float]:
        """Count words, compare a few pictures drawn from mixtures and from hard words, and warn."""
        tokens = logits.argmax(dim=1)
        self.use.see(tokens)
        few = slice(COMPARED)
        soft, hard = psnr(drawn[few], pictures[few]), psnr(self.codec.decode_tokens(tokens[few]), pictures[few])
        self._warnings.tell(self._range.look(pictures))
        perplexity, used = self.use.perplexity, self.use.share_used
        if self.share_done > self.config.temperature_share / 2 and self.use.is_full:
            self._warnings.tell(collapsed(perplexity, self.codec.vocabulary, ADVICE))
        return {"perplexity": perplexity, "words_used": used, "psnr_soft": soft, "psnr_hard": hard, "gap": soft - hard}


def cosine(first: float, last: float, share_done: float, share: float) -> float:
    """Return a value that goes from first to last along half a cosine, then stays.

    Args:
        first: at the beginning.
        last: at the end.
        share_done: of the run, 0 to 1.
        share: part of the run that the way takes; 0: it is at its end at once.
    """
    way = 1.0 if share <= 0 else min(1.0, share_done / share)
    return last + (first - last) * (1 + math.cos(math.pi * way)) / 2


def relaxed(logits: Float[Tensor, "b v h w"], temperature: float, rng: Generator) -> Float[Tensor, "b v h w"]:
    """Draw a mixture of words for every cell; the cooler, the nearer to a single word drawn from the softmax.

    Args:
        logits: of every word.
        temperature: above 0.
        rng: source of the chance.

    Source: arXiv:1611.01144, eq. 2.
    """
    even = torch.rand(logits.shape, generator=rng).clamp_(1e-10, 1 - 1e-7).to(logits)
    return ((logits - (-even.log()).log()) / temperature).softmax(dim=1)


def log_likelihood(x: Float[Tensor, "b c h w"], mu: Tensor, log_b: Tensor) -> Float[Tensor, "b c h w"]:
    """Return the log of the logit-Laplace density: Laplace after the logit, so that it lives on (0, 1).

    Args:
        x: squeezed pixels, strictly between 0 and 1.
        mu: middle, on the logit's scale.
        log_b: log of the width.

    Source: arXiv:2102.12092, appendix A.3, eq. 2.
    """
    return -math.log(2) - log_b - x.log() - (-x).log1p() - (x.logit() - mu).abs() * (-log_b).exp()


def kl_from_uniform(logits: Float[Tensor, "b v h w"]) -> Float[Tensor, "b h w"]:
    """Return the divergence of every cell's words from an even choice, in nats; the temperature has no part in it.

    Args:
        logits: of every word.
    """
    log_share = F.log_softmax(logits, dim=1)
    return (log_share.exp() * log_share).sum(dim=1) + math.log(logits.shape[1])
