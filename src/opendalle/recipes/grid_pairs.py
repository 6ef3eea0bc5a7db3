"""Pairs for DALL·E 3: a codec's grids of any shape, and every caption of each picture, as text.

Captions are kept as they are spelled, not as a text encoder reads them: a byte a letter instead of hundreds.  Whoever
trains reads them anew, or from a cache of states where the encoder is large.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from opendalle.codec.protocol import Codec
from opendalle.dalle3.objective import CaptionedGrids, SpelledCaptions
from opendalle.dalle3.reading import SpellsCaptions
from opendalle.dalle3.text_cache import TextCache
from opendalle.dalle3.text_encoder import TextStates
from opendalle.data.blending import OWN, BlendingConfig, choose
from opendalle.data.buckets import BucketOrder
from opendalle.data.embeddings import EmbeddingStore, Ragged, Rows
from opendalle.data.loading import Batch
from opendalle.data.voices import voice_name
from opendalle.training.precision import autocast_dtype

CELLS, SHAPE, SAID = "cells", "shape", "said:"  # names in a store: SAID before the name of a caption


@runtime_checkable
class HasCodec(Protocol):
    """Frozen networks, the codec among them."""

    codec: Codec


def encode_grids(batch: Batch, encoders: HasCodec, *, voices: Sequence[str]) -> Rows:
    """Turn a batch into rows of a store.

    Args:
        batch: pictures of one size, with all their captions.
        encoders: the codec.
        voices: names of the captions beside their own.
    """
    device = batch.pictures.device.type
    dtype = autocast_dtype("auto", batch.pictures.device)
    with torch.no_grad(), torch.autocast(device, dtype=dtype, enabled=dtype is not None):
        grid = encoders.codec.encode(batch.pictures)
    cells = rearrange(grid, "b c h w -> b (h w) c").float().numpy().astype(np.float16)
    told = {OWN: list(batch.captions)}
    told |= {voice: [others.get(voice, "") for others in batch.others] for voice in voices}
    rows: dict[str, np.ndarray | Ragged] = {
        CELLS: Ragged.of(list(cells)),
        SHAPE: np.tile(np.array(grid.shape[2:], dtype=np.int32), (len(grid), 1)),
    }
    return rows | {SAID + voice: Ragged.of([_bytes(text) for text in texts]) for voice, texts in told.items()}


class StoredCaptions:
    """Every caption of a store, by row and name.

    Args:
        store: of such rows.
    """

    def __init__(self, store: EmbeddingStore) -> None:
        self.voices = tuple(name.removeprefix(SAID) for name in store.arrays if name.startswith(SAID))
        self._bytes = {voice: store.array(SAID + voice) for voice in self.voices}
        self._ends = {voice: np.cumsum(store.lengths(SAID + voice)) for voice in self.voices}

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of the captions that were written anew."""
        return tuple(dict.fromkeys(voice.split("/")[0] for voice in self.voices if voice != OWN))

    @property
    def languages(self) -> tuple[str, ...]:
        """Of the captions that were written anew."""
        return tuple(dict.fromkeys(voice.split("/")[1] for voice in self.voices if voice != OWN))

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._ends[OWN])

    def text(self, row: int, voice: str) -> str:
        """Return a caption; empty where there is none.

        Args:
            row: of the store.
            voice: its name.
        """
        ends = self._ends[voice]
        return self._bytes[voice][ends[row - 1] if row else 0 : ends[row]].tobytes().decode("utf-8", "surrogatepass")

    def all(self) -> list[str]:
        """Return all captions, those of a row side by side: what a cache of states is of."""
        return [self.text(row, voice) for row in range(len(self)) for voice in self.voices]

    def number(self, row: int, voice: str) -> int:
        """Return the place of a caption among `all`."""
        return row * len(self.voices) + self.voices.index(voice)


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """The caption that a sample gets."""

    row: int
    voice: str


class GridBatches:
    """Pairs in batches, each of one shape, in an order that is a pure function of seed and position.

    Args:
        store: made by `encode_grids`.
        tokenizer: packs captions.
        context: tokens a caption.
        batch_size: rows a batch.
        seed: of the order, and of the blend.
        blending: how often captions that were written anew are taken; None: never.
        rows: only the first so many; None: all.
        cache: of all the store's captions; None: whoever trains reads them.
    """

    def __init__(
        self,
        store: EmbeddingStore,
        tokenizer: SpellsCaptions,
        context: int,
        batch_size: int,
        seed: int,
        *,
        blending: BlendingConfig | None = None,
        rows: int | None = None,
        cache: TextCache | None = None,
    ) -> None:
        self.captions, self.tokenizer, self.context = StoredCaptions(store), tokenizer, context
        self.blending = blending or BlendingConfig(share=0.0)
        self.cache = cache
        self._cells, self._ends = store.array(CELLS), np.cumsum(store.lengths(CELLS))
        shapes = store.array(SHAPE)[:rows]
        self.shapes: list[tuple[int, int]] = [(int(h), int(w)) for h, w in np.unique(shapes, axis=0)]
        self._members = [np.flatnonzero((shapes == shape).all(axis=1)) for shape in self.shapes]
        self.order = BucketOrder([len(one) for one in self._members], batch_size, seed)

    @property
    def shares(self) -> Mapping[str, float]:
        """Share of each shape among the batches."""
        return dict(zip(map(_shape_name, self.shapes), self.order.shares, strict=True))

    def __call__(self, position: int) -> Iterator[CaptionedGrids]:
        """Yield batches without end, beginning with the one at `position`."""
        while True:
            yield self.batch(position)
            position += 1

    def batch(self, position: int) -> CaptionedGrids:
        """Make one batch.

        Args:
            position: of the batch, from 0 over the whole run.
        """
        place = self.order.place(position)
        rows = self._members[place.bucket][list(place.rows)].tolist()
        drawn = [
            self._draw(row, self.order.generator(place.bucket, place.first + sample)) for sample, row in enumerate(rows)
        ]
        shares = {"written anew": sum(one.voice != OWN for one in drawn) / len(drawn)}
        if len(self.shapes) > 1:  # their means over a log are the shares of the run
            shares |= {_shape_name(shape): float(one == place.bucket) for one, shape in enumerate(self.shapes)}
        grid = self._grids(rows, self.shapes[place.bucket])
        return CaptionedGrids(grid=grid, captions=self._said(drawn), shares=shares)

    def _draw(self, row: int, rng: np.random.Generator) -> Drawn:
        """Choose among the captions of a row; one that is missing is replaced by the other."""
        if not self.captions.kinds:
            return Drawn(row=row, voice=OWN)
        languages = self.blending.languages or dict.fromkeys(self.captions.languages, 1.0)
        choice = choose(self.blending, languages, rng)
        other, is_bare = voice_name(choice.kind, choice.language), not self.captions.text(row, OWN)
        is_there = bool(self.captions.text(row, other))
        return Drawn(row=row, voice=other if is_there and (choice.is_rewritten or is_bare) else OWN)

    def _grids(self, rows: Sequence[int], shape: tuple[int, int]) -> Float[Tensor, "b c h w"]:
        height, width = shape
        cells = np.stack([self._cells[self._ends[row] - height * width : self._ends[row]] for row in rows])
        return rearrange(torch.from_numpy(cells).float(), "b (h w) c -> b c h w", h=height)

    def _said(self, drawn: Sequence[Drawn]) -> SpelledCaptions | TextStates:
        if self.cache is not None:
            numbers: Int[Tensor, " b"] = torch.tensor([self.captions.number(one.row, one.voice) for one in drawn])
            return self.cache.read(numbers)
        packed = self.tokenizer.pack([self.captions.text(one.row, one.voice) for one in drawn], self.context)
        return SpelledCaptions(ids=torch.from_numpy(packed.ids).long(), mask=torch.from_numpy(packed.mask))


def _bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-8", "surrogatepass"), dtype=np.uint8)


def _shape_name(shape: tuple[int, int]) -> str:
    return f"grid {shape[1]}x{shape[0]}"
