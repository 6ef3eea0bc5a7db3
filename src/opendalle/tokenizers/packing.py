"""Captions as a rectangle, where a caption has an end and no start: what T5 and ByT5 read.  No torch."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from opendalle.base.errors import require
from opendalle.tokenizers.bpe import Packed


class EndsCaptions(ABC):
    """A tokenizer whose captions have an end, and padding after it."""

    pad: int  # token of a place that no caption uses
    end: int  # token after a caption's last

    @abstractmethod
    def encode(self, text: str, *, limit: int | None = None) -> list[int]:
        """Turn a caption into at most `limit` token numbers, without specials."""

    def pack(self, texts: Sequence[str], context: int) -> Packed:
        """Encode captions into one rectangle: tokens, end, padding.

        Args:
            texts: b captions; an empty one is its end alone.
            context: tokens a row, at least 1; a caption that is too long loses its tail, never its end token.

        Raises:
            BadConfig: when the context cannot hold the end.
            BadRequest: when a text holds half a surrogate pair.
        """
        require(context >= 1, f"context is {context}", "at least 1: the end")
        ids = np.full((len(texts), context), self.pad, dtype=np.int64)
        mask = np.zeros((len(texts), context), dtype=np.bool_)
        for row, text in enumerate(texts):
            tokens = [*self.encode(text, limit=context - 1), self.end]
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = True
        return Packed(ids, mask)
