"""Enlarging to any size: the chain that is chosen, the walk that is taken, and tiles that are the whole."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from opendalle.base.errors import BadConfig, BadRequest
from opendalle.base.rng import normal_like_rows, picture_generator
from opendalle.diffusion.grids import strided
from opendalle.diffusion.schedules import cosine
from opendalle.nn.unet import UNetConfig, UNetLevel
from opendalle.samplers.guided import GuidedDenoise
from opendalle.samplers.sample import last_state, sample
from opendalle.upsampling.cascade import UpsamplerStage, enlarged, enlarging, plan_stages, reduce_to, tiling_of
from opendalle.upsampling.network import UPSAMPLER_PRESETS, Upsampler, UpsamplerConfig, enlarge

TINY = UpsamplerConfig(
    picture_channels=4,
    factor=4,
    unet=UNetConfig(
        in_channels=8,
        out_channels=4,
        levels=(UNetLevel(width=8, num_blocks=1),),
        time_width=8,
        patch=4,
        middle="none",
        norm="cell",
        norm_groups=1,
    ),
    adds_detail=True,
)
TWO_LEVELS = dataclasses.replace(TINY, unet=dataclasses.replace(TINY.unet, levels=TINY.unet.levels * 2))
RGB = dataclasses.replace(TINY, picture_channels=3, unet=dataclasses.replace(TINY.unet, in_channels=6, out_channels=3))
WHOLE = dataclasses.replace(TINY, unet=dataclasses.replace(TINY.unet, norm="group"))


def stage(config: UpsamplerConfig = TINY, *, base: int = 16, steps: int = 2, trained: bool = True) -> UpsamplerStage:
    torch.manual_seed(5)
    network = Upsampler(config).eval()
    if trained:  # as if: an untrained one adds nothing to the enlarged picture
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.2)
    schedule = cosine()
    return UpsamplerStage(upsampler=network, base=base, schedule=schedule, grid=strided(schedule.num_steps, steps))


def pictures(count: int, channels: int, height: int, width: int) -> Tensor:
    x = torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1
    if channels == 4:
        x[:, :3] = torch.minimum(x[:, :3], x[:, 3:])
    return x


def seeds(*numbers: int) -> list[torch.Generator]:
    return [picture_generator(number) for number in numbers]


@pytest.mark.parametrize(
    ("config", "channels", "size"),
    [
        (TINY, 4, (50, 33)),
        (TINY, 4, (24, 61)),
        (TINY, 3, (50, 33)),
        (TWO_LEVELS, 4, (81, 24)),
        (RGB, 4, (50, 33)),
    ],
)
def test_tiles_are_the_whole(config: UpsamplerConfig, channels: int, size: tuple[int, int]) -> None:
    small, one = pictures(1, channels, *size), stage(config)
    large = (4 * size[0], 4 * size[1])
    whole = enlarged(small, large, (one,), seeds(3), tile=1024)
    tile = 4 * (2 * tiling_of(one, 4096, 1024).overlap + 6)
    assert tile < max(large)
    tiled = enlarged(small, large, (one,), seeds(3), tile=tile)
    assert (tiled - whole).abs().max() < 1e-4  # far within 1/255, which is 0.0078 here
    assert (tiled - enlarged(small, large, (one,), seeds(4), tile=tile)).abs().max() > 0.05  # the noise is heard


def test_memory_is_bounded_by_the_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    one, seen = stage(), set()
    forward = one.upsampler.forward

    def watched(x_t: Tensor, t: Tensor, enlarged: Tensor) -> Tensor:
        seen.add(tuple(x_t.shape[2:]))
        return forward(x_t, t, enlarged)

    monkeypatch.setattr(one.upsampler, "forward", watched)
    for side in (32, 64, 100):
        enlarged(pictures(1, 4, side, side), (4 * side, 4 * side), (one,), seeds(0), tile=128)
    assert max(max(shape) for shape in seen) <= 128


@pytest.mark.parametrize("channels", [3, 4])
def test_it_is_the_plain_walk(channels: int) -> None:
    """Against the samplers' own walk over the whole picture, all steps in one go."""
    small, one = pictures(2, channels, 12, 16), stage(steps=4)
    with_alpha = small if channels == 4 else torch.cat([small, torch.ones(2, 1, 12, 16)], dim=1)
    condition = one.upsampler.condition(with_alpha)
    denoise = GuidedDenoise(
        one.upsampler,
        {"enlarged": condition},
        schedule=one.schedule,
        prediction="x0",
        clip=(-1.0, 1.0),
        consistent_eps=True,
    )
    noise = normal_like_rows(seeds(7, 8), condition.shape[1:])
    plain = last_state(sample(denoise, noise, one.grid, schedule=one.schedule)).x_t.clamp(-1, 1)
    plain[:, :3] = torch.minimum(plain[:, :3], plain[:, 3:])
    drawn = enlarged(small, (48, 64), (one,), seeds(7, 8))
    torch.testing.assert_close(drawn, plain[:, :channels], rtol=0, atol=1e-5)
    alone = enlarged(small[1:], (48, 64), (one,), seeds(8))
    assert torch.equal(alone, drawn[1:])  # a picture alone is the same picture in a batch


def test_the_chain_begins_near_the_picture_and_repeats_its_last() -> None:
    first, second = stage(base=64), stage(base=256)
    both = (first, second)

    def bases(small: tuple[int, int], large: tuple[int, int]) -> list[int]:
        return [one.base for one in plan_stages(small, large, both)]

    assert bases((64, 64), (256, 256)) == [64]
    assert bases((64, 64), (1024, 1024)) == [64, 256]
    assert bases((256, 256), (1024, 1024)) == bases((256, 448), (1024, 1792)) == [256]
    assert bases((256, 256), (512, 512)) == [256]
    assert bases((48, 48), (257, 257)) == [64, 256]
    assert bases((256, 256), (2048, 2048)) == [256, 256]
    assert bases((300, 201), (900, 603)) == bases((300, 201), (900, 602)) == [256]
    assert bases((256, 256), (100, 100)) == bases((256, 256), (256, 256)) == []


def test_wrong_sizes_are_refused_at_once() -> None:
    one = stage()
    for size, why in [((1024, 1792), "as 1792x1792"), ((8192, 8192), "pixels"), ((0, 0), "same shape")]:
        with pytest.raises(BadRequest, match=why):
            enlarging(pictures(1, 4, 256, 256), size, (one,), seeds(0))
    with pytest.raises(BadRequest, match="no upsampler"):
        enlarging(pictures(1, 4, 16, 16), (64, 64), (), seeds(0))
    with pytest.raises(BadRequest, match="0 generators"):
        enlarging(pictures(1, 4, 16, 16), (64, 64), (one,), [])
    with pytest.raises(BadRequest, match="1 channels"):
        enlarging(pictures(1, 1, 16, 16), (64, 64), (one,), seeds(0))
    with pytest.raises(BadRequest, match="a tile of 64"):
        enlarging(pictures(1, 4, 64, 64), (256, 256), (one,), seeds(0), tile=64)
    with pytest.raises(BadConfig, match="base is 0"):
        stage(base=0)


def test_sizes_between_are_reduced_from_the_next_one() -> None:
    small, one = pictures(1, 4, 16, 16), stage()
    large = enlarged(small, (64, 64), (one,), seeds(2))
    half = enlarged(small, (32, 32), (one,), seeds(2))
    torch.testing.assert_close(half, large.unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(-1, -2)))
    odd = enlarged(small, (50, 50), (one,), seeds(2))
    assert odd.shape == (1, 4, 50, 50)
    assert (odd[:, :3] <= odd[:, 3:]).all()
    flat = torch.full((1, 3, 16, 16), 0.25)
    torch.testing.assert_close(reduce_to(flat, (10, 7)), torch.full((1, 3, 10, 7), 0.25))
    assert torch.equal(enlarged(small, (16, 16), (), seeds(2)), small)


@pytest.mark.parametrize(("config", "channels"), [(TINY, 3), (TINY, 4), (RGB, 3), (RGB, 4)])
def test_every_kind_of_picture_meets_every_kind_of_network(config: UpsamplerConfig, channels: int) -> None:
    """An untrained network adds nothing, so what comes out is plain enlargement, alpha too."""
    small = pictures(1, channels, 10, 14)
    drawn = enlarged(small, (40, 56), (stage(config, trained=False),), seeds(1))
    plain = enlarge(small, 4).clamp(-1, 1)
    if channels == 4:
        plain[:, :3] = torch.minimum(plain[:, :3], plain[:, 3:])
    torch.testing.assert_close(drawn, plain, rtol=0, atol=1e-5)


def test_every_step_is_told_and_the_last_brings_the_pictures() -> None:
    steps = list(enlarging(pictures(2, 4, 16, 16), (250, 250), (stage(steps=3), stage(steps=1)), seeds(0, 1)))
    assert [step.step for step in steps] == list(range(1, 9))
    assert {step.num_steps for step in steps} == {8}
    assert [step.pictures is not None for step in steps] == [False] * 7 + [True]


def test_windows_are_few_and_no_larger_than_they_need_be() -> None:
    bundled = stage(UPSAMPLER_PRESETS["emoji-1024"], base=256, trained=False)
    assert bundled.upsampler.config.unet.reach == 108
    whole, cut, large = (tiling_of(bundled, 1024, 1024), tiling_of(bundled, 1024, 640), tiling_of(bundled, 4096, 1024))
    assert (whole.tile, cut.tile, cut.overlap, cut.multiple, cut.blend) == (256, 158, 30, 2, False)
    assert large.tile <= 256
    assert tiling_of(bundled, 1792, 1024).tile == 254
    assert tiling_of(bundled, 1792, 1024, 1024).tile == 256  # so 1792x1024 is two windows, not four
    assert tiling_of(bundled, 4096, 1024, 2048).tile == large.tile  # the shorter side must be cut anyway


def test_a_network_that_sees_everywhere_is_faded_only_where_it_must_be_cut() -> None:
    one, small = stage(WHOLE), pictures(1, 4, 40, 40)
    assert one.upsampler.config.unet.reach is None
    assert not tiling_of(one, 160, 160).blend
    assert tiling_of(one, 160, 156).blend
    drawn = [enlarged(small, (160, 160), (one,), seeds(0), tile=tile) for tile in (160, 156)]
    assert drawn[0].shape == drawn[1].shape
    assert not torch.allclose(*drawn, atol=1e-3)
