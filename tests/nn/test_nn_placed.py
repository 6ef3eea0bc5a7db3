"""Things drawn once and placed: what is laid where, against a loop over places and cells."""

import pytest
import torch

from opendalle.base.errors import BadConfig
from opendalle.nn.placed import PlacedThings, PlacedThingsConfig


def things(**sizes: int) -> PlacedThings:
    torch.manual_seed(0)
    config = PlacedThingsConfig(**{"num_things": 3, "picture_width": 4, "width": 8, "depth": 1} | sizes)
    return PlacedThings(config, word_width=5, hidden_width=6, channels=2, side=8).eval()


def test_it_is_what_a_loop_over_places_and_cells_lays() -> None:
    network = things()
    hidden, roles = torch.randn(2, 6), torch.randn(2, 6, 5)
    with torch.no_grad():
        grid = network(hidden, roles)
        normed = network.norm(hidden)
        choice = network.place(normed).reshape(2, 3, 10).softmax(dim=2)
        expected = torch.zeros(2, 2, 8, 8)
        for b in range(2):
            for k in range(3):
                told = torch.cat([roles[b, 2 * k], roles[b, 2 * k + 1], network.picture(normed[b])])
                patch = network.out(network.norm_out(network.blocks(network.thing_in(told)))).reshape(2, 6, 6)
                for p in range(9):
                    top, left = (-1, 1, 3)[p // 3], (-1, 1, 3)[p % 3]
                    for y in range(6):
                        for x in range(6):
                            if 0 <= top + y < 8 and 0 <= left + x < 8:
                                expected[b, :, top + y, left + x] += choice[b, k, 1 + p] * patch[:, y, x]
    torch.testing.assert_close(grid, expected)


def test_a_thing_in_another_place_is_the_same_patch_moved() -> None:
    network = things(num_things=1)
    roles = torch.randn(1, 2, 5)
    with torch.no_grad():
        network.place.weight.zero_()
        grids = []
        for place in (4, 5):  # of the middle row, the middle and the right
            network.place.bias.fill_(-1e4)
            network.place.bias[1 + place] = 1e4
            grids.append(network(torch.ones(1, 6), roles))
    torch.testing.assert_close(grids[0][..., 1:5], grids[1][..., 3:7])


def test_places_hang_over_both_edges_alike() -> None:
    assert PlacedThingsConfig().places(8) == (-1, 1, 3)
    assert PlacedThingsConfig(patch=4, stride=2).places(8) == (-1, 1, 3, 5)
    with pytest.raises(BadConfig, match="positive"):
        PlacedThingsConfig(num_things=0)
