"""The one statistic that Analytic-DPM needs of a trained network, measured once and stored beside its weights."""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from opendalle.base.errors import BadData
from opendalle.base.protocols import Denoise
from opendalle.diffusion.grids import check_grid
from opendalle.diffusion.process import q_sample
from opendalle.diffusion.schedules import Schedule


@torch.no_grad()
def measure_noise_power(
    denoise: Denoise,
    batches: Iterable[Float[Tensor, "b *d"]],
    schedule: Schedule,
    grid: Sequence[int],
    generator: Generator,
) -> tuple[float, ...]:
    """Mean square of the noise that a network predicts, for every step of training.

    Args:
        denoise: the network, unguided and unclipped.
        batches: clean data; every batch is noised once for each step of the grid.
        schedule: signal and noise scales.
        grid: steps that are measured; those between are interpolated on a line, those outside take the nearest.
        generator: chance, on the CPU.

    Raises:
        BadData: when there is no batch.
        BadRequest: when the grid leaves the schedule.

    Source: Analytic-DPM, arXiv:2201.06503, eq. 9: Gamma_t = E|eps|^2 / (d sigma_t^2); sigma_t^2 Gamma_t is kept here.
    """
    check_grid(grid, schedule.num_steps)
    total = torch.zeros(len(grid), dtype=torch.float64)
    num_batches = 0
    for x0 in batches:
        num_batches += 1
        for i, step in enumerate(grid):
            t = torch.full((len(x0),), step, device=x0.device)
            eps = torch.randn(x0.shape, generator=generator).to(x0)
            predicted = denoise(q_sample(x0, t, eps, schedule), t).eps
            total[i] += predicted.double().square().mean().cpu()
    if num_batches == 0:
        raise BadData("no batch to measure the network on", "at least one")
    return _interpolated(tuple(grid), (total / num_batches).tolist(), schedule.num_steps)


def _interpolated(grid: tuple[int, ...], values: list[float], num_steps: int) -> tuple[float, ...]:
    """Values at every step, on straight lines between the measured ones."""
    rising = sorted(zip(grid, values, strict=True))
    filled: list[float] = []
    for step in range(num_steps):
        below = max((pair for pair in rising if pair[0] <= step), default=rising[0])
        above = min((pair for pair in rising if pair[0] >= step), default=rising[-1])
        share = (step - below[0]) / (above[0] - below[0]) if above[0] > below[0] else 0.0
        filled.append(below[1] + share * (above[1] - below[1]))
    return tuple(filled)
