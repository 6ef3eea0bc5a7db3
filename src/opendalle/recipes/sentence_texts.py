"""Texts for the text-to-text model: pairs to be rewritten, sentences to be mended, and what CLIP says of sentences.

Texts are cheap, so none is stored: each batch is written anew from its position.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import torch

from opendalle.base.errors import BadData
from opendalle.checkpoint.folder import read_model
from opendalle.clip.model import CLIP
from opendalle.clip.teacher import everyday_words
from opendalle.dalle3.rewriter import opened
from opendalle.dalle3.sentences import HolesConfig, SentencesBatch, TextPairs, cut_holes, pack_pairs
from opendalle.data.emoji.captions import CaptionConfig, write_caption
from opendalle.data.emoji.dataset import EmojiSet, EmojiSetConfig
from opendalle.data.emoji.descriptions import description
from opendalle.data.emoji.draws import between, coin, pick
from opendalle.data.emoji.pairs import Pair, PairsConfig, known_pair, strange_pair
from opendalle.data.emoji.sources import WORDNET, packages_place
from opendalle.data.emoji.truth import Truth
from opendalle.data.emoji.world import World
from opendalle.data.folder import FolderSet, FolderSetConfig
from opendalle.pretrained.kinds import load_folder, load_tokenizer
from opendalle.recipes.caption_pairs import FolderWrites, language_of
from opendalle.recipes.data import is_world
from opendalle.recipes.words import chinese_words, meanings
from opendalle.tokenizers import ByteTokenizer

T = TypeVar("T")
WORDS, MEANINGS = 20_000, 20_000  # of each language, and of WordNet, where the packages are there
POOL = 8  # batches written at once and sorted by length, so that none is mostly padding


@runtime_checkable
class Texts(Protocol):
    """Where texts come from; all chance comes from the generator."""

    @property
    def has_pairs(self) -> bool:
        """Whether there are pairs at all."""
        ...

    def pair(self, rng: np.random.Generator) -> Pair:
        """Write a short prompt and a full caption."""
        ...

    def sentence(self, rng: np.random.Generator) -> str:
        """Write a sentence of any kind."""
        ...


class WorldTexts:
    """Captions and pairs of the emoji world's training split, and words from elsewhere where packages hold some.

    Args:
        data: the world.
        seed: of the choice of explanations of words.
        config: of pairs.
    """

    has_pairs = True

    def __init__(self, data: Path, seed: int, config: PairsConfig | None = None) -> None:
        self.config = config or PairsConfig()
        # More backgrounds than pictures have: they are what a prompt leaves open.
        scenes = {"pair": 0.08, "relation": 0.12, "count": 0.12, "colour": 0.1, "colours": 0.1, "size": 0.05}
        kinds = {"single": 0.08, "plain": 0.27, **scenes, "sign": 0.05, "speech": 0.03}
        self.prompted = EmojiSet(World(data), EmojiSetConfig(kinds=kinds, scene_background=0.85))
        self.captioned = EmojiSet(World(data), EmojiSetConfig())
        self.words, self.chinese = everyday_words(WORDS), chinese_words(WORDS)
        self.meanings = meanings(packages_place() / WORDNET.folder / "package", MEANINGS, seed)

    def pair(self, rng: np.random.Generator) -> Pair:
        """Write of what the world draws, or of what nobody knows."""
        if coin(rng, self.config.strange):
            return strange_pair(self.words, self.chinese, self.config, rng)
        return known_pair(_truth(self.prompted, rng), self.prompted.lexicon, self.config, rng)

    def sentence(self, rng: np.random.Generator) -> str:
        """Write a caption as training has them, a description, or a word or its meaning."""
        lists = [one for one in (self.words, self.chinese, self.meanings) if one]
        if lists and coin(rng, 0.3):
            return pick(rng, pick(rng, lists))
        lexicon, truth = self.captioned.lexicon, _truth(self.captioned, rng)
        if coin(rng, 0.5):
            return write_caption(truth, lexicon, _EVENLY, rng)
        return description(truth, lexicon, "en" if coin(rng, 0.6) else "zh", rng)


class FolderTexts:
    """Captions of a folder: those people wrote are short, `NAME.short.txt` as well, `NAME.descriptive.txt` full.

    Args:
        data: the folder.
    """

    def __init__(self, data: Path) -> None:
        texts = FolderWrites(FolderSet(data, FolderSetConfig(size=1)), 0, {}).texts
        self.sentences = [one for kinds in texts for lines in kinds.values() for one in lines]
        self.pairs = [found for kinds in texts if (found := _alike(kinds))]
        self.stamp = hashlib.sha256(json.dumps(texts).encode()).hexdigest()  # of all captions

    @property
    def has_pairs(self) -> bool:
        """Whether a picture has a descriptive caption and a short one in its language."""
        return bool(self.pairs)

    def pair(self, rng: np.random.Generator) -> Pair:
        """Take two captions of one picture in one language."""
        return pick(rng, pick(rng, self.pairs))

    def sentence(self, rng: np.random.Generator) -> str:
        """Take a caption."""
        return pick(rng, self.sentences)


def open_texts(data: Path, seed: int) -> Texts:
    """Open an emoji world, or a folder of captioned pictures.

    Args:
        data: the folder.
        seed: of choices made once.

    Raises:
        BadData: when it is neither.
    """
    return WorldTexts(data, seed) if is_world(data) else FolderTexts(data)


class Teacher:
    """CLIP's text tower, which says what sentences mean.

    Args:
        clip: its folder.
    """

    def __init__(self, clip: Path) -> None:
        model = read_model(clip)
        self.clip: CLIP = load_folder(model)
        self.tokenizer = load_tokenizer(model)
        self.width = self.clip.config.embed

    @torch.no_grad()
    def __call__(self, sentences: Sequence[str]) -> torch.Tensor:
        """Embed sentences as unit vectors."""
        ids, mask = self.tokenizer.pack(list(sentences), self.clip.config.context)
        return self.clip.encode_text(torch.from_numpy(ids), torch.from_numpy(mask)).pooled


@dataclass(frozen=True, kw_only=True)
class SentenceBatches:
    """Batches as a pure function of seed and position."""

    texts: Texts
    tokenizer: ByteTokenizer
    teacher: Teacher | None  # None: nothing is said of meaning
    batch_size: int  # pairs
    num_holed: int  # sentences with holes
    context: int  # tokens that are read at most
    longest: int  # tokens that are written at most
    seed: int  # of all texts
    pairs_alone: bool = False  # the encoder stays as it is

    @cached_property
    def _holes(self) -> HolesConfig:
        return HolesConfig()

    def __call__(self, position: int) -> Iterator[SentencesBatch]:
        """Yield batches without end, beginning with the one at `position`."""
        while True:
            pool, within = divmod(position, POOL)
            pairs = self._pairs(pool) if self.texts.has_pairs else [None] * POOL
            holes = self._sentences(pool) if not self.pairs_alone else [None] * POOL
            for one, other in list(zip(pairs, holes, strict=True))[within:]:
                yield SentencesBatch(
                    pairs=None if one is None else self._packed(one),
                    holes=None if other is None else self._holed(other, position),
                )
                position += 1

    def _pairs(self, pool: int) -> list[list[Pair]]:
        rng = np.random.default_rng([self.seed, 0, pool])
        drawn = [self.texts.pair(rng) for _ in range(POOL * self.batch_size)]
        return self._by_length(drawn, [len((one.short + one.full).encode()) for one in drawn], rng)

    def _sentences(self, pool: int) -> list[list[str]]:
        rng = np.random.default_rng([self.seed, 1, pool])
        drawn = [self._holdable(rng) for _ in range(POOL * self.num_holed)]
        return self._by_length(drawn, [len(one.encode()) for one in drawn], rng)

    def _holdable(self, rng: np.random.Generator) -> str:
        """Write a sentence that something can be cut out of, with something left."""
        for _ in range(100):
            if len((sentence := self.texts.sentence(rng)).encode()) > 1:
                return sentence
        raise BadData("captions of one letter", "captions in which something can be missing")

    @staticmethod
    def _by_length(drawn: list[T], lengths: list[int], rng: np.random.Generator) -> list[list[T]]:
        order = np.argsort(lengths, kind="stable").reshape(POOL, -1)
        return [[drawn[place] for place in row] for row in order[rng.permutation(POOL)]]

    def _packed(self, pairs: Sequence[Pair]) -> TextPairs:
        encode = self.tokenizer.encode
        return pack_pairs(
            [encode(one.short) for one in pairs],
            [encode(opened(one.short) + one.full) for one in pairs],
            self.tokenizer,
            context=self.context,
            longest=self.longest,
            teacher=None if self.teacher is None else self.teacher([one.short for one in pairs]),
        )

    def _holed(self, sentences: Sequence[str], position: int) -> TextPairs:
        rng = np.random.default_rng([self.seed, 2, position])
        texts = [self.tokenizer.encode(one, limit=self.context - 1) for one in sentences]
        holed = [
            cut_holes(one if len(one) > 1 else [*one, *one, self.tokenizer.pad], self._holes, rng) for one in texts
        ]
        return pack_pairs(
            [one.source for one in holed],
            [one.missing for one in holed],
            self.tokenizer,
            context=self.context,
            longest=self.longest,
            teacher=None if self.teacher is None else self.teacher(sentences),
        )


_EVENLY = CaptionConfig()


def _truth(source: EmojiSet, rng: np.random.Generator) -> Truth:
    return source.truth(between(rng, 0, len(source) - 1), rng)


def _alike(kinds: dict[str, tuple[str, ...]]) -> list[Pair]:
    """Pair the captions of one picture that are in one language."""
    full = kinds.get("descriptive", ())
    shorts = (*kinds.get("short", ()), *kinds["original"])
    return [Pair(short=short, full=one) for one in full for short in shorts if language_of(short) == language_of(one)]
