"""What CLIP minimises, as pure functions of embeddings."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from opendalle.base.axes import Embeddings

Duplicates = Literal["negative", "mask", "positive"]


def same_meaning(labels: Int[Tensor, "b r"]) -> Bool[Tensor, "b b"]:
    """Tell which entries of a batch mean the same: those that share any of their labels.

    Args:
        labels: rows of label numbers, each column a labelling of its own; a negative number equals nothing but itself
            in place.
    """
    equal = (labels[:, None] == labels[None]) & (labels[:, None] >= 0)  # (b, b, r)
    return equal.any(dim=-1) | torch.eye(len(labels), dtype=torch.bool, device=labels.device)


def contrastive_loss(
    pictures: Embeddings,
    texts: Embeddings,
    scale: Float[Tensor, ""],
    *,
    same: Bool[Tensor, "b b"] | None = None,
    duplicates: Duplicates = "mask",
    hard: Float[Tensor, "b k e"] | None = None,
) -> Float[Tensor, ""]:
    """Symmetric InfoNCE: each picture must find its caption among all of the batch, and each caption its picture.

    Args:
        pictures: unit vectors.
        texts: unit vectors of their captions, in the same order.
        scale: sharpness; similarities times scale are logits.
        same: which entries mean the same; None: each only itself.
        duplicates: what a caption of the same meaning is to a picture that is not its own.  "negative" pushes them
            apart all the same, as the paper does; "mask" leaves them out; "positive" shares the target among them.
        hard: captions that are wrong for their own picture in one point (a swapped relation, another colour), as
            further columns that only this picture sees: for others they may happen to be true.

    Source: CLIP, arXiv:2103.00020, figure 3; targets shared as in supervised contrastive learning, arXiv:2004.11362,
        eq. 2; hard captions after NegCLIP, arXiv:2210.01936, section 4.
    """
    logits = scale * pictures @ texts.T  # (b, b)
    target = torch.eye(len(logits), dtype=logits.dtype, device=logits.device)
    if same is not None and duplicates == "mask":
        logits = logits.masked_fill(same & ~target.bool(), float("-inf"))
    if same is not None and duplicates == "positive":
        target = same.to(logits.dtype) / same.sum(dim=1, keepdim=True)  # same is symmetric: serves both directions
    rows = logits
    if hard is not None:
        rows = torch.cat([logits, scale * torch.einsum("be,bke->bk", pictures, hard)], dim=1)  # (b, b + k)
    find_text = _cross_entropy(rows, F.pad(target, (0, rows.shape[1] - len(target))))
    find_picture = _cross_entropy(logits.T, target)
    return (find_text + find_picture) / 2


def relation_loss(student: Embeddings, teacher: Float[Tensor, "b t"]) -> Float[Tensor, ""]:
    """One minus the correlation between two batches' similarities, pair by pair.

    The teacher's similarities set which sentences are nearer than others; how far apart all of them lie is left to
    the contrastive loss, since correlation ignores scale and shift.

    Args:
        student: unit vectors of b >= 3 sentences.
        teacher: the teacher's unit vectors of the same sentences.

    Source: after Relational Knowledge Distillation, arXiv:1904.05068, section 3.2, with similarities for distances.
    """
    pairs = torch.triu_indices(len(student), len(student), offset=1, device=student.device)
    ours, theirs = ((v @ v.T)[pairs[0], pairs[1]] for v in (student.float(), teacher.float()))
    return 1 - F.cosine_similarity(ours - ours.mean(), theirs - theirs.mean(), dim=0, eps=1e-8)


def _cross_entropy(logits: Float[Tensor, "b v"], target: Float[Tensor, "b v"]) -> Float[Tensor, ""]:
    """Cross-entropy against a distribution, where a masked logit (-inf) has no share in the target."""
    log_chance = logits.float().log_softmax(dim=1).masked_fill(target == 0, 0.0)  # 0 * -inf would be NaN
    return -(target * log_chance).sum(dim=1).mean()
