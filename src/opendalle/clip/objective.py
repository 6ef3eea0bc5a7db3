"""Training CLIP: contrast pictures with captions in batches as large as wanted, and learn words from a teacher."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from opendalle.base.axes import Embeddings, Mask, Pictures, Tokens
from opendalle.base.errors import BadData, require
from opendalle.base.protocols import Losses
from opendalle.clip.distillation import TextDistillation
from opendalle.clip.gradient_cache import backward_in_pieces
from opendalle.clip.losses import Duplicates, Known, contrastive_loss, describes
from opendalle.clip.model import CLIP, MAX_SCALE

LENGTH_GROUPS = 4  # of captions embedded together: long ones do not make short ones wait


@dataclass(frozen=True, kw_only=True)
class SentenceBatch:
    """Sentences without pictures (paraphrases, translations): what only the teacher can teach."""

    ids: Tokens
    mask: Mask
    teacher: Float[Tensor, "b t"]  # the teacher's vectors


@dataclass(frozen=True, kw_only=True)
class CaptionedBatch:
    """Pictures with their captions, and what else is known of them.  All captions are packed to one length n."""

    pictures: Pictures  # in [-1, 1]; RGBA is premultiplied
    ids: Tokens
    mask: Mask
    teacher: Float[Tensor, "b t"] | None = None  # the teacher's vectors of the captions
    concepts: Int[Tensor, " b"] | None = None  # equal where pictures show the same; negative where nothing is known
    aspects: Int[Tensor, "b a"] | None = None  # of the pictures: style, background, ..., a column each
    said: Int[Tensor, "b a"] | None = None  # the same where the caption names it; negative where it leaves it open
    hard_ids: Int[Tensor, "b k n"] | None = None  # captions that are wrong for their picture in one point
    hard_mask: Bool[Tensor, "b k n"] | None = None
    sentences: SentenceBatch | None = None  # any number of them: further lessons for the text tower

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, kw_only=True)
class ContrastiveConfig:
    """How CLIP is trained on captioned pictures."""

    chunk: int | None = None  # pictures, or captions, in memory at once; None: all, without gradient caching
    duplicates: Duplicates = "mask"  # what a caption is to other pictures that it is true of; see contrastive_loss
    text_after: int = 0  # pictures before the text tower is trained too: until then pictures learn where words stand
    distillation_weight: float = 1.0  # of the teacher's term, beside the contrastive one

    def __post_init__(self) -> None:
        require(self.chunk is None or self.chunk > 0, f"chunk is {self.chunk}", "a positive number or None")
        known = ("negative", "mask", "positive")
        require(self.duplicates in known, f"duplicates is {self.duplicates!r}", ", ".join(known))
        require(self.text_after >= 0, f"text_after is {self.text_after}", "0 or more")
        require(self.distillation_weight >= 0, f"distillation_weight is {self.distillation_weight}", "at least 0")


class ContrastiveObjective:
    """Meeting point 2 for CLIP on captioned pictures.

    Args:
        clip: the model, trained in place.
        config: memory, duplicates, weights.
        distillation: the teacher's term; without it, a batch's teacher vectors are not looked at.
    """

    def __init__(self, clip: CLIP, config: ContrastiveConfig, distillation: TextDistillation | None = None) -> None:
        self.clip = clip
        self.config = config
        self.distillation = distillation

    @property
    def groups(self) -> Mapping[str, nn.Module]:
        """The towers, and the teacher's map if there is one."""
        return _groups(self.clip, self.distillation)

    def __call__(self, batch: CaptionedBatch, rng: Generator) -> Losses:
        """Losses of the whole batch, with their graph.

        Args:
            batch: captioned pictures.
            rng: not used; all chance (augmentation, dropout of merges) is the data's.

        Raises:
            BadData: when there is a distillation term and nothing in the batch has a teacher's vector.
        """
        return self._losses([encode() for encode in self._encoders(batch, None)], batch)

    def backward(self, batch: CaptionedBatch, rng: Generator) -> Losses:
        """Accumulate the gradients of the whole batch, `chunk` pictures at a time.

        Args:
            batch: captioned pictures, any number of them.
            rng: not used.

        Returns:
            the losses of the whole batch, without their graph.

        Raises:
            BadData: as in `__call__`.
        """
        chunk = self.config.chunk
        if chunk is None or len(batch) <= chunk:
            losses = self(batch, rng)
            torch.stack(list(losses.total.values())).sum().backward()
            return Losses(total={name: loss.detach() for name, loss in losses.total.items()}, watch=losses.watch)
        return backward_in_pieces(self._encoders(batch, chunk), partial(self._losses, batch=batch))

    def before_step(self, pictures: int, total: int) -> None:
        """Let the text tower rest until its time has come.

        Args:
            pictures: seen so far.
            total: of the whole run; not used.
        """
        if self.config.text_after:
            self.clip.text.requires_grad_(pictures >= self.config.text_after)

    def after_step(self) -> None:
        """Bring the scale back into its range, where it still has a gradient."""
        with torch.no_grad():
            self.clip.log_scale.clamp_(max=math.log(MAX_SCALE))

    def _encoders(self, batch: CaptionedBatch, chunk: int | None) -> list[Callable[[], Tensor]]:
        """List what embeds each piece of the batch: first all pictures, then all captions of every kind."""
        ids, mask = _all_texts(batch)
        pictures = [partial(self.clip.encode_pictures, part) for part in batch.pictures.split(chunk or len(batch))]
        size = chunk or len(ids)
        texts = [
            partial(_embed_texts, self.clip, *part) for part in zip(ids.split(size), mask.split(size), strict=True)
        ]
        return [*pictures, *texts]

    def _losses(self, pieces: Sequence[Tensor], batch: CaptionedBatch) -> Losses:
        """Losses from the embeddings, in the order of `_encoders`."""
        num_pictures = len(batch)
        num_hard = 0 if batch.hard_ids is None else batch.hard_ids.shape[0] * batch.hard_ids.shape[1]
        pictures, texts, hard, sentences = torch.cat(list(pieces)).tensor_split(
            [num_pictures, 2 * num_pictures, 2 * num_pictures + num_hard]
        )
        known = known_of(batch)
        contrast = contrastive_loss(
            pictures,
            texts,
            self.clip.scale,
            true=describes(known, known),
            duplicates=self.config.duplicates,
            hard=rearrange(hard, "(b k) e -> b k e", b=num_pictures) if num_hard else None,
        )
        with torch.no_grad():
            found = (pictures @ texts.T).argmax(dim=1) == torch.arange(num_pictures, device=texts.device)
        watch = {"contrast": contrast.item(), "scale": self.clip.scale.item(), "top1": found.float().mean().item()}
        total = {"clip": contrast}
        if self.distillation is not None:
            taught = self._distil(self.distillation, texts, sentences, batch)
            total["teacher"] = self.config.distillation_weight * taught
            watch["teacher"] = taught.item()
        return Losses(total=total, watch=watch)

    def _distil(
        self, distillation: TextDistillation, texts: Embeddings, sentences: Float[Tensor, "m e"], batch: CaptionedBatch
    ) -> Float[Tensor, ""]:
        taught = [(texts, batch.teacher)] if batch.teacher is not None else []
        if batch.sentences is not None:
            taught.append((sentences, batch.sentences.teacher))
        if not taught:
            raise BadData(
                "a batch without teacher vectors",
                "a teacher's vector for each caption or sentence",
                "Compute them with SentenceTeacher, or train without distillation",
            )
        ours, theirs = (torch.cat(list(side)) for side in zip(*taught, strict=True))
        return distillation(ours, theirs)


class SentenceObjective:
    """Meeting point 2 for the text tower alone: learn from the teacher before, or without, any picture.

    Args:
        clip: the model whose text tower is trained in place.
        distillation: the teacher's term.
    """

    def __init__(self, clip: CLIP, distillation: TextDistillation) -> None:
        self.clip = clip
        self.distillation = distillation

    @property
    def groups(self) -> Mapping[str, nn.Module]:
        """The text tower and the teacher's map."""
        return {"clip": self.clip.text, "teacher": self.distillation}

    def __call__(self, batch: SentenceBatch, rng: Generator) -> Losses:
        """Loss of a batch of sentences.

        Args:
            batch: sentences with the teacher's vectors.
            rng: not used.
        """
        loss = self.distillation(_embed_texts(self.clip, batch.ids, batch.mask), batch.teacher)
        return Losses(total={"clip": loss}, watch={"teacher": loss.item()})


def _groups(clip: CLIP, distillation: TextDistillation | None) -> dict[str, nn.Module]:
    return {"clip": clip} if distillation is None else {"clip": clip, "teacher": distillation}


def _all_texts(batch: CaptionedBatch) -> tuple[Tokens, Mask]:
    """Stack captions, hard captions and sentences: to the text tower they are all alike."""
    ids, mask = [batch.ids], [batch.mask]
    if batch.hard_ids is not None and batch.hard_mask is not None:
        ids.append(batch.hard_ids.flatten(0, 1))
        mask.append(batch.hard_mask.flatten(0, 1))
    if batch.sentences is not None:
        ids.append(batch.sentences.ids)
        mask.append(batch.sentences.mask)
    return torch.cat(ids), torch.cat(mask)


def _embed_texts(clip: CLIP, ids: Tokens, mask: Mask) -> Embeddings:
    """Embed captions, those of like length together, without the padding that all of them share.

    Causality lets no token see what follows it, so leaving padding out changes nothing but the time.
    """
    lengths = mask.sum(dim=1)
    order = lengths.argsort(stable=True)
    parts = []
    for rows in order.chunk(LENGTH_GROUPS):
        longest = int(lengths[rows[-1]])
        parts.append(clip.encode_text(ids[rows, :longest], mask[rows, :longest]).pooled)
    return torch.cat(parts)[order.argsort()]


def known_of(batch: CaptionedBatch) -> Known:
    """Gather what is known of a batch; captions are compared by their tokens.

    Args:
        batch: captioned pictures.
    """
    unknown = torch.full((len(batch),), -1, device=batch.ids.device)
    return Known(
        captions=torch.unique(batch.ids, dim=0, return_inverse=True)[1],
        concepts=unknown if batch.concepts is None else batch.concepts,
        aspects=unknown[:, None] if batch.aspects is None else batch.aspects,
        said=unknown[:, None] if batch.said is None else batch.said,
    )
