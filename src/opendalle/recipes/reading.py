"""Captions read once: small networks learn from the same captions many times, and reading costs more than they do."""

from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor

from opendalle.base.axes import Embeddings, Mask, States, Tokens
from opendalle.base.errors import BadRequest

AT_ONCE = 256  # captions read at once


@runtime_checkable
class Reader(Protocol):
    """CLIP's frozen text tower, and its empty caption."""

    empty: tuple[Int[Tensor, " n"], Bool[Tensor, " n"]]

    def read(self, ids: Tokens, mask: Mask) -> tuple[Embeddings, States]:
        """Return pooled embeddings and token states."""
        ...


class ReadCaptions:
    """Every caption of a set as CLIP reads it, in half precision; itself a reader of those captions.

    They are read in order of their length, so that hardly any padding is computed; each distinct one once.

    Args:
        reader: the text tower.
        ids: captions, packed to the context.
        mask: True where a token is real; padding comes last.
    """

    def __init__(self, reader: Reader, ids: Tokens, mask: Mask) -> None:
        ids = torch.cat([reader.empty[0][None], ids])
        length = torch.cat([reader.empty[1][None], mask]).sum(dim=1)
        rows = {key: row for row, key in reversed(list(enumerate(_keys(ids))))}  # the first of each stays
        kept = torch.tensor(sorted(rows.values(), key=lambda row: (int(length[row]), row)))
        ids, length = ids[kept], length[kept]
        self._places = {key: place for place, key in enumerate(_keys(ids))}
        self.start = F.pad(length.cumsum(dim=0), (1, 0))  # of each caption among all states
        pooled, states = list[Tensor](), list[Tensor]()
        for some in torch.arange(len(ids)).split(AT_ONCE):
            longest = int(length[some].amax())
            real = torch.arange(longest) < length[some, None]
            read = reader.read(ids[some, :longest], real)
            pooled.append(read[0])
            states.append(read[1][real].half())
        self.pooled, self.states = torch.cat(pooled), torch.cat(states)  # states of real tokens, one after the other

    def __call__(self, ids: Tokens, mask: Mask) -> tuple[Embeddings, States]:
        """Look captions up; the arguments and what is returned are those of `Reader.read`.

        Raises:
            BadRequest: when one of them was not read.
        """
        rows = self._rows(ids)
        places = self.start[rows, None] + torch.arange(ids.shape[1])
        states = self.states[places.clamp(max=len(self.states) - 1)].float()
        return self.pooled[rows], states * mask[..., None]

    def pooled_of(self, ids: Tokens) -> Embeddings:
        """Look up pooled embeddings alone.

        Args:
            ids: captions, packed to the context.

        Raises:
            BadRequest: when one of them was not read.
        """
        return self.pooled[self._rows(ids)]

    def _rows(self, ids: Tokens) -> Int[Tensor, " b"]:
        try:
            return torch.tensor([self._places[key] for key in _keys(ids)])
        except KeyError:
            raise BadRequest("a caption that was not read", "one of the set") from None


def _keys(ids: Tokens) -> list[bytes]:
    return [row.tobytes() for row in ids.numpy()]
