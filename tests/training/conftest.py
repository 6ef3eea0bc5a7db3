from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Generator, Tensor, nn

from opendalle.base.protocols import Losses


class Sum(nn.Module):
    """Learns to add four numbers; has everything that must survive a resume: dropout, a buffer, a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.GELU(), nn.Dropout(0.2), nn.Linear(8, 1))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, numbers: Tensor) -> Tensor:
        self.calls += self.training
        return self.layers(numbers)


class SumObjective:
    """Two groups, noise from the loop's generator, and a teacher outside the groups."""

    def __init__(self) -> None:
        torch.manual_seed(7)
        self.near, self.far = Sum(), Sum()
        self.groups = {"near": self.near, "far": self.far}
        self.teacher = torch.zeros(1)
        self.told: list[tuple[int, int]] = []

    def __call__(self, batch: Tensor, rng: Generator) -> Losses:
        noisy = batch + 0.1 * torch.randn(batch.shape, generator=rng)
        wanted = batch.sum(1, keepdim=True)
        near = (self.near(noisy) - wanted).square().mean()
        far = (self.far(noisy) - wanted - self.teacher).square().mean()
        return Losses(total={"near": near, "far": far}, watch={"mean": float(batch.mean())})

    def before_step(self, pictures: int, total: int) -> None:
        self.told.append((pictures, total))

    def after_step(self) -> None:
        self.teacher = 0.9 * self.teacher + 0.1 * next(self.near.layers.parameters()).detach().mean()

    def remember(self) -> dict[str, Tensor]:
        return {"teacher": self.teacher}

    def recall(self, tensors: dict[str, Tensor]) -> None:
        self.teacher = tensors["teacher"]


def numbers(position: int) -> Iterator[Tensor]:
    while True:
        yield torch.randn(8, 4, generator=torch.Generator().manual_seed(position))
        position += 1


@pytest.fixture
def objective() -> Callable[[], SumObjective]:
    return SumObjective


@pytest.fixture
def batches() -> Callable[[int], Iterator[Tensor]]:
    return numbers
