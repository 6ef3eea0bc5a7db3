"""Sparse attention: against dense attention under the pattern's mask, all at once and piece by piece."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from opendalle.dalle1.attention import Reading
from opendalle.dalle1.patterns import EDGES, PATTERNS, visible
from opendalle.nn.kv_cache import KeysValues

NUM_TEXT = 3
KINDS = [(pattern, "wrap") for pattern in PATTERNS] + [("convolution", edge) for edge in EDGES[1:]]


def mask_of(pattern: str, edge: str, height: int, width: int, kernel: int) -> Tensor:
    """Caption and picture together: text is causal and blind to the picture, cells see all of the text."""
    total = NUM_TEXT + height * width
    mask = torch.ones(total, total, dtype=torch.bool).tril()
    cells = visible(pattern, height, width, kernel=kernel, edge=edge)
    mask[NUM_TEXT:, NUM_TEXT:] = torch.from_numpy(cells)
    return mask


def some(tokens: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> list[Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 2, tokens, 4, generator=rng, dtype=dtype) for _ in range(3)]


@pytest.mark.parametrize(("pattern", "edge"), KINDS)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 5), (6, 4), (9, 9)])
@pytest.mark.parametrize("kernel", [3, 11])
def test_it_is_dense_attention_under_the_mask_forward_and_backward(pattern, edge, height, width, kernel):
    reading = Reading(pattern, height, width, NUM_TEXT, kernel=kernel, edge=edge)
    mask = mask_of(pattern, edge, height, width, kernel)
    inputs = some(NUM_TEXT + height * width)
    weight = torch.randn(2, 2, NUM_TEXT + height * width, 4, dtype=torch.float64)
    results = []
    for attend in (reading, lambda *qkv: F.scaled_dot_product_attention(*qkv, attn_mask=mask)):
        leaves = [one.clone().requires_grad_() for one in inputs]
        out = attend(*leaves)
        (out * weight).sum().backward()
        results.append([out, *(one.grad for one in leaves)])
    for ours, wanted in zip(*results, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("pattern", "edge"), KINDS)
def test_in_single_precision_it_is_dense_attention_to_a_hundred_thousandth(pattern, edge):
    reading = Reading(pattern, 12, 13, NUM_TEXT, edge=edge)
    inputs = some(NUM_TEXT + 12 * 13, torch.float32)
    wanted = F.scaled_dot_product_attention(*inputs, attn_mask=mask_of(pattern, edge, 12, 13, 11))
    torch.testing.assert_close(reading(*inputs), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("pattern", "edge"), KINDS)
@pytest.mark.parametrize("cells", [0, 1, 6, 11, 14])
def test_a_picture_may_end_anywhere(pattern, edge, cells):
    """A part of a picture is the beginning of the whole one."""
    reading = Reading(pattern, 4, 5, NUM_TEXT, kernel=5, edge=edge)
    inputs = some(NUM_TEXT + 20)
    part = [one[:, :, : NUM_TEXT + cells] for one in inputs]
    torch.testing.assert_close(reading(*part), reading(*inputs)[:, :, : NUM_TEXT + cells], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("pattern", "edge"), KINDS)
@pytest.mark.parametrize("pieces", [[1] * 20, [7, 1, 12], [20]])
def test_cells_that_come_piece_by_piece_see_the_same(pattern, edge, pieces):
    reading = Reading(pattern, 4, 5, NUM_TEXT, kernel=5, edge=edge)
    queries, keys, values = some(NUM_TEXT + 20)
    found, end = list[Tensor](), 0
    for piece in (NUM_TEXT, *pieces):
        start, end = end, end + piece
        found.append(reading.cached(queries[:, :, start:end], KeysValues(keys[:, :, :end], values[:, :, :end])))
    torch.testing.assert_close(torch.cat(found, dim=2), reading(queries, keys, values), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("pattern", "most"), [("row", 33), ("column", 16), ("convolution", 61)])
def test_a_step_reads_no_more_keys_on_a_taller_grid(pattern, most):
    """Of a row or a window as many at any height; of a column one a row."""
    assert Reading(pattern, 16, 32, NUM_TEXT).near.shape == (16 * 32, most)
    if pattern != "column":
        assert Reading(pattern, 64, 32, NUM_TEXT).near.shape[1] == most


def test_all_at_once_computes_only_pairs_of_neighbouring_rows():
    """1,024 cells: of 1,048,576 pairs a row layer computes a sixteenth, a column layer a thirty-second."""
    pairs = {one: Reading(one, 32, 32, NUM_TEXT).bias.numel() for one in ("row", "convolution")}
    assert pairs == {"row": 32 * 32 * 2 * 32, "convolution": 32 * 32 * 7 * 32}
    assert Reading("column", 32, 32, NUM_TEXT).bias.shape == (1, 32, 32)  # the same for each of 32 columns


def test_dropped_weights_are_those_of_training_alone():
    reading = Reading("row", 3, 3, NUM_TEXT)
    inputs = some(NUM_TEXT + 9)
    torch.manual_seed(0)
    dropped = torch.stack([reading(*inputs, dropout=0.5) for _ in range(400)])
    wanted = reading(*inputs)
    assert (dropped.std(dim=0)[:, :, NUM_TEXT:] > 0.01).all()
    torch.testing.assert_close(dropped.mean(dim=0), wanted, rtol=0, atol=0.3)
