"""A key map as a table: each row says which foreign tensors make one of ours.

The same table is read in both directions, so whatever it turns into ours it can turn back, and the two directions
cannot drift apart.  It is total: a key that is neither in a row nor knowingly dropped is an error that names it, and
so is a key that is missing.  A map that passes over what it does not know is how weights come to be half loaded.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor

from opendalle.base.errors import BadModel


@dataclass(frozen=True, kw_only=True)
class Row:
    """One tensor of ours and the foreign ones that it is made of."""

    ours: str  # key in our state dict
    theirs: tuple[str, ...]  # foreign keys, of equal shapes, stacked in this order along the first axis
    num_leading: int = 0  # axes of length 1 that stand before the foreign tensor's own
    num_trailing: int = 0  # axes of length 1 that ours has behind the foreign tensor's: a matrix as a 1x1 convolution


@dataclass(frozen=True, kw_only=True)
class KeyTable:
    """All keys of one network, there and here; both directions are pure and may share memory with what came."""

    origin: str  # whose keys they are, for error messages
    rows: tuple[Row, ...]
    dropped: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))  # foreign key -> why it may go

    def __post_init__(self) -> None:
        for side in ([row.ours for row in self.rows], [*(key for row in self.rows for key in row.theirs)]):
            assert max(Counter(side).values(), default=1) == 1, "every key stands in one row"

    def to_ours(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Turn a foreign state dict into ours.

        Args:
            state: foreign key -> tensor, all of them.

        Raises:
            BadModel: naming the first key that is unknown, missing, or of an unfit shape.
        """
        wanted = [key for row in self.rows for key in row.theirs]
        self._check(state, wanted, self.dropped, whose=self.origin)
        return {row.ours: self._stacked(row, state) for row in self.rows}

    def to_theirs(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Turn our state dict into the foreign one; what `dropped` names is not made up again.

        Args:
            state: our key -> tensor, all of them.

        Raises:
            BadModel: naming the first key that is unknown, missing, or of an unfit shape.
        """
        self._check(state, [row.ours for row in self.rows], {}, whose="our network")
        return {key: tensor for row in self.rows for key, tensor in self._parted(row, state[row.ours]).items()}

    def _check(self, state: Mapping[str, Tensor], wanted: list[str], spare: Mapping[str, str], *, whose: str) -> None:
        known = {*wanted, *spare}
        if unknown := [key for key in state if key not in known]:
            raise BadModel(
                f"the weights {unknown[0]!r}{_more(unknown)}, which {whose} of this config does not have",
                f"exactly its {len(wanted)} keys",
                "Do config and weights belong together?",
            )
        if missing := [key for key in wanted if key not in state]:
            raise BadModel(
                f"no weights {missing[0]!r}{_more(missing)} for {whose}",
                f"all its {len(wanted)} keys",
                "Do config and weights belong together?",
            )

    def _stacked(self, row: Row, state: Mapping[str, Tensor]) -> Tensor:
        parts = [state[key] for key in row.theirs]
        for key, part in zip(row.theirs, parts, strict=True):
            if part.shape != parts[0].shape or part.ndim <= row.num_leading or any(n != 1 for n in _leading(row, part)):
                wanted = f"{row.num_leading} axes of length 1 and its own"
                if len(parts) > 1:
                    wanted = f"{tuple(parts[0].shape)} as {row.theirs[0]}"
                raise BadModel(f"{key!r} of shape {tuple(part.shape)} in {self.origin}", wanted)
        whole = parts[0] if len(parts) == 1 else torch.cat(parts)
        return whole.reshape(*whole.shape[row.num_leading :], *[1] * row.num_trailing)

    def _parted(self, row: Row, tensor: Tensor) -> dict[str, Tensor]:
        count = len(row.theirs)
        if tensor.ndim == 0 or tensor.shape[0] % count:
            raise BadModel(f"{row.ours!r} of shape {tuple(tensor.shape)}", f"a first axis that {count} parts divide")
        own = tensor.ndim - row.num_trailing
        if own < 1 or any(side != 1 for side in tensor.shape[own:]):
            raise BadModel(f"{row.ours!r} of shape {tuple(tensor.shape)}", f"{row.num_trailing} last axes of length 1")
        tensor = tensor.reshape(tensor.shape[:own])
        parts = tensor.chunk(count) if count > 1 else (tensor,)
        return {
            key: part.reshape(*[1] * row.num_leading, *part.shape) for key, part in zip(row.theirs, parts, strict=True)
        }


def layer(ours: str, *theirs: str) -> Iterable[Row]:
    """Rows of a layer's weight and bias; several foreign layers become one of ours by stacking their outputs.

    Args:
        ours: the layer's name in our network.
        theirs: its name, or names, there.
    """
    return [Row(ours=f"{ours}.{kind}", theirs=tuple(f"{one}.{kind}" for one in theirs)) for kind in ("weight", "bias")]


def _leading(row: Row, tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape[: row.num_leading])


def _more(keys: list[str]) -> str:
    return f" and {len(keys) - 1} more" if len(keys) > 1 else ""
