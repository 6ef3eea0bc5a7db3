import pytest
import torch
from torch import Tensor, nn

from opendalle.base.errors import BadConfig, BadRequest
from opendalle.diffusion.grids import strided
from opendalle.diffusion.schedules import cosine
from opendalle.samplers.guided import GuidedDenoise
from opendalle.samplers.sample import last_state, sample
from opendalle.samplers.tiler import TiledNetwork, Tiling, measure_reach, run_tiled, spans


def seeded(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return module


def plain() -> nn.Module:
    return seeded(nn.Sequential(nn.Conv2d(3, 6, 5, padding=2), nn.SiLU(), nn.Conv2d(6, 3, 3, padding=1)))


def shrinking() -> nn.Module:
    down, up = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Upsample(scale_factor=2)
    return seeded(nn.Sequential(down, nn.SiLU(), nn.Conv2d(8, 8, 3, padding=1), up, nn.Conv2d(8, 3, 3, padding=1)))


def growing() -> nn.Module:
    return seeded(nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2), nn.Conv2d(3, 3, 3, padding=1)))


def picture(height: int, width: int) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)


@pytest.mark.parametrize(("build", "multiple"), [(plain, 1), (shrinking, 2), (growing, 1)])
@pytest.mark.parametrize("size", [(40, 40), (64, 50), (20, 90), (16, 16), (41, 53)])
@torch.no_grad()
def test_tiles_equal_the_whole(build, multiple: int, size: tuple[int, int]) -> None:
    network = build()
    x = picture(*(side - side % multiple for side in size))
    reach = measure_reach(network, picture(48, 48), multiple)
    overlap = -(-reach // multiple) * multiple
    whole = network(x)
    tiled = run_tiled(network, x, tiling=Tiling(tile=24, overlap=overlap, multiple=multiple))
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-5)  # far within 1/255


def test_reach_is_the_sum_of_the_convolutions() -> None:
    assert measure_reach(plain(), picture(32, 32)) == 3
    assert measure_reach(growing(), picture(32, 32)) == 2
    with pytest.raises(BadRequest, match="reaches"):
        measure_reach(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.GroupNorm(1, 4)), picture(32, 32))


@torch.no_grad()
def test_too_little_overlap_shows() -> None:
    network, x = plain(), picture(40, 40)
    tiled = run_tiled(network, x, tiling=Tiling(tile=24, overlap=1))
    assert (tiled - network(x)).abs().max() > 1e-3


@pytest.mark.parametrize("blend", [False, True])
def test_the_network_never_sees_more_than_a_window(blend: bool) -> None:
    """The memory of a pass is bounded by the window, whatever the picture's size."""
    for side in (24, 96, 240):
        seen: set[tuple[int, ...]] = set()

        def network(x: Tensor, seen=seen) -> Tensor:
            seen.add(tuple(x.shape))
            return x

        x = picture(side, side)
        torch.testing.assert_close(run_tiled(network, x, tiling=Tiling(tile=24, overlap=4, blend=blend)), x)
        assert seen == {(2, 3, 24, 24)}


@torch.no_grad()
def test_blending_hides_the_seams_of_a_network_that_reaches_everywhere() -> None:
    network = seeded(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.Conv2d(8, 3, 3, padding=1)))
    ramp = torch.linspace(-1, 1, 60)[None, None, :, None].expand(1, 3, 60, 60) * torch.linspace(0.2, 1, 60)
    cut, blended = (run_tiled(network, ramp, tiling=Tiling(tile=24, overlap=6, blend=blend)) for blend in (False, True))

    def roughest(drawn: Tensor) -> float:
        inner = drawn[..., 4:-4, 4:-4]
        return float(inner.diff(dim=2).diff(dim=2).abs().max())

    assert roughest(blended) < roughest(cut) / 3


@pytest.mark.parametrize("length", [10, 24, 25, 40, 97])
@pytest.mark.parametrize("overlap", [0, 3, 11])
def test_windows_cover_every_pixel_once(length: int, overlap: int) -> None:
    cuts = spans(length, Tiling(tile=24, overlap=overlap))
    kept = [pixel for span in cuts for pixel in range(span.keep_start, span.keep_stop)]
    assert kept == list(range(length))
    shares = [0.0] * length
    for span in cuts:
        assert span.start <= span.keep_start < span.keep_stop <= span.stop
        assert span.keep_start - span.start >= overlap or span.start == 0
        assert span.stop - span.keep_stop >= overlap or span.stop == length
        for i, weight in enumerate(span.weights):
            shares[span.start + i] += weight
    assert shares == pytest.approx([1.0] * length)


@torch.no_grad()
def test_a_tiled_network_walks_like_the_whole_one() -> None:
    """The upsampler's case: x_t and a four times smaller picture, over a whole DDIM walk."""
    body = seeded(nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 3, 3, padding=1)))

    def network(x: Tensor, t: Tensor, small: Tensor) -> Tensor:
        large = nn.functional.interpolate(small, scale_factor=4, mode="nearest")
        return torch.tanh(body(torch.cat([x, large], dim=1)) + t[:, None, None, None] / 1000)

    tiled = TiledNetwork(network=network, tiling=Tiling(tile=8, overlap=1), maps=("small",))
    schedule, x_t, small = cosine(), picture(64, 96), picture(16, 24)
    drawn = [
        last_state(
            sample(
                GuidedDenoise(run, {"small": small}, schedule=schedule, prediction="v"),
                x_t,
                strided(1000, 5),
                schedule=schedule,
            )
        ).x_t
        for run in (network, tiled)
    ]
    assert (drawn[0] - drawn[1]).abs().max() < 1e-5


def test_wrong_use_is_refused() -> None:
    for wrong in ({"tile": 10, "overlap": 5}, {"tile": 10, "multiple": 4}, {"overlap": -1}, {"multiple": 0}):
        with pytest.raises(BadConfig):
            Tiling(**wrong)
    with pytest.raises(BadRequest):
        run_tiled(lambda x: x, picture(41, 40), tiling=Tiling(tile=24, overlap=2, multiple=4))
    with pytest.raises(BadRequest):
        run_tiled(lambda x, y: x, picture(40, 40), picture(81, 80), tiling=Tiling(tile=24, overlap=2))
