"""Grids: the few steps of training that a sampler visits, from the noisiest down.

A grid is a tuple of falling steps, plain data that a recipe can hold.  After its last step a sampler always goes to
clean data.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch

from opendalle.base.errors import BadRequest
from opendalle.diffusion.schedules import Schedule

Grid = tuple[int, ...]
Spacing = Literal["trailing", "leading", "linspace"]


def check_grid(grid: Sequence[int], num_train_steps: int) -> None:
    """Refuse a grid that is empty, does not fall, or leaves the schedule.

    Args:
        grid: steps from the noisiest down.
        num_train_steps: steps of training.

    Raises:
        BadRequest: in all three cases.
    """
    falls = all(later < earlier for earlier, later in pairwise(grid))
    if not grid or not falls or grid[0] >= num_train_steps or grid[-1] < 0:
        raise BadRequest(f"the grid {tuple(grid)}", f"falling steps from at most {num_train_steps - 1} to at least 0")


def strided(num_train_steps: int, num_steps: int, spacing: Spacing = "trailing") -> Grid:
    """Steps at equal distances.

    Args:
        num_train_steps: steps of training.
        num_steps: steps to visit.
        spacing: `trailing` starts at the last step and stays clear of 0; `leading` ends at 0 and may miss the noisiest
            steps, as DDIM was published; `linspace` holds both ends.

    Raises:
        BadRequest: when more steps are asked than were trained.

    Source: the three spacings are compared in arXiv:2305.08891, table 2.
    """
    _check_count(num_train_steps, num_steps)
    if spacing == "linspace":
        return karlo(num_train_steps, num_steps)
    if spacing == "leading":
        stride = num_train_steps // num_steps
        return tuple(stride * i for i in reversed(range(num_steps)))
    stride = num_train_steps / num_steps
    return tuple(round(num_train_steps - stride * i) - 1 for i in range(num_steps))


def karlo(num_train_steps: int, num_steps: int) -> Grid:
    """Karlo's grid: num_steps points from 0 to the last step, ends included, each rounded.

    Args:
        num_train_steps: steps of training.
        num_steps: steps to visit; a single one is the last step (the published code divides by zero there).

    Raises:
        BadRequest: when more steps are asked than were trained.

    Source: respacing of ADM, arXiv:2105.05233, as Karlo uses it; 7 of 1000 are 999 832 666 500 333 166 0.
    """
    _check_count(num_train_steps, num_steps)
    if num_steps == 1:
        return (num_train_steps - 1,)
    stride = (num_train_steps - 1) / (num_steps - 1)
    return tuple(round(stride * i) for i in reversed(range(num_steps)))


def sections(num_train_steps: int, counts: Sequence[int]) -> Grid:
    """Cut training into equal sections and visit a number of steps of each.

    Args:
        num_train_steps: steps of training.
        counts: steps to visit in each section, the least noisy section first.

    Raises:
        BadRequest: when a section is shorter than its count.

    Source: Improved DDPM, arXiv:2102.09672, section 4, as its published code rounds.
    """
    size, extra = divmod(num_train_steps, len(counts))
    steps: list[int] = []
    start = 0
    for i, count in enumerate(counts):
        length = size + (i < extra)
        _check_count(length, count)
        stride = (length - 1) / (count - 1) if count > 1 else 1.0
        steps += [start + round(stride * k) for k in range(count)]
        start += length
    return tuple(reversed(steps))


def fast27(num_train_steps: int = 1000) -> Grid:
    """GLIDE's grid of 27 DDIM steps for the 64 to 256 upsampler: most steps where detail is made.

    Args:
        num_train_steps: steps of training.

    Raises:
        BadRequest: when there are too few of them.

    Source: GLIDE, arXiv:2112.10741, its published code: sections 10, 10, 3, 2, 2 with 999 moved to 997.
    """
    noisiest, *rest = sections(num_train_steps, (10, 10, 3, 2, 2))
    return (noisiest - 2, *rest)


def even_snr(schedule: Schedule, num_steps: int, lowest: float = -8.0) -> Grid:
    """Steps at equal distances in the logarithm of the signal-to-noise ratio, which multistep solvers like.

    Args:
        schedule: signal and noise scales.
        num_steps: steps to visit.
        lowest: log SNR of the second step at the earliest.  The first is always the last of training, but schedules
            that end in next to no signal would spend many steps there, where nothing is decided yet.

    Raises:
        BadRequest: when more steps are asked than were trained.

    Source: DPM-Solver, arXiv:2206.00927, section 3.4.
    """
    _check_count(schedule.num_steps, num_steps)
    last = schedule.num_steps - 1
    log_snr = schedule.snr(torch.arange(schedule.num_steps)).log()
    start = max(float(log_snr[last]), lowest)
    wanted = torch.linspace(start, float(log_snr[0]), num_steps, dtype=torch.float64)
    nearest = [int((log_snr - value).abs().argmin()) for value in wanted]
    nearest[0] = last
    for i in range(1, num_steps):  # both ends of a schedule are sparse in log SNR: keep the grid falling
        nearest[i] = min(nearest[i], nearest[i - 1] - 1)
    return tuple(max(step, num_steps - 1 - i) for i, step in enumerate(nearest))


def _check_count(num_train_steps: int, num_steps: int) -> None:
    if not 1 <= num_steps <= num_train_steps:
        raise BadRequest(f"{num_steps} steps", f"1 to {num_train_steps}, as many as were trained")
