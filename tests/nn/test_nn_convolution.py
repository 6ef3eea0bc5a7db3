"""Winograd's algorithm gives the plain convolution, and steps aside where it may not or need not serve."""

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F

from opendalle.nn import convolution
from opendalle.nn.convolution import Conv3x3, convolve_tiles, transform_kernel


def grid(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(2, 5, 8, 6), (1, 3, 2, 2), (3, 4, 10, 4)])
@pytest.mark.parametrize("strip", [1, 1 << 30])  # a tile row at a time, and all at once
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_tiles_give_the_plain_convolution(shape, strip, layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "STRIP_BYTES", strip)
    x, kernel, bias = grid(*shape), grid(7, shape[1], 3, 3, seed=1), grid(7, seed=2)
    for one in (bias, None):
        came = convolve_tiles(x.to(memory_format=layout), transform_kernel(kernel), one)
        assert came.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(came, F.conv2d(x, kernel, one, padding=1), rtol=1e-5, atol=1e-5)


def test_rounding_stays_within_that_of_float32() -> None:
    conv, x = Conv3x3(256, 256).requires_grad_(False), grid(1, 256, 16, 16)
    exact = F.conv2d(x.double(), conv.weight.double(), conv.bias.double(), padding=1)
    size = F.conv2d(x.double().abs(), conv.weight.double().abs(), conv.bias.double().abs(), padding=1)
    assert conv._is_worth_it(x)
    # Winograd's transforms cost about one unit in the last place of the terms, plain sums 0.3 (measured, five seeds).
    assert ((conv(x) - exact).abs() / size).max() <= 2 * torch.finfo(torch.float32).eps


@pytest.mark.parametrize("limit", [0, convolution.KEPT_BYTES])  # nothing is kept, or all
def test_the_transformed_kernel_follows_the_weights(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "KEPT_BYTES", limit)
    conv, x = Conv3x3(256, 256).requires_grad_(False), grid(1, 256, 16, 16)
    assert conv._is_worth_it(x)
    for _ in range(2):
        conv(x)
        with torch.no_grad():
            conv.weight.mul_(-2)
        torch.testing.assert_close(conv(x), F.conv2d(x, conv.weight, conv.bias, padding=1), rtol=1e-4, atol=1e-4)
    conv.load_state_dict({"weight": grid(256, 256, 3, 3), "bias": grid(256)}, assign=True)
    torch.testing.assert_close(conv(x), F.conv2d(x, conv.weight, conv.bias, padding=1), rtol=1e-3, atol=1e-3)
    copy = deepcopy(conv)
    with torch.inference_mode():
        copy.weight.mul_(3)
        torch.testing.assert_close(copy(x), F.conv2d(x, copy.weight, copy.bias, padding=1), rtol=1e-3, atol=1e-3)
    conv.load_state_dict({name: torch.zeros_like(one) for name, one in conv.state_dict().items()})
    assert not conv(x).any()
    assert list(conv.state_dict()) == ["weight", "bias"]
    assert (conv._kept is None) == (limit == 0)


def test_it_steps_aside() -> None:
    conv, x = Conv3x3(256, 256), grid(1, 256, 16, 16)
    assert not conv._is_worth_it(x)  # somebody wants gradients
    conv(x).sum().backward()
    assert conv.weight.grad is not None
    with torch.no_grad():
        assert conv._is_worth_it(x)
        assert not conv._is_worth_it(grid(1, 256, 17, 16))
        assert not conv._is_worth_it(grid(1, 256, 4, 4))
        assert not Conv3x3(64, 64)._is_worth_it(grid(1, 64, 16, 16))
        assert conv(grid(1, 256, 17, 16)).shape == (1, 256, 17, 16)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert not conv._is_worth_it(x)
