"""What holds for every sampler, and exact answers where the data are Gaussian."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from opendalle.base.errors import BadConfig, BadRequest
from opendalle.base.protocols import Denoised
from opendalle.base.request import SAMPLERS as ASKED
from opendalle.base.rng import normal_like_rows, picture_generator
from opendalle.diffusion.grids import strided
from opendalle.diffusion.predictions import eps_beside
from opendalle.diffusion.schedules import Schedule, cosine, flow, linear
from opendalle.samplers.analytic import measure_noise_power
from opendalle.samplers.course import SamplerOptions
from opendalle.samplers.sample import SAMPLERS, last_state, sample

SCHEDULES = {"cosine": cosine(200), "linear": linear(200), "flow": flow(200)}
MEAN, SPREAD = 0.4, 0.5


def exact(schedule: Schedule):
    """The best denoiser of data drawn from N(MEAN, SPREAD^2)."""

    def denoise(x_t: Tensor, t: Tensor) -> Denoised:
        alpha, noise = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None] ** 2
        gain = alpha * SPREAD**2 / (alpha**2 * SPREAD**2 + noise)
        x0 = MEAN + gain * (x_t - alpha * MEAN)
        return Denoised(x0, eps_beside(x0, x_t, t, schedule))

    return denoise


def solution(x_t: Tensor, schedule: Schedule, start: int) -> Tensor:
    """Where the probability-flow equation carries x_t: each quantile of the noise to that quantile of the data."""
    at = torch.tensor([start])
    alpha, sigma = schedule.alpha(at), schedule.sigma(at)
    return MEAN + SPREAD * (x_t - alpha * MEAN) / (alpha**2 * SPREAD**2 + sigma**2).sqrt()


def test_the_request_can_ask_for_exactly_the_samplers_there_are() -> None:
    assert tuple(SAMPLERS) == ASKED


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("sampler", "order"), [("euler", 1), ("heun", 2), ("dpm++2m", 2), ("unipc", 2)])
def test_solvers_reach_the_exact_solution_at_their_order(name: str, sampler: str, order: int) -> None:
    schedule = {"cosine": cosine(1000), "linear": linear(1000), "flow": flow(1000)}[name]
    x_t = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]

    def error(num_steps: int) -> float:
        grid = strided(1000, num_steps)
        walk = sample(exact(schedule), x_t, grid, schedule=schedule, sampler=sampler)
        return float((last_state(walk).x_t - solution(x_t, schedule, 999)).abs().max())

    coarse, fine = error(25), error(100)
    assert fine < (0.04 if order == 1 else 0.004)
    if name == "flow" and sampler in ("euler", "heun"):  # strides equal in the equation's own time: the order shows
        assert math.log(coarse / fine, 4) > order - 0.3


@pytest.mark.parametrize("name", SCHEDULES)
def test_heun_equals_a_plain_loop(name: str) -> None:
    schedule, grid = SCHEDULES[name], (199, 140, 90, 20)
    denoise, x = exact(schedule), torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None]
    ours = last_state(sample(denoise, x, grid, schedule=schedule, sampler="heun")).x_t
    points = [*grid, -1]
    for now, after in pairwise(points):
        t, s = torch.full((5,), now), torch.full((5,), after)
        change_alpha = (schedule.alpha(s) - schedule.alpha(t))[:, None]
        change_sigma = (schedule.sigma(s) - schedule.sigma(t))[:, None]
        start = denoise(x, t)
        slope = change_alpha * start.x0 + change_sigma * start.eps
        if after >= 0:
            end = denoise(x + slope, s)
            slope = 0.5 * (slope + change_alpha * end.x0 + change_sigma * end.eps)
        x = x + slope
    torch.testing.assert_close(ours, x)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(
    ("sampler", "options"),
    [("ddpm", SamplerOptions(variance="analytic", noise_power=(0.0,))), ("ddim", SamplerOptions())],
)
def test_marginals_of_every_state_are_those_of_the_forward_process(name: str, sampler: str, options) -> None:
    """Analytic-DPM keeps every marginal on a grid of eight strides, exactly; DDIM of eight strides only nearly."""
    schedule = SCHEDULES[name]
    alpha, sigma = schedule.alpha(torch.arange(200)), schedule.sigma(torch.arange(200))
    if options.variance == "analytic":  # E eps^2 of the exact denoiser, in closed form: E x0^2 here is about the mean
        power = sigma**2 / (alpha**2 * SPREAD**2 + sigma**2)
        options = SamplerOptions(variance="analytic", noise_power=tuple(power.tolist()))
    grid = strided(200, 8)
    draw = torch.randn(1, 100_000, generator=picture_generator(0), dtype=torch.float64)
    start = alpha[grid[0]] * (MEAN + SPREAD * draw.flip(1)) + sigma[grid[0]] * draw
    start = start - start.mean() + alpha[grid[0]] * MEAN
    start = start * ((alpha[grid[0]] ** 2 * SPREAD**2 + sigma[grid[0]] ** 2).sqrt() / start.std())
    generators = [picture_generator(5)]
    walk = sample(
        exact(schedule), start, grid, schedule=schedule, sampler=sampler, options=options, generators=generators
    )
    tolerance = 0.02 if sampler == "ddpm" else 0.08
    for state, t in zip(walk, grid[1:], strict=False):
        assert float(state.x_t.mean()) == pytest.approx(float(alpha[t]) * MEAN, abs=tolerance)
        expected = float(alpha[t] ** 2 * SPREAD**2 + sigma[t] ** 2)
        assert float(state.x_t.var()) == pytest.approx(expected, abs=2 * tolerance)


def test_noise_power_is_measured_and_interpolated() -> None:
    schedule, generator = SCHEDULES["cosine"], picture_generator(1)
    data = MEAN + SPREAD * torch.randn(4, 2000, 1, generator=generator, dtype=torch.float64)
    measured = measure_noise_power(exact(schedule), data, schedule, (199, 100, 40, 3), generator)
    alpha, sigma = schedule.alpha(torch.arange(200)), schedule.sigma(torch.arange(200))
    power = sigma**2 / (alpha**2 * SPREAD**2 + sigma**2)
    assert len(measured) == 200
    for t in (199, 100, 40, 3):
        assert measured[t] == pytest.approx(float(power[t]), abs=0.05)
    assert measured[70] == pytest.approx((measured[40] + measured[100]) / 2)
    assert measured[0] == measured[3]


def smooth(x_t: Tensor, t: Tensor) -> Denoised:
    return Denoised(torch.tanh(x_t) * 0.7, torch.sin(x_t + t[:, None]))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sample_does_not_depend_on_its_batch(sampler: str) -> None:
    options = SamplerOptions(eta=0.5)

    def draw(seeds: list[int]) -> Tensor:
        generators = [picture_generator(seed) for seed in seeds]
        x_t = normal_like_rows(generators, (7,))
        walk = sample(
            smooth,
            x_t,
            (150, 90, 20),
            schedule=SCHEDULES["cosine"],
            sampler=sampler,
            options=options,
            generators=generators,
        )
        return last_state(walk).x_t

    together = draw([3, 4, 5])
    for i, seed in enumerate([3, 4, 5]):
        assert torch.equal(together[i], draw([seed])[0])
    assert torch.equal(draw([5, 3]), together[[2, 0]])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_states_tell_where_the_walk_stands(sampler: str) -> None:
    grid = (150, 90, 20)
    generators = [picture_generator(0)]
    x_t = normal_like_rows(generators, (7,))
    before, global_state = x_t.clone(), torch.get_rng_state()
    states = list(sample(smooth, x_t, grid, schedule=SCHEDULES["linear"], sampler=sampler, generators=generators))
    assert [(state.step, state.num_steps, state.t) for state in states] == [(1, 3, 90), (2, 3, 20), (3, 3, -1)]
    assert torch.equal(x_t, before), "the caller's noise is left as it was"
    assert torch.equal(torch.get_rng_state(), global_state), "nothing draws from the global generator"
    assert not states[-1].x_t.requires_grad


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpm++2m", "unipc", "euler"])
def test_the_last_step_is_clean(sampler: str) -> None:
    """Another implementation stops at t = 0 without it."""
    generators = [picture_generator(0)]
    state = last_state(
        sample(
            smooth,
            normal_like_rows(generators, (7,)),
            (150, 0),
            schedule=SCHEDULES["linear"],
            sampler=sampler,
            generators=generators,
        )
    )
    torch.testing.assert_close(state.x_t, state.x0)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_stopping_to_iterate_cancels(sampler: str) -> None:
    calls: list[int] = []

    def counted(x_t: Tensor, t: Tensor) -> Denoised:
        calls.append(int(t[0]))
        return smooth(x_t, t)

    generators = [picture_generator(0)]
    walk = sample(
        counted,
        torch.zeros(1, 3),
        strided(200, 50),
        schedule=SCHEDULES["linear"],
        sampler=sampler,
        generators=generators,
    )
    assert calls == [], "nothing runs before it is asked for"
    next(walk)
    next(walk)
    del walk
    assert len(calls) == (4 if sampler == "heun" else 2)


def test_the_number_of_network_calls() -> None:
    for sampler in SAMPLERS:
        calls: list[int] = []

        def counted(x_t: Tensor, t: Tensor, calls=calls) -> Denoised:
            calls.append(int(t[0]))
            return smooth(x_t, t)

        walk = sample(
            counted,
            torch.zeros(1, 3),
            (9, 5, 1),
            schedule=SCHEDULES["linear"],
            sampler=sampler,
            generators=[picture_generator(0)],
        )
        last_state(walk)
        assert len(calls) == (5 if sampler == "heun" else 3)


@pytest.mark.parametrize("kind", ["cosine", "flow"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_one_step_and_every_step_are_finite(sampler: str, kind: str) -> None:
    schedule = {"cosine": cosine(1000), "flow": flow(1000)}[kind]
    for grid in ((999,), (999, 0), tuple(range(999, 979, -1)), tuple(range(19, -1, -1))):
        generators = [picture_generator(0)]
        x_t = normal_like_rows(generators, (4,))
        state = last_state(sample(smooth, x_t, grid, schedule=schedule, sampler=sampler, generators=generators))
        assert state.x_t.isfinite().all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"sampler": "plms"},
        {"grid": (3, 7)},
        {"grid": (200,)},
        {"sampler": "ddpm", "generators": None},
        {"options": SamplerOptions(eta=0.3), "generators": None},
        {"generators": []},
    ],
)
def test_wrong_use_is_refused_at_once(wrong) -> None:
    knobs = {"grid": (9, 3), "sampler": "ddim", "generators": [picture_generator(0)], **wrong}
    with pytest.raises(BadRequest):
        sample(smooth, torch.zeros(1, 3), schedule=SCHEDULES["cosine"], **knobs)


def test_wrong_options_are_refused() -> None:
    for wrong in ({"eta": 1.5}, {"variance": "analytic"}):
        with pytest.raises(BadConfig):
            SamplerOptions(**wrong)
    options = SamplerOptions(variance="analytic", noise_power=(0.5,))
    with pytest.raises(BadConfig, match="noise_power"):
        next(
            sample(
                smooth,
                torch.zeros(1, 3),
                (9, 3),
                schedule=SCHEDULES["cosine"],
                sampler="ddpm",
                options=options,
                generators=[picture_generator(0)],
            )
        )
    with pytest.raises(BadRequest, match="learned"):
        next(
            sample(
                smooth,
                torch.zeros(1, 3),
                (9, 3),
                schedule=SCHEDULES["cosine"],
                sampler="ddpm",
                options=SamplerOptions(variance="learned"),
                generators=[picture_generator(0)],
            )
        )
