"""What CLIP minimises, as pure functions of embeddings."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from opendalle.base.axes import Embeddings

Duplicates = Literal["negative", "mask", "positive"]


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of b pictures and their captions, as numbers that are compared; negative: nothing is known."""

    captions: Int[Tensor, " b"]  # equal where captions are equal
    concepts: Int[Tensor, " b"]  # equal where pictures show the same
    aspects: Int[Tensor, "b a"]  # of the picture: one column each for style, background, ...
    said: Int[Tensor, "b a"]  # of the caption: the same where it names it, negative where it leaves it open


def describes(pictures: Known, texts: Known) -> Bool[Tensor, "b m"]:
    """Tell which captions are true of which pictures.

    The picture's own is, word for word, and any of the same concept whose every named aspect is the picture's.  So "an
    apple" is true of each drawing of an apple, and "a flat apple" of the flat ones only.

    Args:
        pictures: b of them, with their own captions.
        texts: m of them, with their own pictures.
    """
    same = (pictures.concepts[:, None] == texts.concepts) & (texts.concepts >= 0)
    agrees = (texts.said[None] < 0) | (texts.said[None] == pictures.aspects[:, None])  # (b, m, a)
    return (same & agrees.all(dim=-1)) | (pictures.captions[:, None] == texts.captions)


def contrastive_loss(
    pictures: Embeddings,
    texts: Embeddings,
    scale: Float[Tensor, ""],
    *,
    true: Bool[Tensor, "b b"] | None = None,
    duplicates: Duplicates = "mask",
    hard: Float[Tensor, "b k e"] | None = None,
) -> Float[Tensor, ""]:
    """Symmetric InfoNCE: each picture must find its caption among all of the batch, and each caption its picture.

    Args:
        pictures: unit vectors.
        texts: unit vectors of their captions, in the same order.
        scale: sharpness; similarities times scale are logits.
        true: which captions (columns) are true of which pictures (rows); None: each only of its own.
        duplicates: what a true caption is to a picture that is not its own.  "negative" pushes them apart all the
            same, as the paper does; "mask" leaves them out; "positive" shares the target among them.
        hard: captions that are wrong for their own picture in one point (a swapped relation, another colour), as
            further columns that only this picture sees: for others they may happen to be true.

    Source: CLIP, arXiv:2103.00020, figure 3; targets shared as in supervised contrastive learning, arXiv:2004.11362,
        eq. 2; hard captions after NegCLIP, arXiv:2210.01936, section 4.
    """
    eye = torch.eye(len(texts), dtype=torch.bool, device=texts.device)
    is_true = eye if true is None else true | eye
    logits = scale * pictures @ texts.T  # (b, b)
    if duplicates == "mask":
        logits = logits.masked_fill(is_true & ~eye, float("-inf"))
    right = (is_true if duplicates == "positive" else eye).to(logits.dtype)
    rows = logits
    if hard is not None:
        rows = torch.cat([logits, scale * torch.einsum("be,bke->bk", pictures, hard)], dim=1)  # (b, b + k)
    find_text = _cross_entropy(rows, right)
    find_picture = _cross_entropy(logits.T, right.T)
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


def _cross_entropy(logits: Float[Tensor, "b v"], right: Float[Tensor, "b w"]) -> Float[Tensor, ""]:
    """Cross-entropy of the first w answers, each right one an equal share; a masked logit (-inf) must not be right."""
    target = F.pad(right / right.sum(dim=1, keepdim=True), (0, logits.shape[1] - right.shape[1]))
    log_chance = logits.float().log_softmax(dim=1).masked_fill(target == 0, 0.0)  # 0 * -inf would be NaN
    return -(target * log_chance).sum(dim=1).mean()
