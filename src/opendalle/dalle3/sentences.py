"""How the text encoder is trained, on text alone: as half of a text-to-text model with two tasks, and by a third one.

    holes    spans of a text are cut out, and the decoder writes them: T5's own task
    pairs    from a short prompt the decoder writes the prompt and then what a fuller caption adds: the prompt upsampler
    meaning  the mean state of what is read is held to the vector that CLIP gives it, so that 红苹果 lies near red apple

The first teaches how words go together and how they are spelled, the second which things are plausible and what they
look like, the third what two languages have in common.  Afterwards the encoder is frozen and read by the denoiser.

Source: Raffel et al., arXiv:1910.10683, section 3.1.4; sentinels and spans of bytes: Xue et al., arXiv:2105.13626,
    section 3.1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from opendalle.base.axes import Mask, Tokens
from opendalle.base.errors import require
from opendalle.base.protocols import Losses
from opendalle.clip.distillation import TextDistillation
from opendalle.dalle3.text_decoder import TextToText
from opendalle.dalle3.text_encoder import TextStates
from opendalle.tokenizers.packing import EndsCaptions


@dataclass(frozen=True, kw_only=True)
class HolesConfig:
    """How a text is given holes; the defaults are for bytes."""

    share: float = 0.15  # of the tokens that is cut out
    mean: float = 20.0  # tokens a hole on average; T5 has 3 for pieces of words, ByT5 20 for bytes
    # Token that stands for the first hole; the following ones count down.  ByT5 takes the last bytes for it, and 0xff
    # to 0xf5 occur in no UTF-8 text, so nothing is taken from any.  T5's pieces: the last number of the vocabulary.
    first: int = 258
    most: int = 11  # holes a text; as many tokens are used as sentinels

    def __post_init__(self) -> None:
        require(0 < self.share < 1, f"share {self.share}", "above 0, below 1")
        require(self.mean >= 1, f"mean {self.mean}", "at least 1 token")
        require(1 <= self.most <= self.first, f"most {self.most}", f"1 to {self.first}, one token each")


@dataclass(frozen=True, kw_only=True)
class Holed:
    """A text with holes, and what was in them; each part behind the sentinel of its hole."""

    source: list[int]
    missing: list[int]


def cut_holes(tokens: Sequence[int], config: HolesConfig, rng: np.random.Generator) -> Holed:
    """Cut spans out of a text; their lengths are chance, their sum is not.

    Args:
        tokens: of a text, without its end; at least 2.
        config: how many and how long.
        rng: all chance comes from it.

    Source: arXiv:1910.10683, section 3.1.4.
    """
    num_hidden = min(max(round(len(tokens) * config.share), 1), len(tokens) - 1)
    num_holes = min(max(round(num_hidden / config.mean), 1), num_hidden, config.most)
    num_holes = min(num_holes, len(tokens) - num_hidden + 1)  # something stands between any two
    hidden = _parts(num_hidden, num_holes, rng)
    kept = _parts(len(tokens) - num_hidden + 2, num_holes + 1, rng)  # before the first and after the last may be none
    kept[0], kept[-1] = kept[0] - 1, kept[-1] - 1
    place, source, missing = 0, list[int](), list[int]()
    for hole in range(num_holes):
        sentinel = config.first - hole
        source += [*tokens[place : place + kept[hole]], sentinel]
        place += kept[hole]
        missing += [sentinel, *tokens[place : place + hidden[hole]]]
        place += hidden[hole]
    return Holed(source=[*source, *tokens[place:]], missing=missing)


def fill_holes(holed: Holed, config: HolesConfig) -> list[int]:
    """Put back what was cut out: `fill_holes(cut_holes(tokens, ...), ...) == tokens`.

    Args:
        holed: its second half may be what a decoder wrote; a hole of which it says nothing closes.
        config: as it was cut.
    """
    inside: dict[int, list[int]] = {}
    current: list[int] = []
    for token in holed.missing:
        if config.first - config.most < token <= config.first:
            current = inside.setdefault(token, [])
        else:
            current.append(token)
    return [one for token in holed.source for one in inside.pop(token, [token])]


@dataclass(frozen=True, kw_only=True)
class TextPairs:
    """Texts to be read, and one to be written of each."""

    ids: Tokens  # to be read
    mask: Mask  # True where one is real
    written: Int[Tensor, "b m"]  # to be written, with its end
    counts: Bool[Tensor, "b m"]  # True where one is real
    teacher: Float[Tensor, "b t"] | None = None  # what a teacher says of the texts to be read, when they are whole


@dataclass(frozen=True, kw_only=True)
class SentencesBatch:
    """What one step learns from, at least one of them; where the encoder stays as it is, pairs alone."""

    pairs: TextPairs | None = None
    holes: TextPairs | None = None


def pack_pairs(
    sources: Sequence[Sequence[int]],
    written: Sequence[Sequence[int]],
    tokenizer: EndsCaptions,
    *,
    context: int,
    longest: int,
    teacher: Float[Tensor, "b t"] | None = None,
) -> TextPairs:
    """Make rectangles as wide as their longest row.

    Args:
        sources: tokens to be read, without ends.
        written: tokens to be written, without ends.
        tokenizer: knows end and padding.
        context: tokens of a source at most, its end included.
        longest: tokens of a text to be written at most, its end included; one that is longer has no end.
        teacher: a vector a source, of any length.
    """
    ids, mask = _rectangle([[*row[: context - 1], tokenizer.end] for row in sources], tokenizer.pad)
    texts, counts = _rectangle([[*row, tokenizer.end][:longest] for row in written], tokenizer.pad)
    return TextPairs(ids=ids, mask=mask, written=texts, counts=counts, teacher=teacher)


@dataclass(frozen=True, kw_only=True)
class SentencesLossConfig:
    """Weights of the tasks."""

    pairs: float = 1.0  # of the cross-entropy of a token
    holes: float = 0.5  # of the cross-entropy of a token
    meaning: float = 1.0  # of the distance from the teacher's vectors

    def __post_init__(self) -> None:
        weights = (self.pairs, self.holes, self.meaning)
        require(min(weights) >= 0 and self.pairs > 0, f"weights {weights}", "at least 0, and pairs above 0")


class SentencesObjective:
    """Meeting point 2 for the text-to-text model.

    Args:
        network: both halves.
        meaning: holds mean states to a teacher's vectors; None: no teacher.
        config: weights.
        keeps_encoder: train the decoder alone.
    """

    def __init__(
        self,
        network: TextToText,
        meaning: TextDistillation | None,
        config: SentencesLossConfig,
        *,
        keeps_encoder: bool = False,
    ) -> None:
        self.network, self.meaning, self.config = network, meaning, config
        self.keeps_encoder = keeps_encoder
        if keeps_encoder:
            network.encoder.eval().requires_grad_(False)

    @property
    def groups(self) -> Mapping[str, nn.Module]:
        """Encoder, decoder and the map to the teacher's vectors, as far as they are trained."""
        if self.keeps_encoder:
            return {"rewriter": self.network.decoder}
        halves: dict[str, nn.Module] = {"text": self.network.encoder, "rewriter": self.network.decoder}
        return halves if self.meaning is None else halves | {"meaning": self.meaning}

    def __call__(self, batch: SentencesBatch, rng: Generator) -> Losses:
        """Return the loss of each task.

        Args:
            batch: what each of them reads and writes.
            rng: not used.
        """
        tasks = {"pairs": batch.pairs, "holes": None if self.keeps_encoder else batch.holes}
        losses: dict[str, Tensor] = {}
        meant: list[Tensor] = []
        for name, task in tasks.items():
            if task is None:
                continue
            said = self.network.encoder(task.ids, task.mask)
            logits = self.network.write(said, task.written)
            losses[name] = F.cross_entropy(logits[task.counts].float(), task.written[task.counts])
            if self.meaning is not None and task.teacher is not None:
                meant.append(self.meaning(pooled(said), task.teacher))
        if meant:
            losses["meaning"] = torch.stack(meant).mean()
        weighted = [getattr(self.config, name) * loss for name, loss in losses.items()]
        watch = {name: loss.item() for name, loss in losses.items()}
        return Losses(total={"rewriter": torch.stack(weighted).sum()}, watch=watch)


def pooled(said: TextStates) -> Float[Tensor, "b d"]:
    """Return one unit vector a sentence: the mean of its states.

    Args:
        said: zero where there is no token.
    """
    total = said.states.float().sum(dim=1) / said.mask.sum(dim=1, keepdim=True).clamp(min=1)
    return F.normalize(total, dim=-1)


def _parts(total: int, count: int, rng: np.random.Generator) -> list[int]:
    """Divide a whole number into positive ones, each way equally likely."""
    cuts = np.sort(rng.permutation(total - 1)[: count - 1]) + 1
    return np.diff([0, *cuts, total]).tolist()


def _rectangle(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows])
    return ids, torch.arange(width) < torch.tensor([len(row) for row in rows])[:, None]
