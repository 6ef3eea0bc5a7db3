"""How the captioner is trained: to tell pictures apart by their captions, and to write these.

Pre-training minimises both, fine-tuning the second alone.

Source: Betker et al., "Improving Image Generation with Better Captions", 2023, section 2.1, who name CoCa's objective
    and no weights; those here are CoCa's, arXiv:2205.01917: 1 for the contrast, 2 for the captions.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from opendalle.base.axes import Mask, States, Tokens
from opendalle.base.errors import require
from opendalle.base.protocols import Losses
from opendalle.clip.losses import Known, contrastive_loss, describes
from opendalle.dalle3.caption_network import KINDS, LANGUAGES, MAX_SCALE, CaptionNetwork, Seen, Sights


@dataclass(frozen=True, kw_only=True)
class CaptionBatch:
    """Pictures as CLIP sees them, each with one caption."""

    sight: Sights  # from `see`
    ids: Tokens  # start, tokens, end; padding comes last
    mask: Mask  # True from start to end
    manner: Int[Tensor, " b"]  # kind and language, from `manner_of`
    known: Known | None = None  # which captions are true of which pictures, for the contrast; None: each of its own

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, kw_only=True)
class CaptionLossConfig:
    """Weights of the two losses."""

    contrast: float = 1.0  # of finding the caption among a batch's, and the picture; 0: fine-tuning
    caption: float = 2.0  # of writing it, in nats a token
    kinds: Sequence[str] = KINDS  # those that the run's batches hold: each is watched by itself

    def __post_init__(self) -> None:
        require(min(self.contrast, self.caption) >= 0, f"weights {self.contrast}, {self.caption}", "at least 0")
        require(self.contrast + self.caption > 0, f"weights {self.contrast}, {self.caption}", "one of them above 0")
        object.__setattr__(self, "kinds", tuple(self.kinds))
        require(set(self.kinds) <= set(KINDS), f"kinds {self.kinds}", "some of " + ", ".join(KINDS))


class CaptionObjective:
    """Meeting point 2 for the captioner.

    Args:
        network: trained in place.
        config: weights.
        name: of the one group of weights.
    """

    def __init__(self, network: CaptionNetwork, config: CaptionLossConfig, name: str = "captioner") -> None:
        self.network, self.config, self.name = network, config, name

    @property
    def groups(self) -> Mapping[str, nn.Module]:
        """The one trainable module."""
        return {self.name: self.network}

    def __call__(self, batch: CaptionBatch, rng: Generator) -> Losses:
        """Return the weighted losses of one micro-batch; nats a token of every kind, and the contrast's accuracy.

        Args:
            batch: pictures with captions.
            rng: not used; all chance is the data's.
        """
        longest = int(batch.mask.sum(dim=1).amax())
        ids, mask = batch.ids[:, :longest], batch.mask[:, :longest]  # padding that all share is left out
        seen, states = self.network.look(batch.sight), self.network.read(ids, batch.manner)
        nats = self._nats(self.network.join(states, seen), ids, mask)
        counts = mask[:, 1:]
        written = nats.sum() / counts.sum()
        total, watch = self.config.caption * written, self._by_kind(nats.detach(), counts, batch.manner)
        if self.config.contrast:
            contrast, right = self._contrast(seen, states, mask, batch.known)
            total = total + self.config.contrast * contrast
            watch |= {"contrast": contrast.item(), "top1": right}
        return Losses(total={self.name: total}, watch=watch)

    def after_step(self) -> None:
        """Bring the scale back into its range, where it still has a gradient."""
        with torch.no_grad():
            self.network.log_scale.clamp_(max=math.log(MAX_SCALE))

    def _nats(self, states: States, ids: Tokens, mask: Mask) -> Float[Tensor, "b m"]:
        """Cross-entropy of every token after those before it; 0 where there is none."""
        counts = mask[:, 1:]
        logits = self.network.read_out(states[:, :-1][counts])  # of these alone: the vocabulary costs most
        nats = F.cross_entropy(logits.float(), ids[:, 1:][counts], reduction="none")
        return nats.new_zeros(counts.shape).masked_scatter(counts, nats)

    def _contrast(self, seen: Seen, states: States, mask: Mask, known: Known | None) -> tuple[Float[Tensor, ""], float]:
        pictures, texts = self.network.picture_vector(seen), self.network.text_vector(states, mask)
        true = None if known is None else describes(known, known)
        loss = contrastive_loss(pictures, texts, self.network.scale, true=true)
        found = (pictures @ texts.T).argmax(dim=1)
        rows = torch.arange(len(found), device=found.device)
        return loss, float((found == rows if true is None else true[rows, found]).float().mean())

    def _by_kind(
        self, nats: Float[Tensor, "b m"], counts: Bool[Tensor, "b m"], manner: Int[Tensor, " b"]
    ) -> dict[str, float]:
        """Return nats a token of every kind; of one that a batch lacks, of all: a log has the same columns."""
        watch: dict[str, float] = {}
        for kind in self.config.kinds:
            rows = manner // len(LANGUAGES) == KINDS.index(kind)
            rows = rows if bool(rows.any()) else torch.ones_like(rows)
            watch[f"nats_{kind}"] = (nats[rows].sum() / counts[rows].sum()).item()
        return watch
