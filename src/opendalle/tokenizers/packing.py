"""Captions as a rectangle, where a caption has an end and no start: what T5 and ByT5 read.  No torch."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from opendalle.base.errors import require
from opendalle.tokenizers.bpe import Packed


@runtime_checkable
class EndsCaptions(Protocol):
    """A tokenizer whose captions have an end, and padding after it."""

    @property
    def pad(self) -> int:
        """Token of a place that no caption uses."""
        ...

    @property
    def end(self) -> int:
        """Token after a caption's last."""
        ...

    def encode(self, text: str, *, limit: int | None = None) -> list[int]:
        """Turn a caption into at most `limit` token numbers, without specials."""
        ...


def pack_with_end(tokenizer: EndsCaptions, texts: Sequence[str], context: int) -> Packed:
    """Encode captions: tokens, end, padding; one that is too long loses its tail, never its end.

    Args:
        tokenizer: spells them.
        texts: b captions.
        context: tokens a row, at least 1.

    Raises:
        BadConfig: when the context cannot hold the end.
        BadRequest: when the tokenizer refuses a text.
    """
    require(context >= 1, f"context is {context}", "at least 1: the end")
    ids = np.full((len(texts), context), tokenizer.pad, dtype=np.int64)
    mask = np.zeros((len(texts), context), dtype=np.bool_)
    for row, text in enumerate(texts):
        tokens = [*tokenizer.encode(text, limit=context - 1), tokenizer.end]
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = True
    return Packed(ids, mask)
