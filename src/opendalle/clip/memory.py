"""Embeddings of batches just past, as further wrong answers: many negatives for the price of a small batch.

Weights move slowly, so what they said of a picture some steps ago is nearly what they would say now.  With a few
thousand remembered captions a picture meets those that are hard to tell from its own in every step, not once in a
while.

Source: Wang et al., "Cross-Batch Memory for Embedding Learning", arXiv:1912.06798, section 3.2.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Remembered:
    """Pairs seen before: unit vectors without gradient, and what they show."""

    pictures: Float[Tensor, "m e"]
    texts: Float[Tensor, "m e"]
    labels: Int[Tensor, "m r"]


class EmbeddingMemory:
    """The newest pairs, at most `size` of them.

    Args:
        size: pairs kept.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.kept: Remembered | None = None

    def add(self, pictures: Float[Tensor, "b e"], texts: Float[Tensor, "b e"], labels: Int[Tensor, "b r"]) -> None:
        """Remember pairs, and forget the oldest ones beyond the size."""
        new = {"pictures": pictures.detach().float(), "texts": texts.detach().float(), "labels": labels}
        if self.kept is not None:
            new = {name: torch.cat([getattr(self.kept, name), part]) for name, part in new.items()}
        self.kept = Remembered(**{name: part[-self.size :].clone() for name, part in new.items()})

    def state(self) -> dict[str, Tensor]:
        """Return what is kept, for a run folder; empty while nothing is."""
        return {} if self.kept is None else dict(vars(self.kept))

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take what `state` gave."""
        self.kept = Remembered(**state) if state else None
