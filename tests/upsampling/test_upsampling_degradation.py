"""Each operation of the chain against a plain version of it, and the chain: its chance, its order, its range."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import Generator, Tensor

from opendalle.base.errors import BadConfig, BadRequest
from opendalle.upsampling.degradation import (
    DegradationConfig,
    add_noise,
    blur_with,
    degrade,
    draw_kernel,
    draw_noise,
    draw_order,
    gaussian,
    jpeg,
    light,
    resize,
    within,
)


def seeds(*numbers: int) -> list[Generator]:
    return [Generator().manual_seed(number) for number in numbers]


def picture(channels: int, side: int = 24) -> Tensor:
    """One in [0, 1], colour premultiplied."""
    return within(torch.rand(channels, side, side + 4, generator=Generator().manual_seed(7)))


def drawing(channels: int = 4, side: int = 64) -> Tensor:
    """A disc in [-1, 1]; around it nothing, or white where there is no alpha."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    solid = ((x - side / 2) ** 2 + (y - side / 2) ** 2 < (side / 3) ** 2).float()
    colour = torch.tensor([0.9, 0.4, 0.2])[:, None, None]
    if channels == 3:
        return (colour * solid + 1 - solid) * 2 - 1
    return torch.cat([colour * solid, solid[None]]) * 2 - 1


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("config", [DegradationConfig(), light(), light(share=0.5)])
def test_chance_is_the_generators_alone_and_the_range_is_kept(channels: int, config: DegradationConfig) -> None:
    batch = torch.stack([drawing(channels)] * 12)
    small = degrade(batch, config, seeds(*range(12)))
    assert small.shape == (12, channels, 16, 16)
    assert small.abs().max() <= 1
    if channels == 4:
        assert (small[:, :3] <= small[:, 3:]).all()
    assert torch.equal(small, degrade(batch, config, seeds(*range(12))))
    assert torch.equal(small[5:6], degrade(batch[5:6], config, seeds(5)))  # whoever lies beside it
    assert len({tuple(one.flatten().tolist()) for one in small}) > 3


def test_what_is_not_spoiled_is_shrunk_and_no_more() -> None:
    batch = torch.stack([drawing(3), drawing(3).flip(2)])
    plain = torch.nn.functional.interpolate(batch, size=(16, 16), mode="bicubic", antialias=True).clamp(-1, 1)
    torch.testing.assert_close(degrade(batch, DegradationConfig(share=0.0), seeds(1, 2)), plain)


def test_flat_colour_stays_near_itself() -> None:
    flat = torch.full((16, 3, 32, 32), 0.3)
    small = degrade(flat, light(), seeds(*range(16)))
    assert (small - flat[:, :, :8, :8]).abs().max() < 0.1
    assert (small.mean() - 0.3).abs() < 0.01


def test_the_order_is_shuffled_and_fitting_never_comes_before_reducing() -> None:
    rng = Generator().manual_seed(0)
    orders = [draw_order(2, rng) for _ in range(300)]
    assert {tuple(sorted(order)) for order in orders} == {("blur", "blur", "fit", "jpeg", "noise", "reduce")}
    assert all(order.index("reduce") < order.index("fit") for order in orders)
    assert len(set(orders)) > 100
    for operation in ("blur", "noise", "jpeg", "reduce"):
        assert {order.index(operation) for order in orders} >= {0, 1, 2}


def test_gaussians_have_the_moments_they_were_asked_for() -> None:
    kernel = gaussian(25, 6.0, 1.5, angle=0.7, shift=0.5).double()
    along = torch.arange(25, dtype=torch.float64) - 12
    y, x = torch.meshgrid(along, along, indexing="ij")
    assert float(kernel.sum()) == pytest.approx(1)
    mean = [float((kernel * axis).sum()) for axis in (x, y)]
    assert mean == pytest.approx([0.5, 0.5], abs=1e-3)
    x, y = x - mean[0], y - mean[1]
    moments = [float((kernel * one).sum()) for one in (x * x, x * y, y * y)]
    c, s = math.cos(0.7), math.sin(0.7)
    wanted = [6 * c * c + 1.5 * s * s, (6 - 1.5) * c * s, 6 * s * s + 1.5 * c * c]
    assert moments == pytest.approx(wanted, rel=2e-2)
    sharp = gaussian(7, 0.0, 0.0)
    assert float(sharp[3, 3]) == pytest.approx(1)


def test_drawn_kernels_are_round_or_oblong_and_within_their_bounds() -> None:
    rng, config = Generator().manual_seed(3), DegradationConfig()
    kernels = [draw_kernel(config, rng) for _ in range(60)]
    assert {kernel.shape[0] for kernel in kernels} <= set(range(7, 26, 2))
    assert len({kernel.shape[0] for kernel in kernels}) > 4
    is_round = [torch.allclose(kernel, kernel.T, atol=1e-6) for kernel in kernels]
    assert 15 < sum(is_round) < 45


@pytest.mark.parametrize("channels", [3, 4])
def test_blurring_is_correlation_with_repeated_borders(channels: int) -> None:
    x, kernel = picture(channels), gaussian(7, 3.0, 0.8, angle=1.1)
    plain = np.stack([ndimage.correlate(one.numpy(), kernel.numpy(), mode="nearest") for one in x])
    torch.testing.assert_close(blur_with(x, kernel), torch.from_numpy(plain), rtol=0, atol=1e-6)
    torch.testing.assert_close(blur_with(x, kernel, stride=4), torch.from_numpy(plain)[:, ::4, ::4], rtol=0, atol=1e-6)


def test_sampling_every_few_pixels_moves_nothing() -> None:
    """A blurred ramp, sampled, is what the means of the squares are: the samples stand for their squares' middles."""
    ramp = torch.linspace(0, 1, 64).expand(3, 64, 64)
    sampled = blur_with(ramp, gaussian(25, 4.0, 4.0, shift=1.5), stride=4)
    means = ramp.unfold(1, 4, 4).unfold(2, 4, 4).mean(dim=(-1, -2))
    torch.testing.assert_close(sampled[:, :, 4:-4], means[:, :, 4:-4], rtol=0, atol=1e-4)


def weights_along(length: int, wanted: int, how: str) -> np.ndarray:
    """The plain matrix of one axis: which pixels a result looks at, and how much."""
    matrix = np.zeros((wanted, length))
    for i in range(wanted):
        place = (i + 0.5) * length / wanted - 0.5
        for k in range(math.floor(place) - 1, math.floor(place) + 3):
            d = abs(place - k)
            if how == "linear":
                weight = max(0.0, 1 - d)
            elif d < 1:  # the cubic kernel with a = -0.75
                weight = 1.25 * d**3 - 2.25 * d**2 + 1
            else:
                weight = -0.75 * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0.0
            matrix[i, min(max(k, 0), length - 1)] += weight
    return matrix


@pytest.mark.parametrize("how", ["linear", "cubic"])
@pytest.mark.parametrize("size", [(9, 10), (24, 14), (30, 31)])
def test_resizing_looks_at_a_few_pixels_alone(how: str, size: tuple[int, int]) -> None:
    x = picture(3)
    down, across = (weights_along(*lengths, how) for lengths in zip(x.shape[1:], size, strict=True))
    plain = np.clip(np.einsum("ih,chw,jw->cij", down, x.numpy(), across), 0, 1)
    torch.testing.assert_close(resize(x, size, how), torch.from_numpy(plain).float(), rtol=0, atol=1e-5)


def test_resizing_by_area_takes_means() -> None:
    x = picture(4)
    torch.testing.assert_close(resize(x, (6, 7), "area"), x.unfold(1, 4, 4).unfold(2, 4, 4).mean(dim=(-1, -2)))


def test_noise_is_of_three_kinds() -> None:
    rng = Generator().manual_seed(2)
    colour, grey, mixed = (draw_noise(kind, 0.1, (200, 200), rng) for kind in ("colour", "grey", "correlated"))
    for noise in (colour, grey):
        assert noise.std(dim=(1, 2)).tolist() == pytest.approx([0.1] * 3, rel=0.03)
    assert torch.corrcoef(colour.flatten(1)).fill_diagonal_(0).abs().max() < 0.03
    assert torch.equal(grey[0], grey[1])
    assert mixed.std(dim=(1, 2)).max() <= 0.1 * 1.03
    assert torch.corrcoef(mixed.flatten(1)).fill_diagonal_(0).abs().max() > 0.1


def test_noise_falls_where_there_is_something() -> None:
    x = drawing() / 2 + 0.5
    noised = add_noise(x, torch.full((3, 64, 64), -0.1))
    torch.testing.assert_close(noised[:3], (x[:3] - 0.1).clamp_min(0) * x[3:])
    assert torch.equal(noised[3], x[3])
    opaque = picture(3)
    torch.testing.assert_close(add_noise(opaque, torch.full_like(opaque, 0.2)), (opaque + 0.2).clamp_max(1))


def test_jpeg_is_pillows_and_leaves_alpha_alone() -> None:
    x = drawing() / 2 + 0.5
    file = io.BytesIO()
    Image.fromarray((x[:3].permute(1, 2, 0) * 255).round().byte().numpy()).save(file, "jpeg", quality=40)
    read = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) / 255
    squeezed = jpeg(x, 40)
    assert torch.equal(squeezed[3], x[3])
    torch.testing.assert_close(squeezed[:3], torch.minimum(read, x[3:]))
    assert not torch.allclose(squeezed, x, atol=0.01)


def test_wrong_use_is_refused() -> None:
    for wrong in (
        {"factor": 1},
        {"share": 1.5},
        {"num_blurs": -1},
        {"noise": (5, 2)},
        {"jpeg_quality": (0, 10)},
        {"blur_sigma": 0.0},
        {"blur_variance": 0.0},
    ):
        with pytest.raises(BadConfig):
            DegradationConfig(**wrong)
    with pytest.raises(BadRequest, match="multiples of 4"):
        degrade(torch.zeros(1, 3, 30, 32), DegradationConfig(), seeds(0))
    with pytest.raises(BadRequest, match="one a picture"):
        degrade(torch.zeros(2, 3, 32, 32), DegradationConfig(), seeds(0))
