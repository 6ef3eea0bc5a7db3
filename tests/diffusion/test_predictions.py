import itertools

import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

from opendalle.base.errors import BadConfig
from opendalle.diffusion.predictions import PREDICTIONS, check_prediction, target, to_denoised
from opendalle.diffusion.process import q_sample
from opendalle.diffusion.schedules import cosine, flow, linear

SCHEDULES = {"cosine": cosine(200), "linear": linear(200), "flow": flow(200)}
COMBINATIONS = [pair for pair in itertools.product(PREDICTIONS, SCHEDULES) if pair != ("eps", "flow")]


@pytest.mark.parametrize(("kind", "name"), COMBINATIONS)
def test_what_is_asked_for_can_be_turned_back(kind: str, name: str) -> None:
    schedule = SCHEDULES[name]
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 200, 3, 2, generator=generator, dtype=torch.float64)
    t = torch.arange(200)
    denoised = to_denoised(kind, target(kind, x0, eps, t, schedule), q_sample(x0, t, eps, schedule), t, schedule)
    torch.testing.assert_close(denoised.x0, x0, rtol=0, atol=1e-8)
    torch.testing.assert_close(denoised.eps, eps, rtol=0, atol=1e-8)


def test_v_equals_diffusers() -> None:
    x0, eps = torch.randn(2, 1000, 5, generator=torch.Generator().manual_seed(0))
    t = torch.arange(1000)
    theirs = DDPMScheduler(beta_schedule="linear").get_velocity(x0, eps, t)
    torch.testing.assert_close(target("v", x0, eps, t, linear()), theirs, rtol=0, atol=1e-5)


def test_half_precision_outputs_are_raised_to_the_precision_of_x_t() -> None:
    x_t, t = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([3, 4])
    denoised = to_denoised("v", x_t.bfloat16(), x_t, t, SCHEDULES["cosine"])
    assert denoised.x0.dtype == denoised.eps.dtype == torch.float32


def test_impossible_predictions_are_refused() -> None:
    x, t = torch.zeros(1, 2), torch.tensor([0])
    with pytest.raises(BadConfig, match="ends in noise"):
        to_denoised("eps", x, x, t, flow(10))
    with pytest.raises(BadConfig):
        check_prediction("score", cosine(10))
