import torch
from torch import nn

from opendalle.nn.unfilled import Unfilled


def some_network() -> nn.Sequential:
    layers = [
        nn.Linear(3, 4),
        nn.Conv2d(2, 3, 3),
        nn.Embedding(5, 3, padding_idx=0),
        nn.LayerNorm(4),
        nn.GroupNorm(1, 2),
    ]
    network = nn.Sequential(*layers)
    nn.init.normal_(layers[0].weight, std=0.02)
    nn.init.trunc_normal_(layers[1].weight)
    nn.init.xavier_uniform_(layers[1].weight)
    nn.init.zeros_(layers[1].weight)
    return network


def test_chance_is_not_asked_and_constants_are_made() -> None:
    before = torch.get_rng_state()
    with Unfilled():
        network = some_network()
    assert torch.equal(torch.get_rng_state(), before)
    made = network.state_dict()
    assert bool((made["1.weight"] == 0).all())
    assert bool((made["2.weight"][0] == 0).all())
    assert bool((made["3.weight"] == 1).all())
    assert bool((made["4.bias"] == 0).all())
    some_network()
    assert not torch.equal(torch.get_rng_state(), before), "only while it lasts"


def test_a_network_made_so_is_the_same_once_it_has_its_weights() -> None:
    made = some_network()
    with Unfilled():
        unfilled = some_network()
    unfilled.load_state_dict(made.state_dict())
    x = torch.randn(2, 3)
    assert torch.equal(unfilled[0](x), made[0](x))
    assert all(one.requires_grad and isinstance(one, nn.Parameter) for one in unfilled.parameters())
