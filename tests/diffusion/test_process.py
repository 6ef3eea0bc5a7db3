"""The process in one dimension, where everything is exact."""

import math

import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

from opendalle.base.protocols import Denoised
from opendalle.diffusion.predictions import eps_beside
from opendalle.diffusion.process import (
    added_variance,
    log_variance_range,
    posterior,
    posterior_mean,
    posterior_variance,
    q_sample,
    q_step,
    reverse,
    reverse_step,
)
from opendalle.diffusion.schedules import Schedule, cosine, flow, linear

SCHEDULES = {"cosine": cosine(30), "linear": linear(30), "flow": flow(30)}


def moments(step, mean: float, variance: float) -> tuple[float, float]:
    """Push a Gaussian through x -> step(x, eps), which is affine: measured at three points, without chance."""
    x = torch.tensor([[0.0], [1.0], [0.0]], dtype=torch.float64)
    eps = torch.tensor([[0.0], [0.0], [1.0]], dtype=torch.float64)
    offset, at_one, noised = step(x, eps).flatten().tolist()
    slope, spread = at_one - offset, noised - offset
    return slope * mean + offset, slope**2 * variance + spread**2


def at(step: int) -> torch.Tensor:
    return torch.full((3,), step)


@pytest.mark.parametrize("name", SCHEDULES)
def test_many_steps_equal_one_stride_in_distribution(name: str) -> None:
    schedule = SCHEDULES[name]
    walked = (0.7, 0.04)  # mean and variance of the data
    for step in range(schedule.num_steps):
        walked = moments(lambda x, eps, step=step: q_step(x, at(step), eps, schedule), *walked)
        strode = moments(lambda x, eps, step=step: q_sample(x, at(step), eps, schedule), 0.7, 0.04)
        assert walked == pytest.approx(strode, abs=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
def test_strides_of_any_length_join(name: str) -> None:
    schedule = SCHEDULES[name]
    walked = (0.7, 0.04)
    for before, step in [(-1, 4), (4, 5), (5, 17), (17, 28)]:
        walked = moments(lambda x, eps, b=before, a=step: q_step(x, at(a), eps, schedule, at(b)), *walked)
    strode = moments(lambda x, eps: q_sample(x, at(28), eps, schedule), 0.7, 0.04)
    assert walked == pytest.approx(strode, abs=1e-12)


def test_many_random_steps_equal_one_stride() -> None:
    """The same with dice, as a learner would try it."""
    schedule, generator = SCHEDULES["cosine"], torch.Generator().manual_seed(0)
    start = torch.full((40_000, 1), 0.7, dtype=torch.float64)
    walked = start
    for step in range(20):
        eps = torch.randn(walked.shape, generator=generator, dtype=torch.float64)
        walked = q_step(walked, torch.full((40_000,), step), eps, schedule)
    eps = torch.randn(walked.shape, generator=generator, dtype=torch.float64)
    strode = q_sample(start, torch.full((40_000,), 19), eps, schedule)
    for share in (0.05, 0.25, 0.5, 0.75, 0.95):
        assert walked.flatten().quantile(share).item() == pytest.approx(
            strode.flatten().quantile(share).item(), abs=0.03
        )


@pytest.mark.parametrize("name", SCHEDULES)
def test_reverse_marginals_match_forward_ones_at_every_t_for_gaussian_data(name: str) -> None:
    """For x0 ~ N(m, s^2) the best denoiser is affine and the true reverse step is Gaussian: nothing is approximate."""
    schedule, mean, variance = SCHEDULES[name], 0.7, 0.3**2

    def step(x: torch.Tensor, eps: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        alpha, noise = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None] ** 2
        gain = alpha * variance / (alpha**2 * variance + noise)
        x0 = mean + gain * (x - alpha * mean)
        unknown = variance * (1 - gain * alpha)  # variance of x0 given x_t
        if (t == 0).all():  # the last step ends at the mean of x0, without noise; let it end in a draw of x0 instead
            return x0 + unknown.sqrt() * eps
        of_x0 = posterior_mean(torch.ones_like(x), torch.zeros_like(x), t, schedule)
        log_variance = (posterior_variance(t, t - 1, schedule)[:, None] + of_x0**2 * unknown).log()
        return reverse_step(Denoised(x0, eps_beside(x0, x, t, schedule), log_variance), x, t, eps, schedule)

    last = schedule.num_steps - 1
    alpha, sigma = schedule.alpha(torch.arange(30)), schedule.sigma(torch.arange(30))
    now = (float(alpha[last]) * mean, float(alpha[last]) ** 2 * variance + float(sigma[last]) ** 2)
    for t in range(last, 0, -1):
        now = moments(lambda x, eps, t=t: step(x, eps, at(t)), *now)
        a, s = float(alpha[t - 1]), float(sigma[t - 1])
        assert now == pytest.approx((a * mean, a**2 * variance + s**2), abs=1e-10), f"at t = {t - 1}"
    assert moments(lambda x, eps: step(x, eps, at(0)), *now) == pytest.approx((mean, variance), abs=1e-10)


def gaussian(x: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    return torch.exp(-0.5 * (x - mean) ** 2 / variance) / (2 * math.pi * variance).sqrt()


@pytest.mark.parametrize("schedule", [cosine(30), linear(30), flow(30)])
def test_reverse_marginals_match_forward_ones_at_every_t_for_two_points(schedule: Schedule) -> None:
    """Data that are -0.8 or 0.5: the reverse kernel is a mixture of posteriors, integrated by quadrature."""
    points, shares = torch.tensor([-0.8, 0.5], dtype=torch.float64), torch.tensor([0.3, 0.7], dtype=torch.float64)

    def forward(t: int) -> tuple[torch.Tensor, torch.Tensor]:  # a grid of x_t, and q(x_t, x0) on it, one row a point
        a, s = schedule.alpha(torch.tensor([t])), schedule.sigma(torch.tensor([t]))
        x = torch.linspace(-1, 1, 301, dtype=torch.float64) * (1 + 7 * s)
        return x, shares[:, None] * gaussian(x, a * points[:, None], s**2)

    x, joint = forward(schedule.num_steps - 1)
    now = joint.sum(0)
    for t in range(schedule.num_steps - 1, 0, -1):
        belief = joint / joint.sum(0)  # p(x0 | x_t)
        width = float(x[1] - x[0])
        x_before, joint = forward(t - 1)
        before = torch.zeros_like(x)
        for point, weight in zip(points, belief, strict=True):
            kernel = posterior(
                torch.full_like(x, float(point))[:, None], x[:, None], torch.full((len(x),), t), schedule
            )
            before += (gaussian(x_before, kernel.mean, kernel.log_variance.exp()) * (weight * now)[:, None]).sum(
                0
            ) * width
        x, now = x_before, before
        assert (now - joint.sum(0)).abs().sum() * float(x[1] - x[0]) < 1e-7, f"at t = {t - 1}"


def test_the_posterior_is_bayes_rule() -> None:
    """q(x_s | x_t, x0) q(x_t | x0) = q(x_t | x_s) q(x_s | x0), for strides of any length and both kinds."""
    for schedule in SCHEDULES.values():
        for before, after in [(0, 1), (10, 11), (10, 20), (3, 28)]:
            s, t = torch.tensor([before]), torch.tensor([after])
            x0, x_s, x_t = (torch.tensor([[value]], dtype=torch.float64) for value in (0.3, -0.4, 0.9))
            kernel = posterior(x0, x_t, t, schedule, s)
            left = gaussian(x_s, kernel.mean, kernel.log_variance.exp())
            left = left * gaussian(x_t, schedule.alpha(t) * x0, schedule.sigma(t) ** 2)
            shrink = schedule.alpha(t) / schedule.alpha(s)
            right = gaussian(x_t, shrink * x_s, added_variance(t, s, schedule))
            right = right * gaussian(x_s, schedule.alpha(s) * x0, schedule.sigma(s) ** 2)
            torch.testing.assert_close(left, right, rtol=1e-9, atol=0)


def test_variances_equal_the_formulas_of_the_paper() -> None:
    schedule = cosine(1000)
    bar, t = schedule.alpha_bar, torch.arange(1, 1000)
    beta = 1 - bar[1:] / bar[:-1]
    small, large = log_variance_range(t, t - 1, schedule)
    torch.testing.assert_close(large, beta.log(), rtol=1e-9, atol=0)
    torch.testing.assert_close(small, (beta * (1 - bar[:-1]) / (1 - bar[1:])).log(), rtol=1e-9, atol=0)
    first = log_variance_range(torch.tensor([0]), torch.tensor([-1]), schedule)
    assert float(first[0]) == pytest.approx(float(small[0]))  # not log 0
    assert float(first[1]) == pytest.approx(math.log(1 - float(bar[0])))


def test_q_sample_equals_diffusers() -> None:
    x0, eps = torch.randn(2, 1000, 3, generator=torch.Generator().manual_seed(0))
    theirs = DDPMScheduler(beta_schedule="squaredcos_cap_v2").add_noise(x0, eps, torch.arange(1000))
    torch.testing.assert_close(q_sample(x0, torch.arange(1000), eps, cosine()), theirs, rtol=0, atol=1e-5)


def test_reverse_without_a_learned_variance_takes_beta() -> None:
    schedule, x, t = SCHEDULES["linear"], torch.zeros(1, 2, dtype=torch.float64), torch.tensor([5])
    assert reverse(Denoised(x, x), x, t, schedule).log_variance.exp().item() == pytest.approx(
        float(1 - schedule.alpha_bar[5] / schedule.alpha_bar[4])
    )


def test_the_last_step_draws_no_noise() -> None:
    schedule, t = SCHEDULES["linear"], torch.tensor([0])
    x0, x_t, eps = torch.randn(3, 1, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(reverse_step(Denoised(x0, eps), x_t, t, eps, schedule), x0)
