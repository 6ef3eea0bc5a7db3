"""Things drawn once and put where they belong: what a picture of several things is, as a small network.

A vector regression learns "a cat in the upper left" and "a cat in the lower right" apart.  Here a thing is drawn by
itself, as a patch of grid that knows nothing of places, and laid with the weights of a learned choice among the places;
so whatever is learned of a cat holds everywhere, and a number of cats is the same patch in a number of places.

Source: ours; drawing an object apart from where it stands is AIR's, arXiv:1603.08575, section 2, with the steps made
parallel and the places soft.  What it is worth stands in docs/decisions/0010.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from opendalle.base.axes import Grid
from opendalle.base.errors import require
from opendalle.nn.regression import ResidualVector


@dataclass(frozen=True, kw_only=True)
class PlacedThingsConfig:
    """Shape of a network that draws things and places them."""

    num_things: int = 4  # at most as many are placed
    roles_each: int = 2  # vectors of the caption that tell of a thing: what it is, and how it looks
    picture_width: int = 64  # numbers that tell of the picture as a whole: style, background
    width: int = 384  # of a thing's hidden vector
    depth: int = 2  # residual blocks
    patch: int = 6  # side of what is laid, in cells
    stride: int = 2  # distance of neighbouring places, in cells

    def __post_init__(self) -> None:
        sizes = (self.num_things, self.roles_each, self.picture_width, self.width, self.patch, self.stride)
        require(min(sizes) > 0 and self.depth >= 0, f"sizes of {self}", "positive numbers")

    def places(self, side: int) -> tuple[int, ...]:
        """Return where a patch may begin along an axis; outermost ones hang over the edge by as much on both sides.

        Args:
            side: of the grid, in cells.
        """
        room = side - self.patch
        over = (-room) % self.stride // 2 + self.stride // 2
        return tuple(range(-over, room + over + 1, self.stride))


class PlacedThings(nn.Module):
    """Words that tell of things, and the picture as a whole, to a grid with the things in their places.

    Args:
        config: sizes.
        word_width: numbers of a word's vector.
        hidden_width: numbers of the vector that knows the whole picture.
        channels: of the grid.
        side: of the grid, in cells.
    """

    laid: Tensor

    def __init__(
        self, config: PlacedThingsConfig, *, word_width: int, hidden_width: int, channels: int, side: int
    ) -> None:
        super().__init__()
        self.config, self.channels, self.side = config, channels, side
        self.register_buffer("laid", _laid(config, side), persistent=False)
        self.norm = nn.LayerNorm(hidden_width)
        self.picture = nn.Linear(hidden_width, config.picture_width)
        self.place = nn.Linear(hidden_width, config.num_things * (1 + len(config.places(side)) ** 2))
        self.thing_in = nn.Linear(config.roles_each * word_width + config.picture_width, config.width)
        self.blocks = nn.Sequential(*(ResidualVector(config.width) for _ in range(config.depth)))
        self.norm_out = nn.LayerNorm(config.width)
        self.out = nn.Linear(config.width, channels * config.patch**2)

    def forward(self, hidden: Float[Tensor, "b d"], roles: Float[Tensor, "b k f"]) -> Grid:
        """Draw and place.

        Args:
            hidden: the whole picture.
            roles: words that tell of the things, `num_things * roles_each` of them.
        """
        hidden, things = self.norm(hidden), self.config.num_things
        told = rearrange(roles, "b (k r) f -> b k (r f)", k=things)
        picture = self.picture(hidden)[:, None].expand(-1, things, -1)
        drawn = self.out(self.norm_out(self.blocks(self.thing_in(torch.cat([told, picture], dim=2)))))
        places = rearrange(self.place(hidden), "b (k p) -> b k p", k=things).softmax(dim=2)[:, :, 1:]  # 0: nowhere
        drawn = rearrange(drawn, "b k (c a) -> b c (k a)", c=self.channels)
        laid = torch.einsum("b k p, p a s -> b k a s", places, self.laid)
        grid = torch.einsum("b c q, b q s -> b c s", drawn, rearrange(laid, "b k a s -> b (k a) s"))
        return rearrange(grid, "b c (h w) -> b c h w", h=self.side)


def _laid(config: PlacedThingsConfig, side: int) -> Float[Tensor, "p a s"]:
    """Tell of every place which cell of the patch falls on which of the grid; what hangs over is lost."""
    starts, patch = config.places(side), config.patch
    along = torch.zeros(len(starts), patch, side)
    for number, start in enumerate(starts):
        for cell in range(patch):
            if 0 <= start + cell < side:
                along[number, cell, start + cell] = 1.0
    both = torch.einsum("p a s, q b t -> p q a b s t", along, along)
    return both.reshape(len(starts) ** 2, patch**2, side**2)
