import numpy as np
import pytest
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_unclip import UnCLIPScheduler

from opendalle.base.errors import BadRequest
from opendalle.diffusion.grids import check_grid, even_snr, fast27, karlo, sections, strided
from opendalle.diffusion.schedules import cosine, flow


@pytest.mark.parametrize("num_steps", [2, 7, 25, 50, 64, 250, 1000])
def test_karlo_equals_diffusers(num_steps: int) -> None:
    scheduler = UnCLIPScheduler()
    scheduler.set_timesteps(num_steps)
    assert karlo(1000, num_steps) == tuple(scheduler.timesteps.tolist())


def test_karlo_of_seven_and_of_one() -> None:
    assert karlo(1000, 7) == (999, 832, 666, 500, 333, 166, 0)
    assert karlo(1000, 1) == (999,)


@pytest.mark.parametrize("num_steps", [4, 10, 27, 50])
@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
def test_strided_equals_diffusers(spacing: str, num_steps: int) -> None:
    scheduler = DDIMScheduler(timestep_spacing=spacing)
    scheduler.set_timesteps(num_steps)
    assert strided(1000, num_steps, spacing) == tuple(scheduler.timesteps.tolist())


def plain_sections(num_train_steps: int, counts: list[int]) -> list[int]:
    """Respacing as the published code walks it: a running fractional index in each section."""
    taken, start = set(), 0
    for i, count in enumerate(counts):
        size = num_train_steps // len(counts) + (1 if i < num_train_steps % len(counts) else 0)
        stride = 1 if count <= 1 else (size - 1) / (count - 1)
        index = 0.0
        for _ in range(count):
            taken.add(start + round(index))
            index += stride
        start += size
    return sorted(taken, reverse=True)


@pytest.mark.parametrize("counts", [[10, 10, 3, 2, 2], [1, 5], [100], [3, 3, 3]])
def test_sections_equal_the_plain_walk(counts: list[int]) -> None:
    assert list(sections(1000, counts)) == plain_sections(1000, counts)
    assert list(sections(307, counts)) == plain_sections(307, counts)


def test_fast27() -> None:
    grid = fast27()
    assert len(grid) == 27
    assert grid[0] == 997
    assert grid[-1] == 0
    assert set(sections(1000, [10, 10, 3, 2, 2])) - set(grid) == {999}


@pytest.mark.parametrize("num_steps", [1, 2, 10, 50, 200])
@pytest.mark.parametrize("schedule", [cosine(200), flow(200)])
def test_even_snr_falls_and_starts_at_the_end(schedule, num_steps: int) -> None:
    grid = even_snr(schedule, num_steps)
    check_grid(grid, schedule.num_steps)
    assert len(grid) == num_steps
    assert grid[0] == 199


def test_even_snr_is_even() -> None:
    import torch

    schedule = cosine(1000)
    gaps = np.diff(schedule.snr(torch.tensor(even_snr(schedule, 12))).log().numpy())[1:-3]
    assert gaps.std() / gaps.mean() < 0.2


@pytest.mark.parametrize("wrong", [(), (3, 3), (1, 2), (1000, 1), (5, -1)])
def test_wrong_grids_teach(wrong: tuple[int, ...]) -> None:
    with pytest.raises(BadRequest):
        check_grid(wrong, 1000)


@pytest.mark.parametrize("num_steps", [0, 1001])
def test_more_steps_than_trained_are_refused(num_steps: int) -> None:
    for build in (strided, karlo):
        with pytest.raises(BadRequest):
            build(1000, num_steps)
    with pytest.raises(BadRequest):
        sections(100, [60, 60])
