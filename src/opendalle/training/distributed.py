"""One run on several processes, as `torchrun` starts them.

Every process holds the whole network and a slice of each micro-batch; gradients are averaged (DistributedDataParallel)
and every process makes the same step.  The order of samples is the same for any number of processes: micro-batch k is
cut into equal slices, one a process.  Only the first process writes.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import safetensors.torch
import torch
import torch.distributed
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from opendalle.base.errors import BadConfig, require
from opendalle.base.protocols import Losses, Objective

T = TypeVar("T")
Compute = Callable[[Any, Generator], Losses]


@dataclass(frozen=True, kw_only=True)
class World:
    """This process among those of the run."""

    rank: int = 0  # 0 is the one that writes
    size: int = 1  # how many processes
    local_rank: int = 0  # on this machine: which GPU is its own

    def __post_init__(self) -> None:
        require(0 <= self.rank < self.size, f"rank {self.rank} of {self.size} processes", "0 <= rank < size")

    def slice(self, samples: Sequence[T]) -> Sequence[T]:
        """Return this process's equal share of a micro-batch.

        Args:
            samples: the whole micro-batch (or its indices), in order.

        Raises:
            BadConfig: when it cannot be cut evenly.
        """
        share = self.share(len(samples))
        return samples[self.rank * share : (self.rank + 1) * share]

    def share(self, batch_size: int) -> int:
        """Return how many samples of a micro-batch are this process's.

        Args:
            batch_size: over all processes together.

        Raises:
            BadConfig: when it cannot be cut evenly.
        """
        if batch_size % self.size:
            raise BadConfig(f"a batch of {batch_size} for {self.size} processes", f"a multiple of {self.size}")
        return batch_size // self.size

    @property
    def writes(self) -> bool:
        """Whether this process writes saves, logs and pictures."""
        return self.rank == 0

    def mean(self, values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Average numbers over all processes.

        Args:
            values: the same length everywhere.
        """
        if self.size == 1:
            return values
        total = values.clone()
        torch.distributed.all_reduce(total)
        return total / self.size

    def any(self, *wishes: bool) -> tuple[bool, ...]:
        """Say of each wish whether any process has it, so that all decide alike.

        Args:
            *wishes: this process's.
        """
        if self.size == 1:
            return wishes
        flags = torch.tensor([float(wish) for wish in wishes])
        torch.distributed.all_reduce(flags, op=torch.distributed.ReduceOp.MAX)
        return tuple(bool(flag) for flag in flags)

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            torch.distributed.barrier()

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Average gradients over all processes, for objectives that run their own backward passes.

        Args:
            parameters: the same, in the same order, everywhere.
        """
        if self.size == 1:
            return
        for one in parameters:
            one.grad = torch.zeros_like(one) if one.grad is None else one.grad
            torch.distributed.all_reduce(one.grad)
            one.grad /= self.size

    def gather(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Collect every process's small tensors under `RANK/name`.

        Args:
            tensors: CPU tensors; names and shapes may differ from process to process.
        """
        if self.size == 1:
            return {f"0/{name}": one for name, one in tensors.items()}
        mine = torch.frombuffer(bytearray(safetensors.torch.save(dict(tensors))), dtype=torch.uint8)
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        torch.distributed.all_gather(lengths, torch.tensor([len(mine)]))
        longest = max(int(one) for one in lengths)
        padded = torch.cat([mine, mine.new_zeros(longest - len(mine))])
        received = [torch.empty_like(padded) for _ in range(self.size)]
        torch.distributed.all_gather(received, padded)
        return {
            f"{rank}/{name}": one
            for rank, (payload, length) in enumerate(zip(received, lengths, strict=True))
            for name, one in safetensors.torch.load(payload[: int(length)].numpy().tobytes()).items()
        }


@contextmanager
def joined_world() -> Iterator[World]:
    """Join the processes that torchrun started, for the length of the block; alone where it started none.

    Yields:
        This process's place, read from RANK, WORLD_SIZE and LOCAL_RANK.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield World()
        return
    world = World(
        rank=int(os.environ["RANK"]),
        size=int(os.environ["WORLD_SIZE"]),
        local_rank=int(os.environ.get("LOCAL_RANK", "0")),
    )
    if world.size == 1:
        yield world
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(world.local_rank)
    # Gradients travel by the device's own means, the few numbers of save and stop by gloo.
    torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield world
    finally:
        torch.distributed.destroy_process_group()


class Shared(nn.Module):
    """An objective as a module, so that DistributedDataParallel can average its groups' gradients.

    Args:
        objective: its `groups` are the parameters; its call is the forward pass.
    """

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.groups = nn.ModuleDict(dict(objective.groups))
        self._call = [objective]  # in a list: a frozen teacher inside the objective must not be registered

    def forward(self, batch: Any, rng: Generator) -> Losses:
        """Return the objective's losses.

        Args:
            batch: this process's slice of a micro-batch.
            rng: this process's chance.
        """
        return self._call[0](batch, rng)


def shared(objective: Objective, world: World) -> Compute:
    """Return the objective itself, or one whose backward pass averages gradients over the processes.

    Args:
        objective: the network to train.
        world: of this run.
    """
    if world.size == 1:
        return objective
    # Begin alike: the first process's weights.  Unused parameters (a late discriminator, a dropped path) are allowed.
    return DistributedDataParallel(Shared(objective), find_unused_parameters=True)


def unsynchronised(compute: Compute | None, last: bool) -> AbstractContextManager[Any]:
    """Keep the gradients of all but the last micro-batch of a step to oneself: one exchange a step is enough.

    Args:
        compute: what `shared` returned; None where the objective runs its own backward passes.
        last: whether this is the step's last micro-batch.
    """
    return nullcontext() if last or not isinstance(compute, DistributedDataParallel) else compute.no_sync()
