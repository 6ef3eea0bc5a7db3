"""How often CLIP finds the right caption for a picture, and the right picture for a caption, among all of a batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from opendalle.base.axes import Embeddings
from opendalle.base.errors import require


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """Recall at k: share of questions with a right answer among the k nearest."""

    find_text: Mapping[int, float]  # k -> recall, pictures asking for captions
    find_picture: Mapping[int, float]  # k -> recall, captions asking for pictures
    num_entries: int  # chance finds k / num_entries


def measure_retrieval(
    pictures: Embeddings,
    texts: Embeddings,
    *,
    ks: Sequence[int] = (1, 5, 10),
    concepts: Int[Tensor, " b"] | None = None,
) -> Retrieval:
    """Measure zero-shot retrieval.

    Args:
        pictures: unit vectors.
        texts: unit vectors of their captions, in the same order.
        ks: how many of the nearest may hold the right one.
        concepts: equal where entries show the same, so that either is a right answer; negative: only itself is.

    Raises:
        BadConfig: when a k is below 1.

    Source: recall as in CLIP, arXiv:2103.00020, table 13.
    """
    require(min(ks, default=1) >= 1, f"ks is {tuple(ks)}", "numbers of at least 1")
    right = torch.eye(len(texts), dtype=torch.bool, device=texts.device)
    if concepts is not None:
        known = concepts.to(texts.device)
        right = right | ((known[:, None] == known) & (known >= 0))
    similarity = pictures @ texts.T
    return Retrieval(
        find_text={k: _recall(similarity, right, k) for k in ks},
        find_picture={k: _recall(similarity.T, right, k) for k in ks},
        num_entries=len(texts),
    )


def _recall(similarity: Float[Tensor, "b b"], right: Bool[Tensor, "b b"], k: int) -> float:
    nearest = similarity.topk(min(k, len(similarity)), dim=1).indices
    return right.gather(1, nearest).any(dim=1).float().mean().item()
