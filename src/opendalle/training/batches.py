"""Where micro-batches come from: any function of a position.

`position` counts micro-batches from the very beginning of the run, over all epochs.  A source that is a pure function
of it (and of its own seed) makes resuming exact and instant: nothing has to be replayed, and no state of a loader has
to be saved.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from opendalle.base.errors import BadData


@runtime_checkable
class Batches(Protocol):
    """What the training loop may know of data."""

    def __call__(self, position: int) -> Iterator[Any]:
        """Yield micro-batches without end, beginning with the one at `position`.

        Args:
            position: micro-batches before the first one wanted, counted from the run's beginning.
        """
        ...


def next_batch(feed: Iterator[Any], position: int) -> Any:
    """Take one micro-batch.

    Args:
        feed: what a `Batches` returned.
        position: of the batch, for the message.

    Raises:
        BadData: when the feed has ended.
    """
    for batch in feed:
        return batch
    raise BadData(
        f"a source of batches that ended before batch {position}",
        "batches without end, epoch after epoch",
        "Has the picture set fewer pictures than a batch?",
    )


def move_to(batch: Any, device: torch.device) -> Any:
    """Move every tensor of a batch, however it is wrapped: dataclass, dict, tuple or list.

    Args:
        batch: anything; what holds no tensor is returned as it is.
        device: where to.
    """
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: move_to(one, device) for key, one in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(move_to(one, device) for one in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(move_to(one, device) for one in batch)
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        changes = {one.name: move_to(getattr(batch, one.name), device) for one in dataclasses.fields(batch) if one.init}
        return dataclasses.replace(batch, **changes)
    return batch
