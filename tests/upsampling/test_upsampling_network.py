"""The upsampler has the published sizes, runs at any size, and stays within the small budget."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from opendalle.base.errors import BadConfig, BadRequest
from opendalle.nn.unet import UNetConfig, UNetLevel
from opendalle.upsampling.network import UPSAMPLER_PRESETS, Upsampler, UpsamplerConfig, enlarge, paper_upsampler

TINY = UpsamplerConfig(
    picture_channels=4,
    factor=4,
    unet=UNetConfig(
        in_channels=8,
        out_channels=4,
        levels=(UNetLevel(width=32, num_blocks=1), UNetLevel(width=32, num_blocks=1)),
        time_width=32,
        patch=4,
        middle="none",
    ),
)


def numel(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_counts_of_karlo_and_the_paper() -> None:
    printed = {
        "64-256": ("729.7", "691.6"),  # with and without scale-shift
        "256-1024": ("282.1", "267.1"),
    }
    with torch.device("meta"):
        assert numel(Upsampler(UPSAMPLER_PRESETS["karlo"])) == 691_579_523
        for stage, (with_scale, plain) in printed.items():
            assert f"{numel(Upsampler(paper_upsampler(stage))) / 1e6:.1f}" == with_scale
            assert f"{numel(Upsampler(paper_upsampler(stage, conditioning='add'))) / 1e6:.1f}" == plain
    with pytest.raises(BadConfig, match="stage '64'"):
        paper_upsampler("64")


def test_emoji_size_stays_within_its_budget() -> None:
    with torch.device("meta"):
        upsampler = Upsampler(UPSAMPLER_PRESETS["emoji"])
        large = torch.randn(1, 4, 256, 256)
        with FlopCounterMode(display=False) as counter:
            assert upsampler(large, torch.zeros(1), large).shape == large.shape
    assert 1.5e6 < numel(upsampler) < 2.1e6
    assert counter.get_total_flops() / 2 < 3e9


def test_sees_the_small_picture_at_any_size() -> None:
    torch.manual_seed(0)
    upsampler = Upsampler(TINY)
    nn.init.normal_(upsampler.unet.conv_out.weight, std=0.1)
    small, x = torch.rand(1, 4, 10, 4) * 2 - 1, torch.randn(1, 4, 40, 16)
    enlarged = upsampler.condition(small)
    first = upsampler(x, torch.tensor([5]), enlarged)
    assert first.shape == x.shape
    assert not torch.allclose(first, upsampler(x, torch.tensor([5]), -enlarged))
    with pytest.raises(BadRequest, match="3 channels"):
        upsampler(x[:, :3], torch.tensor([5]), enlarged[:, :3])


def test_detail_is_added_to_the_enlarged_picture() -> None:
    torch.manual_seed(0)
    plain = Upsampler(TINY)
    adding = Upsampler(dataclasses.replace(TINY, adds_detail=True))
    x, enlarged, t = torch.randn(2, 4, 16, 16), torch.randn(2, 4, 16, 16), torch.tensor([3, 700])
    assert torch.equal(adding(x, t, enlarged), enlarged)  # before training it is plain enlargement
    nn.init.normal_(plain.unet.conv_out.weight, std=0.1)
    adding.load_state_dict(plain.state_dict())
    torch.testing.assert_close(adding(x, t, enlarged), enlarged + plain(x, t, enlarged))


def test_enlarging_clamps_before_and_keeps_flat_colour() -> None:
    flat = torch.full((1, 3, 4, 4), 0.25)
    torch.testing.assert_close(enlarge(flat, 4), torch.full((1, 3, 16, 16), 0.25))
    torch.testing.assert_close(enlarge(flat * 100, 2), torch.ones(1, 3, 8, 8))


@pytest.mark.parametrize(
    "bad",
    [
        {"factor": 1},
        {"picture_channels": 3},
        {"unet": dataclasses.replace(TINY.unet, out_channels=3)},
        {"unet": dataclasses.replace(TINY.unet, middle="attention", head_width=32)},
    ],
)
def test_bad_configs_are_refused(bad: dict) -> None:
    with pytest.raises(BadConfig):
        dataclasses.replace(TINY, **bad)
