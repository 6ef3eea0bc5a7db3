"""A known part: the exact conditional distribution of a Gaussian, and the published algorithm as a plain loop."""

import math

import pytest
import torch
from torch import Tensor

from opendalle.base.errors import BadConfig, BadRequest
from opendalle.base.protocols import Denoised
from opendalle.base.rng import normal_like_rows, picture_generator
from opendalle.diffusion.grids import strided
from opendalle.diffusion.predictions import eps_beside
from opendalle.diffusion.schedules import Schedule, cosine, flow, linear
from opendalle.samplers.repaint import RepaintOptions, moves, repaint
from opendalle.samplers.sample import last_state

SCHEDULES = {"cosine": cosine(200), "linear": linear(200), "flow": flow(200)}
MEAN = torch.tensor([0.3, -0.2, 0.5, 0.0], dtype=torch.float64)
MIX = torch.tensor(
    [[0.7, 0.0, 0.0, 0.0], [0.3, 0.5, 0.0, 0.0], [0.5, -0.3, 0.3, 0.0], [-0.4, 0.4, 0.2, 0.3]], dtype=torch.float64
)
COVARIANCE = MIX @ MIX.T
KNOWN = torch.tensor([True, True, False, False])
DATA = torch.tensor([1.0, -0.7, 9.0, 9.0], dtype=torch.float64)  # what is unknown is never read


def exact(schedule: Schedule):
    """The best denoiser of data drawn from N(MEAN, COVARIANCE); the last axis holds the dimensions."""

    def denoise(x_t: Tensor, t: Tensor) -> Denoised:
        alpha, sigma = float(schedule.alpha(t[:1])), float(schedule.sigma(t[:1]))
        spread = alpha**2 * COVARIANCE + sigma**2 * torch.eye(4, dtype=torch.float64)
        gain = alpha * COVARIANCE @ torch.linalg.inv(spread)
        x0 = MEAN + (x_t - alpha * MEAN) @ gain.T
        return Denoised(x0, eps_beside(x0, x_t, t, schedule))

    return denoise


def conditional() -> tuple[Tensor, Tensor]:
    """Mean and covariance of the last two dimensions, given the first two."""
    gain = COVARIANCE[2:, :2] @ torch.linalg.inv(COVARIANCE[:2, :2])
    return MEAN[2:] + gain @ (DATA[:2] - MEAN[:2]), COVARIANCE[2:, 2:] - gain @ COVARIANCE[:2, 2:]


def drawn(name: str, options: RepaintOptions, num_draws: int = 10_000) -> Tensor:
    schedule, generator = SCHEDULES[name], picture_generator(3)
    noise = normal_like_rows([generator], (num_draws, 4)).double()
    walk = repaint(
        exact(schedule),
        noise,
        DATA.expand_as(noise),
        KNOWN,
        strided(200, 25),
        schedule=schedule,
        options=options,
        generators=[generator],
    )
    return last_state(walk).x_t[0]


@pytest.mark.parametrize("name", SCHEDULES)
def test_going_back_leads_to_the_exact_conditional_distribution(name: str) -> None:
    mean, covariance = conditional()

    def distance(resamplings: int) -> float:
        """Of two Gaussians, as their means and covariances differ."""
        found = drawn(name, RepaintOptions(resamplings=resamplings, jump=1))
        assert torch.equal(found[:, :2], DATA[:2].expand(len(found), 2)), "the known part is exact"
        unknown = found[:, 2:]
        return float((unknown.mean(dim=0) - mean).norm() + (unknown.T.cov() - covariance).norm())

    never, often = distance(1), distance(12)
    assert never > 0.5, "without going back the known part is hardly heard"
    assert often < never / 2


def test_the_course_equals_the_published_one() -> None:
    """Heights over the clean end: after each fall, where a jump is left, climb."""
    for num_steps, jump, resamplings in [(250, 10, 10), (12, 3, 4), (7, 1, 3), (5, 9, 2), (6, 6, 2), (1, 1, 5)]:
        left = {foot: resamplings - 1 for foot in range(num_steps) if foot % jump == 0 and foot < num_steps - jump}
        height, heights = num_steps - 1, [num_steps - 1]
        while True:
            if left.get(height, 0) and len(heights) > 1:
                left[height] -= 1
                height += jump
            elif height == -1:
                break
            else:
                height -= 1
            heights.append(height)
        ours = list(moves(num_steps, RepaintOptions(jump=jump, resamplings=resamplings)))
        assert [num_steps - 1 - end for _, end in ours] == heights[1:]
        assert [num_steps - 1 - start for start, _ in ours] == heights[:-1]


@pytest.mark.parametrize("name", SCHEDULES)
def test_jumps_of_one_step_equal_algorithm_1(name: str) -> None:
    schedule, grid, rounds = SCHEDULES[name], (199, 140, 60, 9), 3
    denoise, x0 = exact(schedule), DATA[None, None]
    alpha = [float(schedule.alpha(torch.tensor([t]))) for t in (*grid, -1)]
    sigma = [float(schedule.sigma(torch.tensor([t]))) for t in (*grid, -1)]
    generator = picture_generator(1)

    def draw() -> Tensor:
        return torch.randn(1, 1, 4, generator=generator).double()

    x = start = draw()
    for i, t in enumerate(grid):
        for u in range(rounds if i < 3 else 1):
            said = denoise(x, torch.tensor([t]))
            added = sigma[i] ** 2 - (alpha[i] / alpha[i + 1] * sigma[i + 1]) ** 2
            mean = alpha[i + 1] * added / sigma[i] ** 2 * said.x0
            mean = mean + alpha[i] / alpha[i + 1] * (sigma[i + 1] / sigma[i]) ** 2 * x
            if i == 3:
                x = torch.where(KNOWN, x0, mean)
                continue
            unknown = mean + math.sqrt(added) * sigma[i + 1] / sigma[i] * draw()
            x = torch.where(KNOWN, alpha[i + 1] * x0 + sigma[i + 1] * draw(), unknown)
            if u < rounds - 1:
                x = alpha[i] / alpha[i + 1] * x + math.sqrt(added) * draw()
    generator = picture_generator(1)
    start = normal_like_rows([generator], (1, 4)).double()
    options = RepaintOptions(resamplings=rounds, jump=1)
    ours = repaint(denoise, start, x0, KNOWN, grid, schedule=schedule, options=options, generators=[generator])
    torch.testing.assert_close(last_state(ours).x_t, x)


def smooth(x_t: Tensor, t: Tensor) -> Denoised:
    return Denoised(torch.tanh(x_t) * 0.7, torch.sin(x_t + t[:, None]))


def test_a_sample_does_not_depend_on_its_batch() -> None:
    known = torch.arange(7) < 3

    def draw(seeds: list[int]) -> Tensor:
        generators = [picture_generator(seed) for seed in seeds]
        x_t = normal_like_rows(generators, (7,))
        data = torch.tensor(seeds)[:, None].expand(-1, 7) / 10
        options = RepaintOptions(resamplings=2, jump=2, eta=0.5)
        grid, schedule = (150, 90, 40, 20), SCHEDULES["cosine"]
        return last_state(
            repaint(smooth, x_t, data, known, grid, schedule=schedule, options=options, generators=generators)
        ).x_t

    together = draw([3, 4, 5])
    for i, seed in enumerate([3, 4, 5]):
        assert torch.equal(together[i], draw([seed])[0])


def test_states_tell_where_the_walk_stands_and_nothing_runs_unasked() -> None:
    calls: list[int] = []

    def counted(x_t: Tensor, t: Tensor) -> Denoised:
        calls.append(int(t[0]))
        return smooth(x_t, t)

    data, known = torch.full((1, 7), 0.25), torch.arange(7) < 3
    walk = repaint(
        counted,
        torch.zeros(1, 7),
        data,
        known,
        (150, 90, 20),
        schedule=SCHEDULES["linear"],
        options=RepaintOptions(resamplings=2, jump=1),
        generators=[picture_generator(0)],
    )
    assert calls == []
    states = list(walk)
    assert [(state.step, state.num_steps, state.t) for state in states] == [
        (1, 5, 90),
        (2, 5, 90),
        (3, 5, 20),
        (4, 5, 20),
        (5, 5, -1),
    ]
    assert calls == [150, 150, 90, 90, 20]
    assert all(torch.equal(state.x0[0, :3], data[0, :3]) for state in states), "a preview shows what is known"
    assert torch.equal(states[-1].x_t[0, :3], data[0, :3])
    assert not torch.equal(states[-1].x_t[0, 3:], data[0, 3:])


@pytest.mark.parametrize(
    "wrong",
    [
        {"grid": (3, 7)},
        {"generators": None},
        {"generators": []},
        {"known": torch.ones(4, dtype=torch.bool)},
    ],
)
def test_wrong_use_is_refused_at_once(wrong) -> None:
    given = {
        "x0": torch.zeros(1, 3),
        "known": torch.ones(3, dtype=torch.bool),
        "grid": (9, 3),
        "generators": [picture_generator(0)],
        **wrong,
    }
    with pytest.raises(BadRequest):
        repaint(smooth, torch.zeros(1, 3), schedule=SCHEDULES["cosine"], **given)


@pytest.mark.parametrize("wrong", [{"resamplings": 0}, {"jump": 0}, {"eta": 1.5}])
def test_wrong_options_are_refused(wrong) -> None:
    with pytest.raises(BadConfig):
        RepaintOptions(**wrong)
