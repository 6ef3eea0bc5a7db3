import itertools

import pytest
import torch
from diffusers.schedulers.scheduling_unclip import UnCLIPScheduler

from opendalle.base.errors import OpenDalleError
from opendalle.base.protocols import Denoised
from opendalle.diffusion.likelihood import bound_term
from opendalle.diffusion.losses import hybrid_loss, learned_range, min_snr_weight, simple_loss
from opendalle.diffusion.predictions import PREDICTIONS, target, to_denoised
from opendalle.diffusion.process import q_sample
from opendalle.diffusion.schedules import cosine, flow


def draws(count: int, *shape: int) -> torch.Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))


def test_simple_loss_is_a_mean_a_sample() -> None:
    x0, eps, output = draws(3, 5, 4, 2, 2)
    t = torch.arange(5)
    loss = simple_loss("eps", output.bfloat16(), x0, eps, t, cosine(10))
    expected = torch.stack([((output.bfloat16().float() - eps) ** 2)[i].mean() for i in range(5)])
    torch.testing.assert_close(loss, expected)
    assert loss.dtype == torch.float32


@pytest.mark.parametrize(
    ("kind", "name"), [p for p in itertools.product(PREDICTIONS, ["cosine", "flow"]) if p != ("eps", "flow")]
)
def test_min_snr_weighs_the_same_error_in_x0_whatever_is_predicted(kind: str, name: str) -> None:
    schedule = {"cosine": cosine(50), "flow": flow(50)}[name]
    x0, eps, wrong = draws(3, 50, 6).double()
    t = torch.arange(50)
    x_t = q_sample(x0, t, eps, schedule)
    output = target(kind, x0, eps, t, schedule) + 0.1 * wrong
    in_x0 = (to_denoised(kind, output, x_t, t, schedule).x0 - x0).square().mean(1)
    expected = schedule.snr(t).clamp(max=5.0) * in_x0
    ours = min_snr_weight(kind, t, schedule) * simple_loss(kind, output, x0, eps, t, schedule)
    torch.testing.assert_close(ours.double(), expected, rtol=2e-3, atol=1e-9)


def test_min_snr_equals_the_published_weights() -> None:
    schedule, t = cosine(50), torch.arange(50)
    snr = schedule.snr(t)
    torch.testing.assert_close(min_snr_weight("eps", t, schedule).double(), snr.clamp(max=5) / snr, rtol=1e-5, atol=0)
    torch.testing.assert_close(
        min_snr_weight("v", t, schedule).double(), snr.clamp(max=5) / (snr + 1), rtol=1e-5, atol=0
    )


def test_learned_range_equals_diffusers_on_a_strided_grid() -> None:
    scheduler = UnCLIPScheduler(variance_type="learned_range")
    exact = cosine()  # theirs multiplies a thousand float32 numbers: put the exact product in, to compare formulas
    scheduler.alphas_cumprod = exact.alpha_bar
    scheduler.betas = 1 - exact.alpha_bar / torch.cat([torch.ones(1).double(), exact.alpha_bar[:-1]])
    values = draws(1, 3, 4, 2, 2)[0]
    for t, s in [(999, 832), (832, 666), (166, 0), (500, 499), (1, 0)]:
        theirs = scheduler._get_variance(t, s, predicted_variance=values)
        ours = learned_range(values, torch.full((3,), t), exact, torch.full((3,), s))
        torch.testing.assert_close(ours, theirs.float(), rtol=0, atol=1e-5)


def test_hybrid_loss_is_the_simple_one_and_the_scaled_bound() -> None:
    schedule = cosine(50)
    x0, eps, output, values = draws(4, 50, 3, 2, 2).clamp(-1, 1)
    t = torch.arange(50)
    x_t = q_sample(x0, t, eps, schedule)
    loss = hybrid_loss("eps", torch.cat([output, values], 1), x0, eps, x_t, t, schedule)
    torch.testing.assert_close(loss.simple, simple_loss("eps", output, x0, eps, t, schedule))
    believed = to_denoised("eps", output, x_t, t, schedule, learned_range(values, t, schedule))
    torch.testing.assert_close(loss.bound, bound_term(believed, x0, x_t, t, schedule) * 50 / 1000)
    torch.testing.assert_close(loss.total, loss.simple + loss.bound)


def test_the_bound_trains_the_variance_alone() -> None:
    schedule = cosine(50)
    x0, eps, output, values = draws(4, 50, 3, 2, 2).clamp(-1, 1)
    output.requires_grad_()
    values.requires_grad_()
    t = torch.arange(50)
    loss = hybrid_loss("eps", torch.cat([output, values], 1), x0, eps, q_sample(x0, t, eps, schedule), t, schedule)
    of_mean, of_variance = torch.autograd.grad(loss.bound.sum(), (output, values))
    assert of_mean.abs().max() == 0
    assert (of_variance.flatten(1).abs().amax(1) > 0).all()


@pytest.mark.parametrize("wild", [1e6, -1e6])
def test_a_network_that_runs_wild_does_not_make_the_loss_nan(wild: float) -> None:
    """The learned variance of another implementation is known to end in NaN."""
    schedule = cosine(50)
    x0, eps = draws(2, 50, 3, 2, 2).clamp(-1, 1)
    output = torch.full((50, 6, 2, 2), wild, requires_grad=True)
    t = torch.arange(50)
    loss = hybrid_loss("v", output, x0, eps, q_sample(x0, t, eps, schedule), t, schedule)
    (gradient,) = torch.autograd.grad(loss.total.sum(), output)
    assert loss.total.isfinite().all()
    assert gradient.isfinite().all()


def test_the_least_variance_is_learned_for_data_of_one_point() -> None:
    """Descending the bound finds the posterior's variance when the mean is right."""
    schedule = cosine(20)
    x0, eps = draws(2, 200, 4).clamp(-1, 1)
    t = torch.full((200,), 10)
    x_t = q_sample(x0, t, eps, schedule)

    def loss(value: float) -> float:
        spread = learned_range(torch.full_like(x_t, value), t, schedule)
        return bound_term(Denoised(x0, eps, spread), x0, x_t, t, schedule).mean().item()

    assert loss(-1.0) < min(loss(-1.5), loss(-0.5), loss(1.0))
    assert loss(-1.0) == pytest.approx(0.0, abs=1e-6)


def test_min_snr_refuses_eps_at_pure_noise() -> None:
    with pytest.raises(OpenDalleError):
        min_snr_weight("eps", torch.tensor([3]), flow(10))
