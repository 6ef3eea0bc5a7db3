"""Pictures as CLIP sees them, computed once, with captions that are written anew each time a picture is seen.

Drawing a picture and looking at it through CLIP costs several times what the captioner needs to learn from it, and is
the same each time.  Captions are cheap, so they are not stored: of the emoji world the truth of every draw is known
again from its place, of a folder its files are read.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from opendalle.base.errors import BadData, BadModel, require
from opendalle.checkpoint.folder import read_model
from opendalle.clip.losses import Known
from opendalle.clip.model import CLIP
from opendalle.dalle3.caption_network import CAPTIONER_PRESETS, KINDS, LANGUAGES, manner_of
from opendalle.dalle3.caption_objective import CaptionBatch
from opendalle.dalle3.sight import see
from opendalle.data.embeddings import EmbeddingStore
from opendalle.data.emoji.captions import CaptionConfig, write_caption
from opendalle.data.emoji.dataset import EmojiSet
from opendalle.data.emoji.descriptions import description, subject
from opendalle.data.emoji.draws import pick, weighted
from opendalle.data.emoji.truth import Truth
from opendalle.data.folder import FolderSet
from opendalle.data.loading import Batch
from opendalle.data.order import SampleOrder
from opendalle.data.sets import PictureSet
from opendalle.pretrained.kinds import find_model, load_folder, load_tokenizer
from opendalle.recipes.data import aspects_of, concept_of, open_set, said_of, stamps_of, write_pairs
from opendalle.recipes.places import runs_beside, say
from opendalle.tokenizers.bpe import BytePairTokenizer
from opendalle.tokenizers.text import is_han

PRESET, SIGHT = "emoji", "sight"


@dataclass(frozen=True, kw_only=True)
class CaptionMix:
    """Which captions are learned from."""

    kinds: Mapping[str, float]  # kind -> weight
    languages: Mapping[str, float] = field(default_factory=lambda: {"en": 0.6, "zh": 0.4})  # language -> weight

    def __post_init__(self) -> None:
        for name, weights, known in (("kinds", self.kinds, KINDS), ("languages", self.languages, LANGUAGES)):
            require(set(weights) <= set(known), f"{name} {sorted(weights)}", "some of " + ", ".join(known))
            fits = sum(weights.values()) > 0 and min(weights.values()) >= 0
            require(fits, f"{name} {dict(weights)}", "weights of at least 0, not all 0")


@dataclass(frozen=True, kw_only=True)
class Said:
    """One caption, and how it is written."""

    text: str
    manner: int  # from `manner_of`
    truth: Mapping[str, object] | None = None  # of the picture, where it is known


@runtime_checkable
class Writes(Protocol):
    """Where captions come from: a function of the draw and of chance."""

    def stamps(self) -> dict[str, str]:
        """Say what they are made of, besides the set itself."""
        ...

    def __call__(self, draw: int, mix: CaptionMix, rng: np.random.Generator) -> Said:
        """Write one caption of the picture that was drawn in this place."""
        ...


class WorldWrites:
    """Captions of the emoji world, from what is true of its pictures.

    Originals are what people would write on the web, with its noise; the others come from `descriptions`.

    Args:
        pictures: the set that was drawn from.
        seed: of the draws.
    """

    def __init__(self, pictures: EmojiSet, seed: int) -> None:
        self.pictures, self.order = pictures, SampleOrder(len(pictures), seed)
        self._truths: dict[int, Truth] = {}
        self._web = {one: CaptionConfig(languages={one: 1.0}) for one in LANGUAGES}

    def stamps(self) -> dict[str, str]:
        """Nothing: they are a function of the world."""
        return {}

    def __call__(self, draw: int, mix: CaptionMix, rng: np.random.Generator) -> Said:
        """Write one caption; the arguments are those of `Writes`."""
        if draw not in self._truths:
            self._truths[draw] = self.pictures.truth(self.order.place(draw).index, self.order.generator(draw))
        truth, lexicon = self._truths[draw], self.pictures.lexicon
        kind, language = weighted(rng, mix.kinds), weighted(rng, mix.languages)
        if kind == "original":
            text = write_caption(truth, lexicon, self._web[language], rng)
        else:
            text = (subject if kind == "short" else description)(truth, lexicon, language, rng)
        return Said(text=text, manner=manner_of(kind, language), truth=truth.record())


class FolderWrites:
    """Captions of a folder: `NAME.txt` holds the originals, `NAME.short.txt` and `NAME.descriptive.txt` the others.

    Not every picture needs the others: the paper's sets for fine-tuning are small.  A picture without one is taken in
    another of its kinds.

    Args:
        pictures: the set that was drawn from.
        seed: of the draws.
        kinds: those wanted; each must be there for one picture at least.

    Raises:
        BadData: when a kind that is wanted has no caption at all, or a caption file is no text.
    """

    def __init__(self, pictures: FolderSet, seed: int, kinds: Mapping[str, float]) -> None:
        self.order = SampleOrder(len(pictures), seed)
        self.texts = [
            {"original": entry.captions}
            | {kind: lines for kind in KINDS[1:] if (lines := _lines(entry.picture.with_suffix(f".{kind}.txt")))}
            for entry in pictures.entries
        ]
        for kind, weight in kinds.items():
            if weight and not any(kind in texts for texts in self.texts):
                raise BadData(f"{pictures.folder} without {kind} captions", f"NAME.{kind}.txt beside some pictures")

    def stamps(self) -> dict[str, str]:
        """Hash the captions that lie beside the originals."""
        return {"captions": hashlib.sha256(json.dumps(self.texts).encode()).hexdigest()}

    def __call__(self, draw: int, mix: CaptionMix, rng: np.random.Generator) -> Said:
        """Write one caption; the arguments are those of `Writes`.  Its language is the one that it is written in."""
        texts = self.texts[self.order.place(draw).index]
        weights = {kind: weight for kind, weight in mix.kinds.items() if kind in texts and weight}
        kind = weighted(rng, weights) if weights else "original"
        text = pick(rng, texts[kind])
        return Said(text=text, manner=manner_of(kind, language_of(text)))


def language_of(text: str) -> str:
    """Tell Chinese from all else by its writing.

    Args:
        text: a caption.
    """
    return "zh" if any(map(is_han, text)) else "en"


def _lines(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        return ()
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise BadData(f"{path} is not UTF-8", "captions as UTF-8 text", f"Convert {path.name}.") from None
    return tuple(line.strip() for line in lines if line.strip())


@dataclass(frozen=True, kw_only=True)
class _Canvas:
    """The shape of pictures, as the writer of pairs asks for it."""

    picture_size: int
    picture_channels: int


class Eye:
    """The frozen CLIP through which a captioner sees, as the writer of pairs wants its networks.

    Args:
        clip: its folder, or a bundled name.

    Raises:
        BadModel: when it is no CLIP.
    """

    def __init__(self, clip: Path) -> None:
        folder = read_model(find_model(clip))
        if folder.kind != "clip":
            raise BadModel(f"{folder.path}, a {folder.kind}", "a CLIP")
        self.clip: CLIP = load_folder(folder)
        self.tokenizer: BytePairTokenizer = load_tokenizer(folder)
        self.codec = _Canvas(picture_size=self.clip.config.size, picture_channels=self.clip.config.channels)


@dataclass(frozen=True, kw_only=True)
class SightsPlan:
    """What a captioner sees in training, and where it lies."""

    data: Path  # the picture set
    out: Path  # the model folder to write
    clip: Path  # folder of the CLIP
    draws: int  # of the set, seen once through CLIP
    scenes: float | None  # share of them that are scenes; None: the world's own
    seed: int  # of weights, order and chance

    @property
    def place(self) -> Path:
        """Where what CLIP sees is kept."""
        return runs_beside(self.out) / "sights"

    def stamps(self) -> dict[str, str]:
        """Say what the sights are made of."""
        return stamps_of(self.data, clip=self.clip, draws=self.draws, scenes=self.scenes, seed=self.seed)

    def source(self) -> PictureSet:
        """Open the picture set at CLIP's size."""
        return open_set(self.data, read_model(find_model(self.clip)).part("clip").config["size"], self.scenes)

    def writes(self, kinds: Mapping[str, float]) -> Writes:
        """Return where the captions of the draws come from.

        Args:
            kinds: those wanted.
        """
        source = self.source()
        if isinstance(source, EmojiSet):
            return WorldWrites(source, self.seed)
        assert isinstance(source, FolderSet)
        return FolderWrites(source, self.seed, kinds)

    def look(self, stop: Callable[[], bool]) -> bool:
        """See all draws through CLIP, if no earlier stage has.

        Args:
            stop: asked now and then whether to stop.

        Returns:
            Whether all are there; what has been seen is kept.
        """
        if self.place.exists():
            return True
        whole = write_pairs(
            self.place,
            self.source(),
            Eye(self.clip),
            count=self.draws,
            seed=self.seed,
            stamps=self.stamps(),
            encode=_seen,
            tell=self._tell,
            stop=stop,
        )
        if not whole:
            say("stopped while pictures were seen through CLIP; those that are done are kept")
        return whole

    def open(self) -> EmbeddingStore:
        """Open what CLIP has seen."""
        return EmbeddingStore(self.place, stamps=self.stamps())

    def _tell(self, done: int) -> None:
        if done % 5_120 == 0:
            say(f"seen {done:,} of {self.draws:,}")


def _seen(batch: Batch, eye: Eye) -> dict[str, np.ndarray]:
    with torch.no_grad():
        return {SIGHT: see(eye.clip, batch.pictures, CAPTIONER_PRESETS[PRESET].sight).numpy().astype(np.float16)}


class CaptionBatches:
    """Seen pictures with captions written anew, in an order that is a pure function of seed and position.

    Args:
        store: made by `SightsPlan.look`.
        writes: captions.
        tokenizer: packs them.
        context: tokens a caption.
        mix: which captions.
        batch_size: rows a batch.
        seed: of order and captions.
        rows: draws from which one is taken; None: all.
    """

    def __init__(
        self,
        store: EmbeddingStore,
        writes: Writes,
        tokenizer: BytePairTokenizer,
        context: int,
        mix: CaptionMix,
        batch_size: int,
        seed: int,
        *,
        rows: range | None = None,
    ) -> None:
        self.sight = torch.from_numpy(store.array(SIGHT))
        self.rows = range(len(self.sight)) if rows is None else rows
        self.writes, self.tokenizer, self.context, self.mix = writes, tokenizer, context, mix
        self.batch_size, self.seed, self.order = batch_size, seed, SampleOrder(len(self.rows), seed)

    def __call__(self, position: int) -> Iterator[CaptionBatch]:
        """Yield batches without end, beginning with the one at `position`."""
        while True:
            yield self.batch(position)
            position += 1

    def batch(self, position: int) -> CaptionBatch:
        """Make one batch.

        Args:
            position: of the batch, from 0.
        """
        first, rng = position * self.batch_size, np.random.default_rng([self.seed, position])
        draws = [self.rows[self.order.place(first + row).index] for row in range(self.batch_size)]
        said = [self.writes(draw, self.mix, rng) for draw in draws]
        ids, mask = (torch.from_numpy(one) for one in self.tokenizer.pack([one.text for one in said], self.context))
        return CaptionBatch(
            sight=self.sight[draws].float(),
            ids=ids,
            mask=mask,
            manner=torch.tensor([one.manner for one in said]),
            known=_known(said, ids),
        )


def _known(said: list[Said], ids: Int[Tensor, "b n"]) -> Known:
    """Gather what is known of a batch, so that a caption that is true of two pictures tells neither from the other."""
    return Known(
        captions=torch.unique(ids, dim=0, return_inverse=True)[1],
        concepts=torch.tensor([concept_of(one.truth) for one in said]),
        aspects=torch.tensor([aspects_of(one.truth) for one in said]),
        said=torch.tensor([said_of(one.truth, one.text) for one in said]),
    )
