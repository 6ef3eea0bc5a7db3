import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

from opendalle.base.errors import BadConfig
from opendalle.diffusion.schedules import SCHEDULES, Schedule, cosine, flow, linear, scaled_linear, schedule_from_name


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (linear(), {"beta_schedule": "linear"}),
        (cosine(), {"beta_schedule": "squaredcos_cap_v2"}),
        (scaled_linear(), {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}),
        (cosine(50), {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 50}),
        (linear(50, 1e-4, 0.02), {"beta_schedule": "linear", "num_train_timesteps": 50}),
    ],
)
def test_tables_equal_diffusers(ours: Schedule, theirs: dict) -> None:
    expected = DDPMScheduler(**theirs).alphas_cumprod.double()
    torch.testing.assert_close(ours.alpha_bar, expected, rtol=2e-4, atol=1e-6)  # theirs is a float32 product


def test_the_cosine_table_equals_a_plain_loop() -> None:
    import math

    power, table = [math.cos((i / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(1001)], 1.0
    for i, ours in enumerate(cosine().alpha_bar.tolist()):
        table *= 1 - min(1 - power[i + 1] / power[i], 0.999)
        assert ours == pytest.approx(table, rel=1e-12)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_sigmas_equal_diffusers(shift: float) -> None:
    theirs = torch.as_tensor(FlowMatchEulerDiscreteScheduler(shift=shift).sigmas).double().flip(0)
    torch.testing.assert_close(flow(1000, shift).sigma(torch.arange(1000)), theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("num_steps", [2, 100, 1000])
def test_each_schedule_keeps_its_promise(name: str, num_steps: int) -> None:
    schedule = schedule_from_name(name, num_steps)
    t = torch.arange(-1, num_steps)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    kept = alpha + sigma if schedule.kind == "flow" else alpha**2 + sigma**2
    torch.testing.assert_close(kept, torch.ones_like(kept))
    assert alpha[0] == 1
    assert sigma[0] == 0
    assert (sigma.diff() > 0).all(), "t grows with noise"
    assert alpha.dtype == torch.float64


def test_steps_beyond_the_end_are_refused_not_read_as_clean() -> None:
    with pytest.raises(IndexError):
        cosine(10).alpha(torch.tensor([10]))


@pytest.mark.parametrize(
    "build",
    [
        lambda: schedule_from_name("sigmoid"),
        lambda: schedule_from_name("cosine", 0),
        lambda: flow(10, shift=0.0),
        lambda: Schedule(alpha_bar=torch.tensor([0.1, 0.5], dtype=torch.float64)),
        lambda: Schedule(alpha_bar=torch.tensor([1.5, 0.5], dtype=torch.float64)),
    ],
)
def test_wrong_schedules_teach(build) -> None:
    with pytest.raises(BadConfig):
        build()
