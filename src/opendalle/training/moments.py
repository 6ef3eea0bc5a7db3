"""What passes through a network's layers: second moments of their inputs, for rounding with feedback."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from opendalle.base.protocols import Objective
from opendalle.training.batches import Batches, move_to, next_batch
from opendalle.training.chance import batch_generator, undisturbed
from opendalle.training.precision import autocast_dtype

PLACES, ROWS = 4_096, 2_048  # of a convolution's, cut out and kept a call: many places of a picture say the same


class InputMoments:
    """Second moments of the inputs of every linear layer and convolution of some modules.

    A matrix that is used in another way (an embedding, a convolution in groups) has none.
    """

    def __init__(self) -> None:
        self._sums: dict[str, dict[str, Tensor]] = {}

    def of(self, group: str) -> Mapping[str, Float[Tensor, "columns columns"]]:
        """Return the moments of one module's layers: name of the weight -> sum of outer products.

        Args:
            group: as in `Objective.groups`; one that was never at work has none.
        """
        return self._sums.get(group, {})

    def gather(self, objective: Objective, batches: Batches, count: int, seed: int) -> None:
        """Let an objective work on its first batches without learning from them.

        Args:
            objective: its modules in the state in which they will be written.
            batches: of its training.
            count: how many of them.
            seed: of what the objective draws.
        """
        device = next(iter(next(iter(objective.groups.values())).parameters())).device
        dtype, feed = autocast_dtype("auto", device), batches(0)
        with undisturbed(), self.watching(objective.groups):  # with gradients: some losses ask for them on the way
            for position in range(count):
                batch = move_to(next_batch(feed, position), device)
                with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
                    objective(batch, batch_generator(seed, position))

    @contextmanager
    def watching(self, groups: Mapping[str, nn.Module]) -> Iterator[None]:
        """Add up what passes through modules within the block.

        Args:
            groups: name -> module.
        """
        handles = [
            layer.register_forward_pre_hook(partial(self._add, self._sums.setdefault(group, {}), f"{name}.weight"))
            for group, module in groups.items()
            for name, layer in module.named_modules()
            if _inputs_of(layer) is not None
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @staticmethod
    def _add(sums: dict[str, Tensor], name: str, layer: nn.Module, given: tuple[Any, ...]) -> None:
        rows = _inputs_of(layer)
        assert rows is not None
        inputs = rows(given[0].detach().float())
        moments = (inputs.T @ inputs).cpu()
        sums[name] = sums[name] + moments if name in sums else moments


def _inputs_of(layer: nn.Module) -> Callable[[Tensor], Float[Tensor, "n columns"]] | None:
    """Return what lays out a layer's inputs as its matrix meets them; None for layers that are no plain matrix."""
    if isinstance(layer, nn.Linear):
        return lambda given: given.reshape(-1, given.shape[-1])
    if isinstance(layer, nn.Conv2d) and layer.groups == 1 and layer.padding_mode == "zeros":
        return partial(_patches, layer)
    return None


def _patches(layer: nn.Conv2d, pictures: Float[Tensor, "b c h w"]) -> Float[Tensor, "n columns"]:
    """Cut out what a convolution looks at, channels outermost, as its weights lie."""
    places = max(1, pictures[0, 0].numel() // (layer.stride[0] * layer.stride[1]))
    some = pictures[: max(1, PLACES // places)]
    assert not isinstance(layer.padding, str)
    patches = F.unfold(some, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    rows = patches.transpose(1, 2).reshape(-1, patches.shape[1])
    every = -(-len(rows) // ROWS)
    return rows[:: every + 1 - every % 2]  # an odd stride walks through all columns of a grid with even sides
