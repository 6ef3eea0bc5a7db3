import math

import pytest
import torch
from scipy import stats

from opendalle.base.protocols import Denoised
from opendalle.diffusion.likelihood import (
    bound_term,
    discretised_log_likelihood,
    gaussian_kl,
    prior_term,
    variational_bound,
)
from opendalle.diffusion.predictions import eps_beside
from opendalle.diffusion.process import (
    Gaussian,
    log_variance_range,
    posterior,
    posterior_mean,
    posterior_variance,
    q_sample,
)
from opendalle.diffusion.schedules import cosine, linear

LEVELS = torch.arange(256, dtype=torch.float64) / 127.5 - 1


def draws(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_kl_equals_quadrature() -> None:
    p, q = (0.3, 0.5), (-0.2, 0.8)
    x = torch.linspace(-8, 8, 20_001, dtype=torch.float64)
    dense = [torch.from_numpy(stats.norm.pdf(x, mean, deviation)) for mean, deviation in (p, q)]
    expected = (dense[0] * (dense[0] / dense[1]).log()).sum() * float(x[1] - x[0])
    one, other = (Gaussian(mean=torch.tensor([[m]]), log_variance=torch.tensor([[2 * math.log(s)]])) for m, s in (p, q))
    assert gaussian_kl(one, other).item() == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 0.5), (0.99, 0.01), (-1.3, 0.2), (0.2, 0.003)])
def test_all_levels_of_a_pixel_have_probability_one(mean: float, deviation: float) -> None:
    belief = Gaussian(
        mean=torch.full((256, 1), mean, dtype=torch.float64),
        log_variance=torch.full((256, 1), 2 * math.log(deviation), dtype=torch.float64),
    )
    probability = discretised_log_likelihood(LEVELS[:, None], belief).exp()
    assert probability.sum().item() == pytest.approx(1.0, abs=1e-8)
    edges = torch.cat(
        [
            torch.tensor([-torch.inf], dtype=torch.float64),
            LEVELS[:-1] + 1 / 255,
            torch.tensor([torch.inf], dtype=torch.float64),
        ]
    )
    expected = torch.from_numpy(stats.norm.cdf(edges, mean, deviation)).diff()
    torch.testing.assert_close(probability[:, 0], expected, rtol=0, atol=1e-6)


def test_float32_keeps_the_digits_of_the_upper_tail() -> None:
    x0, belief = torch.tensor([[0.7]]), Gaussian(mean=torch.tensor([[0.0]]), log_variance=torch.tensor([[-3.9]]))
    wide = Gaussian(mean=belief.mean.double(), log_variance=belief.log_variance.double())
    exact = discretised_log_likelihood(x0.double(), wide)
    torch.testing.assert_close(discretised_log_likelihood(x0, belief).double(), exact, rtol=1e-4, atol=0)
    torch.testing.assert_close(discretised_log_likelihood(-x0, belief), discretised_log_likelihood(x0, belief))


def test_prior_term_is_small_where_the_schedule_ends_in_noise_and_matches_the_formula() -> None:
    x0 = draws((2, 30))
    short, bar = linear(1000, 1e-4, 0.005), float(linear(1000, 1e-4, 0.005).alpha_bar[-1])
    expected = 0.5 * (-math.log(1 - bar) - bar + bar * x0**2).mean(1) / math.log(2)
    torch.testing.assert_close(prior_term(x0, short), expected)
    assert prior_term(x0, cosine()).max() < 1e-8


def perfect(x0: torch.Tensor, schedule):
    """A network that knows the answer, with the posterior's variance."""

    def denoise(x_t: torch.Tensor, t: torch.Tensor) -> Denoised:
        smallest, _ = log_variance_range(t, t - 1, schedule)
        return Denoised(x0, eps_beside(x0, x_t, t, schedule), smallest[:, None].expand_as(x_t))

    return denoise


def test_a_network_that_knows_the_answer_pays_only_the_last_term() -> None:
    schedule = cosine(15)
    x0 = LEVELS[torch.randint(0, 256, (3, 50), generator=torch.Generator().manual_seed(1))]
    bound = variational_bound(perfect(x0, schedule), x0, schedule, lambda step: draws((3, 50), step))
    assert bound.steps[:, 1:].abs().max() < 1e-10
    torch.testing.assert_close(bound.total, bound.prior + bound.steps.sum(1))
    assert (bound.steps[:, 0] > 0).all()


def test_each_term_equals_the_weighted_squared_error_of_the_paper() -> None:
    """With the posterior's variance on both sides, a term is |error in the mean|^2 / (2 variance): DDPM eq. 8."""
    schedule = linear(40)
    x0, eps, wrong = draws((39, 6)), draws((39, 6), 1), 0.1 * draws((39, 6), 2)
    t = torch.arange(1, 40)
    x_t = q_sample(x0, t, eps, schedule)
    smallest, _ = log_variance_range(t, t - 1, schedule)
    said = Denoised(x0 + wrong, eps, smallest[:, None].expand_as(x_t))
    apart = posterior(x0 + wrong, x_t, t, schedule).mean - posterior(x0, x_t, t, schedule).mean
    expected = (apart**2 / (2 * smallest.exp()[:, None])).mean(1) / math.log(2)
    torch.testing.assert_close(bound_term(said, x0, x_t, t, schedule), expected)


def test_the_bound_is_above_the_true_cost_and_close_to_it_for_gaussian_data() -> None:
    """Data of eight-bit levels from a wide Gaussian and its exact denoiser: the bound must not undercut the entropy."""
    schedule, spread, generator = cosine(50), 0.3, torch.Generator().manual_seed(0)
    probability = torch.from_numpy(stats.norm.pdf(LEVELS, 0, spread))
    probability /= probability.sum()
    entropy = float(-(probability * probability.log2()).sum())
    x0 = LEVELS[torch.multinomial(probability, 4_000, replacement=True, generator=generator)].reshape(1, -1)

    def denoise(x_t: torch.Tensor, t: torch.Tensor) -> Denoised:
        alpha, noise = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None] ** 2
        gain = alpha * spread**2 / (alpha**2 * spread**2 + noise)
        of_x0 = posterior_mean(torch.ones_like(x_t), torch.zeros_like(x_t), t, schedule)
        unknown = spread**2 * (1 - gain * alpha)
        variance = posterior_variance(t, t - 1, schedule)[:, None] + of_x0**2 * unknown
        return Denoised(gain * x_t, eps_beside(gain * x_t, x_t, t, schedule), variance.log().expand_as(x_t))

    bound = variational_bound(denoise, x0, schedule, lambda step: draws((1, 4_000), step))
    assert entropy - 0.05 < bound.total.item() < entropy + 0.3
