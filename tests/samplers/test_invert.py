import pytest
import torch
from torch import Tensor

from opendalle.base.errors import BadRequest
from opendalle.diffusion.grids import strided
from opendalle.diffusion.schedules import cosine, flow
from opendalle.samplers.guided import GuidedDenoise
from opendalle.samplers.invert import invert
from opendalle.samplers.sample import last_state, sample

SCHEDULES = {"cosine": cosine(1000), "flow": flow(1000)}


def network(x: Tensor, t: Tensor) -> Tensor:
    """A smooth random network, float64; its prediction of x0 is calm."""
    weight = torch.randn(3, 3, 3, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 0.1
    return torch.tanh(torch.nn.functional.conv2d(x, weight, padding=1) * (1 + t.cos()[:, None, None, None] / 2))


def noise() -> Tensor:
    return torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(("name", "kind"), [("cosine", "v"), ("cosine", "eps"), ("flow", "flow")])
def test_refined_inversion_is_the_exact_inverse_of_ddim(name: str, kind: str) -> None:
    schedule, grid = SCHEDULES[name], strided(1000, 6)
    denoise = GuidedDenoise(network, {}, schedule=schedule, prediction=kind)
    drawn = last_state(sample(denoise, noise(), grid, schedule=schedule)).x_t

    def error(num_refinements: int) -> float:
        found = last_state(invert(denoise, drawn, grid, schedule=schedule, num_refinements=num_refinements)).x_t
        return float((found - noise()).abs().max() / noise().abs().max())

    errors = [error(0), error(5), error(20)]
    assert errors[1] < errors[0] / 5
    assert errors[2] < 1e-5


def test_a_network_that_knows_noise_when_it_sees_it_is_inverted_too() -> None:
    """A trained network's eps nearly equals x_t at high noise, where the plain fixed point hardly moves."""
    schedule, grid = SCHEDULES["cosine"], strided(1000, 6)

    def knowing(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (table(t)[:, None, None, None] for table in (schedule.alpha, schedule.sigma))
        return (x - alpha * 0.5 * torch.tanh(alpha * x)) / sigma

    denoise = GuidedDenoise(knowing, {}, schedule=schedule, prediction="eps")
    drawn = last_state(sample(denoise, noise(), grid[:-1], schedule=schedule)).x_t
    found = last_state(invert(denoise, drawn, grid[:-1], schedule=schedule, num_refinements=20)).x_t
    rebuilt = last_state(sample(denoise, found, grid[:-1], schedule=schedule)).x_t
    torch.testing.assert_close(rebuilt, drawn, rtol=0, atol=1e-5)


def test_unrefined_inversion_equals_the_published_step() -> None:
    schedule, grid = SCHEDULES["cosine"], (900, 600, 300, 50)
    denoise = GuidedDenoise(network, {}, schedule=schedule, prediction="v")
    x = noise() / 3
    states = list(invert(denoise, x, grid, schedule=schedule))
    assert [state.t for state in states] == [50, 300, 600, 900]
    x = states[0].x_t
    for before, after, state in [(50, 300, states[1]), (300, 600, states[2]), (600, 900, states[3])]:
        said = denoise(x, torch.full((2,), before))
        alpha_bar = float(schedule.alpha_bar[after])
        x = alpha_bar**0.5 * said.x0 + (1 - alpha_bar) ** 0.5 * said.eps
        torch.testing.assert_close(state.x_t, x, rtol=1e-9, atol=1e-9)


def test_a_picture_is_rebuilt_from_its_inversion() -> None:
    schedule, grid = SCHEDULES["cosine"], strided(1000, 6)
    denoise = GuidedDenoise(network, {}, schedule=schedule, prediction="v")
    picture = last_state(sample(denoise, noise(), grid, schedule=schedule)).x_t
    found = last_state(invert(denoise, picture, grid, schedule=schedule, num_refinements=20)).x_t
    rebuilt = last_state(sample(denoise, found, grid, schedule=schedule)).x_t
    torch.testing.assert_close(rebuilt, picture, rtol=0, atol=1e-6)


def test_wrong_use_is_refused_at_once() -> None:
    denoise = GuidedDenoise(network, {}, schedule=SCHEDULES["cosine"], prediction="v")
    with pytest.raises(BadRequest):
        invert(denoise, noise(), (3, 9), schedule=SCHEDULES["cosine"])
    with pytest.raises(BadRequest):
        invert(denoise, noise(), (9, 3), schedule=SCHEDULES["cosine"], num_refinements=-1)
