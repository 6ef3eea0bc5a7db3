"""Captions read once and kept on disk: the encoder is frozen and far larger than what learns from it.

A caption takes as much room as it has tokens.  States lie there in bfloat16, which has float32's range, or exact in
float32; never in float16, which they overflow.  numpy knows no bfloat16, so its bits lie there as uint16.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from opendalle.base.errors import BadData
from opendalle.dalle3.reading import CaptionReader
from opendalle.dalle3.text_encoder import TextStates
from opendalle.data.embeddings import EmbeddingStore, Ragged, StoreWriter

STATES = "states"
Precision = Literal["bfloat16", "float32"]
PIECE = 256  # captions a shard
TOGETHER = 32  # captions that the encoder reads at once


def to_ragged(said: TextStates, precision: Precision = "bfloat16") -> Ragged:
    """Return states as they lie on disk: real tokens only.

    Args:
        said: of captions whose padding comes last.
        precision: what they are rounded to.
    """
    real = said.states[said.mask].cpu()
    lengths = said.mask.sum(dim=1).cpu().numpy().astype(np.int64)
    if precision == "float32":
        return Ragged(values=real.float().numpy(), lengths=lengths)
    return Ragged(values=real.bfloat16().view(torch.uint16).numpy(), lengths=lengths)


def cache_stamps(reader: CaptionReader, captions: Sequence[str]) -> dict[str, str]:
    """Say what a cache is of: encoder, tokenizer, length, and every caption in its place.

    Args:
        reader: makes the states.
        captions: row by row.
    """
    digest = hashlib.sha256()
    for caption in captions:
        spelled = caption.encode("utf-8", "surrogatepass")
        digest.update(len(spelled).to_bytes(8, "little") + spelled)
    return {**reader.stamps(), "captions": digest.hexdigest()}


def write_text_cache(
    out: Path,
    captions: Sequence[str],
    reader: CaptionReader,
    *,
    precision: Precision = "bfloat16",
    tell: Callable[[int], None] = lambda done: None,
    stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Read captions and keep what was read, row by row.

    Args:
        out: the cache's folder; must not exist.
        captions: one a row, at least one.
        reader: tokenizer and encoder.
        precision: in which states are kept.
        tell: called with the number of captions done.
        stop: asked after each shard whether to stop.

    Returns:
        Whether the cache is whole; if not, it goes on where it stopped when called again.

    Raises:
        BadData: when `out` exists, its pieces are of another encoder or other captions, or there is no caption.
        BadRequest: when a caption is no valid text.
    """
    stamps = {**cache_stamps(reader, captions), "precision": precision}
    writer = StoreWriter(out, stamps=stamps)
    try:
        while writer.rows < len(captions):
            piece = captions[writer.rows : writer.rows + PIECE]
            parts = [
                to_ragged(reader.read(piece[first : first + TOGETHER]), precision)
                for first in range(0, len(piece), TOGETHER)
            ]
            writer.add({STATES: Ragged.joined(parts)})
            tell(writer.rows)
            if writer.rows < len(captions) and stop():
                return False
        writer.finish()
        return True
    finally:
        writer.close()


class TextCache:
    """States of captions from disk, in the order in which they were read.

    Args:
        folder: made by `write_text_cache`.
        stamps: from `cache_stamps`, of the reader and the captions in use.
        verify: also compare every shard's sha256, which reads all bytes once.

    Raises:
        BadData: when it is no cache, is damaged, or was made by another encoder or of other captions.
    """

    def __init__(self, folder: Path, *, stamps: Mapping[str, str], verify: bool = False) -> None:
        self._store = EmbeddingStore(folder, stamps=stamps, verify=verify)
        info, context = self._store.arrays.get(STATES), self._store.stamps.get("context")
        if (
            context is None
            or info is None
            or not info.is_ragged
            or info.dtype not in ("uint16", "float32")
            or len(info.shape) != 1
        ):
            raise BadData(f"{folder}, which holds no states of captions", "a cache of captions", "Compute it again.")
        self.context, self._is_rounded = int(context), info.dtype == "uint16"
        self.width = info.shape[0]

    def __len__(self) -> int:
        """Return the number of captions."""
        return len(self._store)

    def read(self, rows: Int[Tensor, " b"]) -> TextStates:
        """Return what the reader said of some captions, in float32, padded to its length.

        Args:
            rows: which captions; 0 <= row < len.

        Raises:
            IndexError: when there is no such caption.
        """
        states = torch.zeros(len(rows), self.context, self.width)
        mask = torch.zeros(len(rows), self.context, dtype=torch.bool)
        for place, row in enumerate(rows.tolist()):
            kept = torch.from_numpy(self._store.row(STATES, row))
            states[place, : len(kept)] = kept.view(torch.bfloat16).float() if self._is_rounded else kept
            mask[place, : len(kept)] = True
        return TextStates(states=states, mask=mask)
