"""Who sees whom: against an oracle that walks every pair of cells in the paper's words."""

import numpy as np
import pytest

from opendalle.base.errors import BadConfig
from opendalle.dalle1.patterns import EDGES, PATTERNS, check_pattern, layer_patterns, rows_above, visible

GRIDS = [(1, 1), (4, 4), (5, 3), (3, 7), (8, 8), (12, 13)]


def oracle(pattern, asking, seen, height, width, kernel=11, edge="wrap"):
    """Whether cell `asking` sees cell `seen`, each cell looked at alone."""
    if seen > asking:
        return False  # not drawn yet
    if pattern == "dense":
        return True
    if pattern == "row":  # "the previous W tokens in raster order", and itself
        return seen in range(asking - width, asking + 1)
    row, column = divmod(asking, width)
    if pattern == "column":
        return seen in [above * width + column for above in range(row + 1)]
    half = kernel // 2
    window = []
    for down in range(-half, half + 1):
        for across in range(-half, half + 1):
            there = row + down, column + across
            if edge == "wrap":
                window += [there[0] * width + there[1]] if down <= 0 else []
            elif edge == "torus":
                window.append(there[0] % height * width + there[1] % width)
            elif 0 <= there[0] < height and 0 <= there[1] < width:
                window.append(there[0] * width + there[1])
    return seen in window


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize(("height", "width"), GRIDS)
@pytest.mark.parametrize("kernel", [1, 5, 11])
def test_every_pair_of_cells_is_as_the_oracle_says(pattern, edge, height, width, kernel):
    n = range(height * width)
    wanted = [[oracle(pattern, i, j, height, width, kernel, edge) for j in n] for i in n]
    got = visible(pattern, height, width, kernel=kernel, edge=edge)
    assert np.array_equal(got, np.array(wanted))
    assert got.diagonal().all()  # a cell sees itself


def test_the_papers_counts_at_its_own_grid():
    """Of 1,024 cells one of the middle sees 33 of its row, itself among them, 61 of its window, and its column."""
    cell = 20 * 32 + 16
    counts = {pattern: int(visible(pattern, 32, 32)[cell].sum()) for pattern in PATTERNS}
    assert counts == {"dense": cell + 1, "row": 33, "column": 21, "convolution": 61}


def test_a_window_clamped_to_the_border_is_one_that_is_cut():
    height, width, half = 6, 7, 2
    clamped = np.zeros((height * width, height * width), dtype=bool)
    for cell in range(height * width):
        row, column = divmod(cell, width)
        for down in range(-half, half + 1):
            for across in range(-half, half + 1):
                there = min(max(row + down, 0), height - 1) * width + min(max(column + across, 0), width - 1)
                clamped[cell, there] |= there <= cell
    assert np.array_equal(clamped, visible("convolution", height, width, kernel=5, edge="cut"))


def test_rows_wrap_over_row_ends():
    sees = visible("row", 3, 4)
    assert sees[8].nonzero()[0].tolist() == [4, 5, 6, 7, 8]  # the first cell of a row sees the whole row above
    assert sees[7].nonzero()[0].tolist() == [3, 4, 5, 6, 7]


@pytest.mark.parametrize("pattern", ["row", "convolution"])
@pytest.mark.parametrize("edge", ["wrap", "cut"])
@pytest.mark.parametrize(("height", "width"), GRIDS)
def test_no_cell_looks_further_up_than_it_says(pattern, edge, height, width):
    sees = visible(pattern, height, width, edge=edge).reshape(height, width, height, width)
    furthest = max(int(row - other) for row, _, other, _ in np.argwhere(sees))
    assert furthest == rows_above(pattern, height, width, edge=edge)


def test_the_papers_layers():
    layers = layer_patterns(64)
    assert layers[:7] == ("row", "column", "row", "row", "row", "column", "row")
    assert [layers.count(one) for one in ("row", "column", "convolution")] == [47, 16, 1]
    assert layers[-1] == "convolution"
    assert layer_patterns(1) == ("convolution",)


@pytest.mark.parametrize("wrong", [{"pattern": "diagonal"}, {"kernel": 4}, {"edge": "clip"}])
def test_what_there_is_not_is_refused(wrong):
    with pytest.raises(BadConfig):
        check_pattern(**{"pattern": "convolution", "kernel": 5, "edge": "wrap"} | wrong)
