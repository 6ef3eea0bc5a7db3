"""Which cells of a picture a cell sees: row, column and convolutional attention, and which layer has which.

Cells are counted in raster order, W to a row.  A cell sees itself and earlier cells only:

    dense          all of them
    row            the W before it: its row so far, and of the row above what lies above it and to the right
    column         those above it
    convolution    the half of a square window that is drawn already

Every cell also sees the whole caption, in every layer; that is `attention.py`'s business.  No torch.

Source: arXiv:2102.12092, section 2.2 and appendix B.1, figure 11.
"""

from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool

from opendalle.base.errors import require

Pattern = Literal["dense", "row", "column", "convolution"]
Edge = Literal["wrap", "cut", "torus"]
PATTERNS: tuple[str, ...] = get_args(Pattern)
EDGES: tuple[str, ...] = get_args(Edge)
KERNEL = 11  # side of the paper's window


def layer_patterns(depth: int) -> tuple[Pattern, ...]:
    """Return the paper's pattern of every layer: row, column, row, row, row, column, ..., and last a convolution.

    Args:
        depth: layers, at least 1.

    Source: appendix B.1: of layers 1 to depth - 1, those with (i - 2) mod 4 = 0 are column layers.
    """
    inner: list[Pattern] = ["column" if (layer - 2) % 4 == 0 else "row" for layer in range(1, depth)]
    return (*inner, "convolution")


def visible(
    pattern: Pattern, height: int, width: int, *, kernel: int = KERNEL, edge: Edge = "wrap"
) -> Bool[np.ndarray, "n n"]:
    """Tell which cells see which: True where the cell of the row sees the cell of the column.

    Args:
        pattern: dense, row, column or convolution.
        height: rows of the grid.
        width: cells a row.
        kernel: side of the convolution's window, odd.
        edge: what the window does at the grid's border; `wrap`: a place beside the grid is the place that raster order
            has there, in the row before or after (the paper: as in row attention); `cut`: there is nothing (which a
            window padded with nothing and one clamped to the border both come to: a clamped place is in the window
            already); `torus`: the opposite border's cell.

    Raises:
        BadConfig: when there is no such pattern or edge, or the kernel is even.
    """
    check_pattern(pattern, kernel, edge)
    cell = np.arange(height * width)
    asking, seen = cell[:, None], cell[None]
    back = asking - seen
    if pattern == "row":
        return (back >= 0) & (back <= width)
    if pattern == "column":
        return (back >= 0) & (back % width == 0)
    if pattern == "convolution":
        return (back >= 0) & _window(asking, seen, height, width, kernel // 2, edge)
    return back >= 0


def rows_above(pattern: Pattern, height: int, width: int, *, kernel: int = KERNEL, edge: Edge = "wrap") -> int:
    """Return how many rows above its own the cells of a row look at, at most; arguments are those of `visible`."""
    reach = {"row": 1, "convolution": kernel // 2}.get(pattern, height - 1)
    if pattern == "convolution" and edge == "wrap":
        reach = -(-(kernel // 2 * (width + 1)) // width)  # the window's far corner, seen from the first cell of a row
    return min(reach, height - 1)


def check_pattern(pattern: str, kernel: int, edge: str) -> None:
    """Refuse a pattern that does not exist.

    Args:
        pattern: its name.
        kernel: side of the convolution's window.
        edge: its rule at the border.

    Raises:
        BadConfig: when there is no such pattern or edge, or the kernel is even.
    """
    require(pattern in PATTERNS, f"pattern {pattern!r}", "one of " + ", ".join(PATTERNS))
    require(edge in EDGES, f"edge {edge!r}", "one of " + ", ".join(EDGES))
    require(kernel >= 1 and kernel % 2 == 1, f"kernel {kernel}", "an odd number, so that a cell stands in its middle")


def _window(
    asking: np.ndarray, seen: np.ndarray, height: int, width: int, reach: int, edge: Edge
) -> Bool[np.ndarray, "n n"]:
    if edge == "wrap":
        steps = np.arange(-reach, reach + 1)
        offsets = (np.arange(reach + 1)[:, None] * width + steps).ravel()
        return np.isin(asking - seen, offsets)
    down, across = asking // width - seen // width, asking % width - seen % width
    if edge == "torus":
        down, across = _round(down, height), _round(across, width)
    return (abs(down) <= reach) & (abs(across) <= reach)


def _round(distance: np.ndarray, size: int) -> np.ndarray:
    """Measure the shorter way round."""
    distance = abs(distance)
    return np.minimum(distance, size - distance)
