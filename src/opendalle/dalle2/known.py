"""What is known of a grid while the rest of it is drawn: how a decoder is told, and how training makes it up.

A decoder that was trained so fills a hole with regard to what stands round it.  The paper does not describe it, the
production model had it; the recipe is GLIDE's.
"""

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from opendalle.base.axes import Grid
from opendalle.training.chance import draw_share


def known_channels(grid: Float[Tensor, "b c h w"], cells: Bool[Tensor, "b 1 h w"]) -> Float[Tensor, "b c1 h w"]:
    """Put what is known of a grid, and where, into the form that a decoder takes: GLIDE's masked picture and mask.

    Args:
        grid: the whole grid; unknown cells are blanked.
        cells: True where it is known.

    Source: GLIDE, arXiv:2112.10741, section 2.4; the picture's place is taken by its grid.
    """
    where = cells.to(grid.dtype)
    return torch.cat([grid * where, where], dim=1)


def draw_known(share: float, grid: Grid, rng: Generator) -> Bool[Tensor, "b 1 h w"]:
    """Draw which cells of each grid are known: all but a box, or only a box, of any size, often touching the edge.

    Args:
        share: of grids of which something is known.
        grid: for count and shape.
        rng: all chance.

    Source: GLIDE trains on random boxes and strokes (arXiv:2112.10741, section 2.4); a grid of few cells has boxes.
    """
    count, _, height, width = grid.shape
    inside = torch.ones(count, 1, height, width, dtype=torch.bool)
    for axis, length in ((2, height), (3, width)):
        ends = torch.randint(-length // 2, length + length // 2 + 1, (count, 2), generator=rng).clamp(0, length)
        first, last = ends.amin(dim=1), ends.amax(dim=1)
        place = torch.arange(length)
        along = (place >= first[:, None]) & (place < last[:, None])
        inside &= along[:, None, :, None] if axis == 2 else along[:, None, None, :]
    is_outside = draw_share(0.5, count, rng)[:, None, None, None]
    known = torch.where(is_outside, ~inside, inside) & draw_share(share, count, rng)[:, None, None, None]
    return known.to(grid.device)
