"""A product slab by slab is the product; where it does not pay it is torch's own, bit by bit."""

import pytest
import torch
import torch.nn.functional as F

from opendalle.nn.thin import MOST_TOKENS, ThinLinear, slab_of, thin_linear


@pytest.mark.parametrize("shape", [(2, 1), (3,), (1, 5), (MOST_TOKENS,)])
@pytest.mark.parametrize("rows", [16, 60, 384])
def test_few_tokens(shape: tuple[int, ...], rows: int) -> None:
    torch.manual_seed(0)
    tokens, weight = torch.randn(*shape, 40), torch.randn(rows, 40)
    with torch.no_grad():
        torch.testing.assert_close(thin_linear(tokens, weight), F.linear(tokens, weight))


@pytest.mark.parametrize(
    ("shape", "rows", "dtype"),
    [
        ((1,), 64, torch.float32),
        ((MOST_TOKENS + 1,), 64, torch.float32),
        ((4,), 131, torch.float32),  # a prime number of rows
        ((4,), 64, torch.float64),
        ((0,), 64, torch.float32),
    ],
)
def test_elsewhere_it_is_the_plain_product(shape: tuple[int, ...], rows: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    tokens, weight = torch.randn(*shape, 40, dtype=dtype), torch.randn(rows, 40, dtype=dtype)
    with torch.no_grad():
        assert torch.equal(thin_linear(tokens, weight), F.linear(tokens, weight))


def test_gradients_are_those_of_a_linear_layer() -> None:
    torch.manual_seed(0)
    layer, tokens = ThinLinear(40, 64), torch.randn(4, 40)
    layer(tokens).square().sum().backward()
    (wanted,) = torch.autograd.grad(F.linear(tokens, layer.weight).square().sum(), layer.weight)
    assert torch.equal(layer.weight.grad, wanted)


@pytest.mark.parametrize(
    ("rows", "most", "slab"),
    [(3072, 128, 128), (5460, 128, 105), (5460, 32, 30), (60, 128, 60), (131, 128, 0), (8, 32, 0)],
)
def test_slabs_divide_the_rows(rows: int, most: int, slab: int) -> None:
    assert slab_of(rows, most) == slab
