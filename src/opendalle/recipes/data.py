"""What recipes read: any picture set, as the batches that each objective wants."""

import hashlib
import json
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from opendalle.base.axes import Pictures
from opendalle.base.errors import require
from opendalle.checkpoint.folder import read_model
from opendalle.clip.model import CLIP
from opendalle.clip.objective import CaptionedBatch, SentenceBatch
from opendalle.codec.protocol import Codec
from opendalle.dalle2.objectives import PairBatch
from opendalle.data.embeddings import EmbeddingStore, Rows, StoreWriter, join_rows
from opendalle.data.emoji.dataset import EmojiSet, EmojiSetConfig
from opendalle.data.emoji.lexicon import STYLE_WORDS
from opendalle.data.emoji.truth import SCENE_KINDS
from opendalle.data.emoji.world import World
from opendalle.data.folder import FolderSet, FolderSetConfig
from opendalle.data.loading import Batch, LoadingConfig, PictureBatches
from opendalle.data.order import SampleOrder
from opendalle.data.sets import PictureSet
from opendalle.pictures import composite, from_array
from opendalle.pretrained.kinds import find_model
from opendalle.tokenizers.bpe import BytePairTokenizer
from opendalle.training.precision import autocast_dtype

PIECE, PIECES = 256, 16  # pictures encoded at once while pairs are computed, and how often until they are written


def is_world(data: Path) -> bool:
    """Whether a folder is an emoji world, made by `opendalle data emoji`."""
    return (data / "concepts.json").is_file() and (data / "manifest.json").is_file()


def open_set(data: Path, size: int, scenes: float | None = None, styles: str | None = None) -> PictureSet:
    """Open the training split of an emoji world, or a folder of pictures with .txt captions.

    Args:
        data: the folder.
        size: side of the pictures wanted, in pixels.
        scenes: share of a world's pictures that are composed of several things; None: the world's own share.
        styles: of a world's drawings, as `3d,flat`; None: all.

    Raises:
        BadConfig: when the share lies outside 0 to 1.
        BadData: when it is neither.
    """
    if is_world(data):
        config = EmojiSetConfig(size=size)
        if scenes is not None:
            config = replace(config, kinds=with_scenes(config.kinds, scenes))
        if styles is not None:
            config = replace(config, styles=tuple(styles.split(",")))
        return EmojiSet(World(data), config)
    return FolderSet(data, FolderSetConfig(size=size, crop="random"))


def stamps_of(data: Path, **settings: Any) -> dict[str, str]:
    """Write down what a run learns from, so that it goes on only with the same.

    Args:
        data: an emoji world, which has a stamp, or a folder, whose names, sizes and captions are hashed.
        **settings: what else makes its batches; of a model (a Path) the sha256 counts, wherever it lies.

    Raises:
        BadData: when it is neither.
        BadModel: when there is no such model.
    """
    models = {name: read_model(find_model(one)).sha256 for name, one in settings.items() if isinstance(one, Path)}
    return {"set": _stamp_of_set(data), **{name: str(one) for name, one in settings.items()}, **models}


def _stamp_of_set(data: Path) -> str:
    if is_world(data):
        return World(data).stamp
    told = [
        (entry.picture.relative_to(data).as_posix(), entry.picture.stat().st_size, entry.captions)
        for entry in FolderSet(data, FolderSetConfig(size=1)).entries
    ]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def with_scenes(kinds: Mapping[str, float], share: float) -> dict[str, float]:
    """Scale the weights of a world's kinds of pictures so that scenes make up a share.

    Args:
        kinds: kind -> weight.
        share: 0 to 1.

    Raises:
        BadConfig: when the share lies outside.
    """
    require(0.0 <= share <= 1.0, f"scenes is {share}", "a share from 0 to 1")
    in_scenes = sum(weight for kind, weight in kinds.items() if kind in SCENE_KINDS)
    alone = sum(kinds.values()) - in_scenes
    return {
        kind: weight * (share / in_scenes if kind in SCENE_KINDS else (1 - share) / alone)
        for kind, weight in kinds.items()
    }


def some_captions(pictures: PictureSet, count: int, seed: int) -> list[str]:
    """Draw captions as training will: what a tokenizer learns from.

    Args:
        pictures: the set.
        count: how many, at most; a folder's captions are all taken once.
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    if isinstance(pictures, EmojiSet):
        return list(pictures.iter_captions(count, rng))
    if isinstance(pictures, FolderSet):
        return [caption for entry in pictures.entries for caption in entry.captions][:count]
    return [pictures.read(index % len(pictures), rng).caption for index in range(count)]


def concept_of(truth: Any) -> int:
    """Number what a lone drawing shows, so that captions of one concept are not told apart; -1 where unknown."""
    if not truth or truth.get("kind") not in ("single", "plain"):
        return -1
    return zlib.crc32(truth["things"][0]["key"].encode())


def aspects_of(truth: Any) -> tuple[int, int]:
    """Number the style and the background of a lone drawing; -1, -1 of anything else.

    Args:
        truth: of an example.
    """
    if concept_of(truth) < 0:
        return -1, -1
    return zlib.crc32(truth["style"].encode()), zlib.crc32((truth["background"] or "").encode())


def said_of(truth: Any, caption: str) -> tuple[int, int]:
    """Return of `aspects_of` what a caption names: a style in its own words, and every background but none.

    Args:
        truth: of an example.
        caption: one that is true of it.
    """
    style, background = aspects_of(truth)
    if style < 0:
        return -1, -1
    words, caption = STYLE_WORDS[truth["style"]], caption.lower()
    is_named = any(word.lower() in caption for word in (*words.adjectives, *words.phrases, *words.zh))
    return style if is_named else -1, background if truth["background"] else -1


class CLIPBatches:
    """Captioned pictures for CLIP, with sentences that only the teacher explains.

    Args:
        pictures: the set, at CLIP's size.
        tokenizer: packs captions.
        context: tokens a caption.
        loading: size and order.
        sentences: what the teacher has embedded, with its vectors; None: no teacher.
        num_sentences: of them in every batch.
    """

    def __init__(
        self,
        pictures: PictureSet,
        tokenizer: BytePairTokenizer,
        context: int,
        loading: LoadingConfig,
        sentences: tuple[Sequence[str], Tensor] | None = None,
        num_sentences: int = 64,
    ) -> None:
        self.batches, self.tokenizer, self.context = PictureBatches(pictures, loading), tokenizer, context
        self.num_sentences, self.seed = num_sentences, loading.seed
        self.sentences: tuple[Tensor, Tensor, Tensor] | None = None
        if sentences is not None:
            ids, mask = tokenizer.pack(sentences[0], context)
            self.sentences = torch.from_numpy(ids), torch.from_numpy(mask), sentences[1]

    def __call__(self, position: int) -> Iterator[CaptionedBatch]:
        """Yield batches without end, beginning with the one at `position`."""
        for batch in self.batches(position):
            ids, mask = self.tokenizer.pack(list(batch.captions), self.context)
            yield CaptionedBatch(
                pictures=batch.pictures,
                ids=torch.from_numpy(ids),
                mask=torch.from_numpy(mask),
                concepts=torch.tensor([concept_of(truth) for truth in batch.truths]),
                aspects=torch.tensor([aspects_of(truth) for truth in batch.truths]),
                said=torch.tensor([said_of(*both) for both in zip(batch.truths, batch.captions, strict=True)]),
                sentences=self._sentences(batch.position),
            )

    def _sentences(self, position: int) -> SentenceBatch | None:
        if self.sentences is None:
            return None
        rng = np.random.default_rng([self.seed, position])
        rows = torch.from_numpy(rng.integers(len(self.sentences[0]), size=self.num_sentences))
        ids, mask, teacher = self.sentences
        return SentenceBatch(ids=ids[rows], mask=mask[rows], teacher=teacher[rows].float())


def pictures_of(values: Pictures) -> list[Image.Image]:
    """Turn what networks draw into pictures, laid on white."""
    return [composite(from_array(one.float().cpu().numpy())) for one in values]


Encode = Callable[[Batch, Any], Rows]  # batch, frozen networks -> named arrays, a row a picture


@runtime_checkable
class Arranged(Protocol):
    """Batches of a picture set from a position on."""

    def __call__(self, position: int) -> Generator[Batch, None, None]:
        """Yield batches without end, beginning with the one at `position`."""
        ...


Arrange = Callable[[Any, LoadingConfig], Arranged]


@runtime_checkable
class Encoders(Protocol):
    """The frozen networks that turn a set into pairs."""

    clip: CLIP
    codec: Codec
    tokenizer: BytePairTokenizer


def write_pairs(
    out: Path,
    pictures: PictureSet,
    encoders: Any,
    *,
    count: int,
    seed: int,
    stamps: Mapping[str, str],
    encode: Encode | None = None,
    arrange: Arrange = PictureBatches,
    tell: Callable[[int], None] = lambda done: None,
    stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Compute what generations train on, once, of `count` draws of a set.

    Args:
        out: the store's folder; must not exist.
        pictures: the set, at the size of the encoders.
        encoders: frozen networks, a codec among them.
        count: draws, rounded up to whole pieces.
        seed: of the order.
        stamps: of all that makes the pairs; what was computed earlier with the same ones is not computed again.
        encode: makes the arrays of a batch; None: embedding, grid and tokens, for prior and decoder.
        arrange: makes batches of the set, of one size each; another size may follow where all arrays of it are ragged.
        tell: called with the number of draws done.
        stop: asked after each piece whether to stop.

    Returns:
        Whether the store is whole; if not, it goes on where it stopped when called again.
    """
    size, gathered = min(PIECE, count), list[Rows]()
    writer = StoreWriter(out, stamps=stamps)
    first, last = writer.rows // size, -(-count // size)
    loading = LoadingConfig(batch_size=size, seed=seed, channels=encoders.codec.picture_channels, prefetch=2)
    batches = arrange(pictures, loading)(first)
    try:
        for number in range(first, last):
            gathered.append((encode or _encoded)(next(batches), encoders))
            tell((number + 1) * size)
            stopping = number + 1 < last and stop()
            if stopping or len(gathered) == PIECES or number + 1 == last:
                writer.add(join_rows(gathered))
                gathered = []
            if stopping:
                return False
        writer.finish()
        return True
    finally:
        batches.close()
        writer.close()


def _encoded(batch: Batch, encoders: Encoders) -> Rows:
    clip, device = encoders.clip, batch.pictures.device.type
    dtype = autocast_dtype("auto", clip.log_scale.device)  # as the networks that learn from the pairs compute
    with torch.no_grad(), torch.autocast(device, dtype=dtype, enabled=dtype is not None):
        z, grid = clip.encode_pictures(batch.pictures), encoders.codec.encode(batch.pictures)
    ids, mask = encoders.tokenizer.pack(list(batch.captions), clip.config.context)
    return {
        "z": z.float().numpy().astype(np.float16),
        "grid": grid.float().numpy().astype(np.float16),
        "ids": ids.astype(np.int32),
        "length": mask.sum(axis=1).astype(np.int32),
    }


class PairBatches:
    """Precomputed pairs in batches, in an order that is a pure function of seed and position.

    Args:
        store: made by `write_pairs`.
        batch_size: rows a batch.
        seed: of the order.
        with_grid: the prior does without the codec's grid.
        rows: only the first so many; None: all.
    """

    def __init__(
        self, store: EmbeddingStore, batch_size: int, seed: int, *, with_grid: bool, rows: int | None = None
    ) -> None:
        self.z = torch.from_numpy(store.array("z"))[:rows]
        self.grid = torch.from_numpy(store.array("grid")) if with_grid else None
        self.ids = torch.from_numpy(store.array("ids"))
        self.length = torch.from_numpy(store.array("length"))
        self.batch_size, self.order = batch_size, SampleOrder(len(self.z), seed)

    def __call__(self, position: int) -> Iterator[PairBatch]:
        """Yield batches without end, beginning with the one at `position`."""
        while True:
            first = position * self.batch_size
            rows = torch.tensor([self.order.place(first + row).index for row in range(self.batch_size)])
            places = torch.arange(self.ids.shape[1])
            yield PairBatch(
                z=self.z[rows].float(),
                ids=self.ids[rows].long(),
                mask=places < self.length[rows, None],
                grid=None if self.grid is None else self.grid[rows].float(),
            )
            position += 1
