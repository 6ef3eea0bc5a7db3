"""How the priors beside the diffusion prior are trained; the linear one and the shift are fitted, not trained.

Source: unCLIP, arXiv:2204.06125, section 2.2; ECLIPSE, arXiv:2312.04655.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from opendalle.base.axes import Embeddings
from opendalle.base.errors import require
from opendalle.base.protocols import Losses
from opendalle.dalle2.objectives import CaptionReader, PairBatch, PriorLossConfig, without_captions
from opendalle.dalle2.priors.autoregressive import AutoregressivePrior
from opendalle.dalle2.priors.projection import ProjectionPrior
from opendalle.training.chance import draw_share

SAME_CAPTION = 1 - 1e-5  # cosine from which two captions of a batch count as one


class AutoregressiveObjective:
    """Meeting point 2 for the autoregressive prior: cross-entropy of every code, given those before it.

    Args:
        prior: the network, trained in place; its codes have been fitted.
        read: frozen text tower.
        empty: ids and mask of the empty caption, packed to the context: one row each.
        config: shares.
    """

    def __init__(
        self,
        prior: AutoregressivePrior,
        read: CaptionReader,
        empty: tuple[Int[Tensor, " n"], Bool[Tensor, " n"]],
        config: PriorLossConfig,
    ) -> None:
        self.prior, self.read, self.empty, self.config = prior, read, empty, config

    @property
    def groups(self) -> Mapping[str, nn.Module]:
        """The prior."""
        return {"ar": self.prior}

    def __call__(self, batch: PairBatch, rng: Generator) -> Losses:
        """Cross-entropy of the codes, in nats a code."""
        dropped = draw_share(self.config.caption_drop, len(batch), rng)
        pooled, states = self.read(*(said := without_captions(batch, dropped, self.empty)))
        codes = self.prior.codes.encode(batch.z)
        nearness = self.prior.nearness_of(batch.z, pooled, dropped.to(batch.z.device))
        logits = self.prior(codes[:, :-1], nearness, pooled, states, said[1])
        loss = F.cross_entropy(logits.flatten(0, 1).float(), codes.flatten())
        with torch.no_grad():
            right = (logits.argmax(dim=-1) == codes).float().mean()
        return Losses(total={"ar": loss}, watch={"right": right.item()})


@dataclass(frozen=True, kw_only=True)
class ProjectionLossConfig:
    """How the projection prior is trained."""

    caption_drop: float = 0.1  # share of samples that see the empty caption, so that guidance has a use
    contrast: float = 0.2  # weight of the contrastive loss beside the squared error

    def __post_init__(self) -> None:
        require(0 <= self.caption_drop < 1, f"caption_drop is {self.caption_drop}", "0 <= share < 1")
        require(self.contrast >= 0, f"contrast is {self.contrast}", "at least 0")


class ProjectionObjective:
    """Meeting point 2 for the projection prior: squared error of the embedding, and contrast with other captions.

    The squared error is that of the whole vector over its spread, so that 1 is what the mean of all pictures has.

    Args:
        prior: the network, trained in place; it has been measured.
        read: frozen text tower.
        empty: ids and mask of the empty caption, packed to the context: one row each.
        config: shares and weights.
        scale: CLIP's own, that multiplies cosines: one over its temperature.
    """

    def __init__(
        self,
        prior: ProjectionPrior,
        read: CaptionReader,
        empty: tuple[Int[Tensor, " n"], Bool[Tensor, " n"]],
        config: ProjectionLossConfig,
        scale: float,
    ) -> None:
        require(scale > 0, f"a scale of {scale}", "a positive number")
        self.prior, self.read, self.empty, self.config, self.scale = prior, read, empty, config, scale

    @property
    def groups(self) -> Mapping[str, nn.Module]:
        """The prior."""
        return {"projection": self.prior}

    def __call__(self, batch: PairBatch, rng: Generator) -> Losses:
        """Both losses; captions that were dropped have nothing to be contrasted with."""
        dropped = draw_share(self.config.caption_drop, len(batch), rng)
        pooled, states = self.read(*(said := without_captions(batch, dropped, self.empty)))
        found = self.prior(pooled, states, said[1])
        error = (found - batch.z).square().mean() / self.prior.embedding_std.square().squeeze()
        kept = ~dropped.to(found.device)
        contrast = caption_contrast(found[kept], pooled[kept], self.scale)
        loss = error + self.config.contrast * contrast
        with torch.no_grad():
            cosine = torch.cosine_similarity(found, batch.z, dim=-1).mean()
        watch = {"error": error.item(), "contrast": contrast.item(), "cosine": cosine.item()}
        return Losses(total={"projection": loss}, watch=watch)


def caption_contrast(z: Embeddings, z_t: Embeddings, scale: float) -> Float[Tensor, ""]:
    """Return how badly embeddings find their own caption among those of the batch: cross-entropy, in nats.

    A caption that stands twice in the batch is no other caption to its twin.

    Args:
        z: embeddings found; their length does not count.
        z_t: the captions', of unit length.
        scale: that multiplies cosines.

    Source: ECLIPSE, arXiv:2312.04655, the contrastive term; from the picture's side only.
    """
    if len(z) < 2:
        return z.sum() * 0
    logits = scale * F.normalize(z, dim=-1) @ z_t.T
    twins = (z_t @ z_t.T > SAME_CAPTION) & ~torch.eye(len(z), dtype=torch.bool, device=z.device)
    return F.cross_entropy(logits.masked_fill(twins, float("-inf")), torch.arange(len(z), device=z.device))
