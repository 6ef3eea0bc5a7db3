"""The cell norm, and how far a network with it sees."""

import pytest
import torch
from torch import nn

from opendalle.nn.norms import CellNorm, make_norm
from opendalle.nn.unet import UNet, UNetConfig, UNetLevel
from opendalle.samplers.tiler import measure_reach


def test_a_cell_norm_looks_at_one_cell() -> None:
    torch.manual_seed(0)
    norm, x = CellNorm(6, eps=1e-4), torch.randn(2, 6, 3, 5)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    mean, variance = x.mean(dim=1, keepdim=True), x.var(dim=1, keepdim=True, unbiased=False)
    plain = (x - mean) / (variance + 1e-4).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]
    torch.testing.assert_close(norm(x), plain)
    laid = x.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(norm(laid), plain)
    assert norm(laid).is_contiguous(memory_format=torch.channels_last)


def test_both_norms_have_the_same_weights() -> None:
    cell, group = (make_norm(kind, 8, groups=2, eps=1e-5) for kind in ("cell", "group"))
    assert isinstance(group, nn.GroupNorm)
    group.load_state_dict(cell.state_dict())


def unet(**changes: object) -> UNetConfig:
    level = UNetLevel(width=8, num_blocks=1)
    return UNetConfig(
        **{
            "in_channels": 2,
            "out_channels": 2,
            "levels": (level, level),
            "time_width": 8,
            "middle": "none",
            "norm": "cell",
            "norm_groups": 1,
            **changes,
        }
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"patch": 2},
        {"middle": "residual"},
        {"levels": (UNetLevel(width=8, num_blocks=2),)},
        {"levels": (UNetLevel(width=8, num_blocks=1), UNetLevel(width=8, num_blocks=2))},
        {"levels": (UNetLevel(width=8, num_blocks=1),) * 3},
    ],
)
def test_the_reach_is_what_gradients_say(changes: dict) -> None:
    torch.manual_seed(1)
    config = unet(**changes)
    network = UNet(config).double()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    assert config.reach is not None
    side = 2 * (config.reach // config.multiple + 2) * config.multiple
    x = torch.randn(1, 2, side, side, dtype=torch.float64)
    t = torch.zeros(1, dtype=torch.float64)
    assert measure_reach(lambda x: network(x, t), x, config.multiple) == config.reach


def test_what_sees_everywhere_has_no_reach() -> None:
    assert unet(norm="group").reach is None
    assert unet(middle="attention", head_width=8).reach is None
    assert unet(levels=(UNetLevel(width=8, num_blocks=1, has_attention=True),), head_width=8).reach is None
