"""The grid transformer against a slow plain version, square by square, and at its doors."""

from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F

from opendalle.base.errors import BadConfig, BadRequest
from opendalle.nn.embeddings import sinusoid
from opendalle.nn.grid_transformer import GridTransformer, GridTransformerConfig, grid_positions
from opendalle.nn.unet import UNet, UNetConfig, UNetLevel

SMALL = GridTransformerConfig(
    in_channels=3, out_channels=6, patch=2, width=32, depth=2, heads=4, time_width=24, context_width=12
)


def random_network(config: GridTransformerConfig = SMALL) -> GridTransformer:
    torch.manual_seed(0)
    network = GridTransformer(config).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network


def inputs(
    height: int = 4, width: int = 6
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    real = torch.arange(5) < torch.tensor([5, 2])[:, None]
    return torch.randn(2, 3, height, width), torch.tensor([3, 700]), torch.randn(2, 24), torch.randn(2, 5, 12), real


def plain(
    network: GridTransformer, x: torch.Tensor, t: torch.Tensor, embedding: torch.Tensor, states: torch.Tensor
) -> torch.Tensor:
    """One picture, one square, one head at a time, over [context ; squares]; nothing is masked."""
    config, out = network.config, torch.zeros(len(x), 6, *x.shape[2:])
    for row in range(len(x)):
        time = network.time(t[row : row + 1])[0] + embedding[row]
        places = [(i, j) for i in range(0, x.shape[2], 2) for j in range(0, x.shape[3], 2)]
        tokens = []
        for i, j in places:
            where = torch.cat([sinusoid(torch.tensor([at // 2]), config.width // 2)[0] for at in (i, j)])
            tokens.append(network.patch_in(x[row, :, i : i + 2, j : j + 2].flatten()) + where)
        for block in cast(list[Any], network.transformer.blocks):
            shift = block.modulation(F.silu(time)).chunk(6)
            scale1, shift1, gate1, scale2, shift2, gate2 = shift
            normed = [block.norm1(token) * (1 + scale1) + shift1 for token in tokens]
            keys, values = block.attention.context_kv(states[row]).chunk(2, dim=-1)
            own = [block.attention.qkv(token).chunk(3) for token in normed]
            keys = torch.cat([keys, torch.stack([k for _, k, _ in own])])
            values = torch.cat([values, torch.stack([v for _, _, v in own])])
            mixed = []
            for query, _, _ in own:
                heads = []
                for head in range(4):
                    part = slice(head * 8, head * 8 + 8)
                    weight = (keys[:, part] @ query[part] / 8**0.5).softmax(0)
                    heads.append(weight @ values[:, part])
                mixed.append(block.attention.out(torch.cat(heads)))
            tokens = [token + gate1 * one for token, one in zip(tokens, mixed, strict=True)]
            tokens = [
                token + gate2 * block.mlp((block.norm2(token) * (1 + scale2) + shift2)[None, None])[0, 0]
                for token in tokens
            ]
        scale, shift = network.modulation_out(F.silu(time)).chunk(2)
        for token, (i, j) in zip(tokens, places, strict=True):
            square = network.patch_out(F.layer_norm(token, (32,)) * (1 + scale) + shift)
            out[row, :, i : i + 2, j : j + 2] = square.view(6, 2, 2)
    return out


def test_it_equals_the_plain_version() -> None:
    network = random_network()
    x, t, embedding, states, _ = inputs()
    with torch.no_grad():
        got = network(x, t, embedding=embedding, context=network.prepare_context(states))
        torch.testing.assert_close(got, plain(network, x, t, embedding, states), atol=1e-4, rtol=1e-4)


def test_masked_context_is_as_if_it_were_not_there() -> None:
    network = random_network()
    x, t, embedding, states, real = inputs()
    with torch.no_grad():
        both = network(x, t, embedding=embedding, context=network.prepare_context(states, real))
        short = network.prepare_context(states[1:, :2])
        torch.testing.assert_close(both[1:], network(x[1:], t[1:], embedding=embedding[1:], context=short))
        picked = network.prepare_context(states, real).rows(torch.tensor([1, 0]))
        swapped = network(x.flip(0), t.flip(0), embedding=embedding.flip(0), context=picked)
        torch.testing.assert_close(swapped, both.flip(0))


def test_the_first_prediction_is_zero_and_every_weight_is_reached_after_it() -> None:
    torch.manual_seed(0)
    network = GridTransformer(SMALL)
    x, t, embedding, states, real = inputs()
    assert network(x, t, embedding=embedding, context=network.prepare_context(states, real)).abs().max() == 0
    network = random_network()
    network(x, t, embedding=embedding, context=network.prepare_context(states, real)).square().sum().backward()
    assert all(one.grad is not None and one.grad.any() for one in network.parameters())


def test_squares_know_their_row_and_column_on_grids_of_any_size() -> None:
    table = grid_positions(3, 5, 32, torch.zeros(1))
    assert table.shape == (15, 32)
    assert len(table.unique(dim=0)) == 15
    small = grid_positions(2, 2, 32, torch.zeros(1))
    assert torch.equal(table.view(3, 5, 32)[:2, :2].reshape(4, 32), small)  # the same place, the same wave


def test_it_takes_the_place_of_a_unet() -> None:
    levels = (UNetLevel(width=32, num_blocks=1, has_attention=True),)
    unet = UNet(
        UNetConfig(in_channels=3, out_channels=6, levels=levels, time_width=24, context_width=12, head_width=8)
    ).eval()
    x, t, embedding, states, real = inputs()
    for network in (unet, random_network()):
        out = network(x, t, embedding=embedding, context=network.prepare_context(states, real))
        assert out.shape == (2, 6, 4, 6)
        assert x.shape[2] % network.config.multiple == 0


def test_grids_and_configs_that_do_not_fit_are_refused() -> None:
    network = random_network()
    with pytest.raises(BadRequest, match="3 by 4"):
        network(torch.randn(1, 3, 3, 4), torch.tensor([1]))
    good = {"in_channels": 3, "out_channels": 3, "patch": 2, "width": 32, "depth": 1, "heads": 4, "time_width": 8}
    for wrong in ({"width": 30}, {"heads": 3}, {"patch": 0}, {"in_channels": 0}):
        with pytest.raises(BadConfig):
            GridTransformerConfig(**(good | wrong))
