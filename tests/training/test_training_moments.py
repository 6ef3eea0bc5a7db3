"""Moments of layers' inputs: what they say of a layer's answers is what the layer answers."""

from collections.abc import Iterator

import pytest
import torch
from torch import Generator, Tensor, nn

from opendalle.base.protocols import Losses
from opendalle.training.moments import InputMoments


def power(layer: nn.Module, moments: Tensor) -> Tensor:
    """Sum of squares of each output, told from moments alone."""
    weight = layer.get_parameter("weight").detach().flatten(1)
    return torch.einsum("r c, c d, r d -> r", weight, moments, weight)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(6, 4, bias=False), (3, 5, 6)),
        (nn.Conv2d(3, 4, 3, padding=1, bias=False), (2, 3, 8, 6)),
        (nn.Conv2d(3, 4, 2, stride=2, bias=False), (2, 3, 8, 6)),
        (nn.Conv2d(3, 4, 1, bias=False), (2, 3, 5, 5)),
        (nn.Conv2d(3, 4, 3, dilation=2, padding=2, bias=False), (2, 3, 9, 9)),
    ],
)
def test_moments_tell_the_power_of_what_a_layer_answers(layer: nn.Module, shape: tuple[int, ...]) -> None:
    moments, given = InputMoments(), torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with moments.watching({"net": nn.Sequential(layer)}):
        answers = layer(given).detach()
    layer(given)  # no longer watched
    outputs = answers.reshape(-1, 4) if answers.ndim == 3 else answers.transpose(0, 1).flatten(1).T
    assert torch.allclose(power(layer, moments.of("net")["0.weight"]), outputs.square().sum(0), rtol=1e-4)


def test_layers_that_are_no_plain_matrix_and_modules_at_rest_have_none() -> None:
    net = nn.ModuleDict({"table": nn.Embedding(3, 2), "split": nn.Conv2d(4, 4, 3, groups=2)})
    moments = InputMoments()
    with moments.watching({"net": net}):
        for name, given in (("table", torch.tensor([1])), ("split", torch.zeros(1, 4, 5, 5))):
            net[name](given)
    assert not moments.of("net")
    assert not moments.of("nobody")


class Draws:
    def __init__(self) -> None:
        self.net = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).eval()
        self.groups = {"net": self.net}

    def __call__(self, batch: Tensor, rng: Generator) -> Losses:
        return Losses(total={"net": self.net(batch + torch.rand(batch.shape, generator=rng)).sum()})


def numbers(position: int) -> Iterator[Tensor]:
    while True:
        yield torch.full((3, 2), float(position))
        position += 1


def test_the_same_batches_give_the_same_moments_and_chance_outside_goes_on_as_if_nothing_was() -> None:
    state = torch.get_rng_state()
    one, two = InputMoments(), InputMoments()
    one.gather(Draws(), numbers, 3, seed=1)
    torch.set_rng_state(state)
    draws = Draws()
    before = torch.get_rng_state()
    two.gather(draws, numbers, 3, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.of("net")["0.weight"], two.of("net")["0.weight"])
    wider = InputMoments()
    wider.gather(draws, numbers, 4, seed=1)
    assert (wider.of("net")["0.weight"] > two.of("net")["0.weight"]).all()
