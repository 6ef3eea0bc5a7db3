"""Rounding with feedback against plain rounding, against its formula for two columns, and against all choices."""

import itertools

import pytest
import torch
from torch import Tensor

from opendalle.checkpoint.feedback import DAMPING, even_step, round_with_feedback
from opendalle.checkpoint.storage import EVEN_SHARE, dequantise_rows, from_storage, quantise_rows, to_storage


def some(rows: int, columns: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A matrix, and inputs that go together."""
    rng = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=rng)
    inputs = torch.randn(4_096, 6, generator=rng) @ torch.randn(6, columns, generator=rng)
    return weight, inputs + 0.1 * torch.randn(4_096, columns, generator=rng)


def plain(weight: Tensor, step: float) -> Tensor:
    return (weight / step).round().clamp(-127, 127)


def error(weight: Tensor, numbers: Tensor, step: float, inputs: Tensor) -> float:
    return (inputs @ (weight - step * numbers.float()).T).square().mean().item()


def test_answers_stay_nearer_than_with_plain_rounding() -> None:
    weight, inputs = some(24, 200)
    numbers = round_with_feedback(weight, inputs.T @ inputs, 0.5)
    assert error(weight, numbers, 0.5, inputs) < 0.15 * error(weight, plain(weight, 0.5), 0.5, inputs)


def test_inputs_that_know_nothing_of_each_other_or_were_never_seen_are_rounded_plainly() -> None:
    weight, _ = some(8, 150)
    own = torch.rand(150).diag()
    own[3, 3] = 0.0
    assert torch.equal(round_with_feedback(weight, own, 0.3).float(), plain(weight, 0.3))


def test_two_columns_follow_the_formula() -> None:
    weight = torch.tensor([[0.7, -1.2], [0.2, 3.4]])
    moments = torch.tensor([[4.0, 1.5], [1.5, 2.0]])
    damped = moments + DAMPING * 3.0 * torch.eye(2)
    first = weight[:, 0].round()
    carried = weight[:, 1] + (weight[:, 0] - first) * damped[0, 1] / damped[1, 1]  # what makes good the first error
    wanted = torch.stack([first, carried.round()], dim=1)
    assert torch.equal(round_with_feedback(weight, moments, 1.0).float(), wanted)


def test_what_is_found_lies_nearer_to_the_best_of_all_choices_than_plain_rounding_does() -> None:
    weight, inputs = some(40, 4, seed=3)
    moments = inputs.T @ inputs
    near = torch.tensor(list(itertools.product((-1, 0, 1, 2), repeat=4)))

    def cost(numbers: Tensor) -> Tensor:
        left = weight.unsqueeze(-2) - numbers
        return torch.einsum("r n c, c d, r n d -> r n", left, moments, left)

    best = cost(weight.floor()[:, None] + near).amin(1).mean()
    found = cost(round_with_feedback(weight, moments, 1.0)[:, None].float()).mean()
    plainly = cost(plain(weight, 1.0)[:, None]).mean()
    assert best <= found < best + 0.4 * (plainly - best)


@pytest.mark.parametrize(("weight", "step"), [(torch.zeros(3, 3), 1.0), (torch.tensor([[12.7, 0.0]]), 0.1)])
def test_a_step_reaches_the_largest_number(weight: Tensor, step: float) -> None:
    assert even_step(weight, 1e-3) == pytest.approx(step)


def test_stored_weights_are_whole_steps_and_those_without_moments_lie_a_scale_a_row() -> None:
    weight, inputs = some(40, 50)
    state = {"layer.weight": weight.reshape(40, 2, 5, 5), "table.weight": weight, "layer.bias": weight[:, 0].clone()}
    stored = to_storage(state, "even-step", {"layer.weight": inputs.T @ inputs})
    back = from_storage(stored)
    step = even_step(weight, EVEN_SHARE)
    numbers = round_with_feedback(weight, inputs.T @ inputs, step)
    assert torch.equal(back["layer.weight"].flatten(1), dequantise_rows(numbers, torch.full((40,), step)))
    assert torch.equal(back["table.weight"], dequantise_rows(*quantise_rows(weight)))
    assert torch.equal(back["layer.bias"], weight[:, 0])
    assert stored["layer.weight"].numel() < to_storage(state, "int8-row")["layer.weight"].numel() * 0.7
