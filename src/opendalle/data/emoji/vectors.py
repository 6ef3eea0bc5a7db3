"""The emoji world at any size: square windows of its vectors, rendered when they are asked for.

A drawing of 1024 px costs what its window costs, and no picture is stored: what a visit shows is a pure function of the
cell and of the generator handed in.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from opendalle.base.errors import BadData, require
from opendalle.data.emoji.artwork import render_svg
from opendalle.data.emoji.colours import COLOUR_NAMES, COLOUR_OF_NAME
from opendalle.data.emoji.compose import lay_over
from opendalle.data.emoji.dataset import cells_of_split
from opendalle.data.emoji.draws import between, coin, pick
from opendalle.data.emoji.holdout import SPLITS
from opendalle.data.emoji.sources import VECTOR_STYLES
from opendalle.data.emoji.world import SMALL_SIZE, World
from opendalle.data.sets import Example

_WHITE = 0.3  # share of white among backgrounds, and
_TINT = 9  # how far, of 255, the others lie from their colour


@dataclass(frozen=True, kw_only=True)
class VectorSetConfig:
    """Which drawings a set shows, how large, and what part of them."""

    split: str = "train"  # as of an EmojiSet
    styles: tuple[str, ...] = VECTOR_STYLES  # of drawings
    sizes: tuple[int, ...] = (1024, 1024, 768, 512)  # sides of the whole drawing in pixels, one drawn a visit: things
    # of a scene are smaller than its picture
    crop: int = 256  # side of the window shown, in pixels; at most the smallest size
    places: int = 2  # windows looked at in the small drawing, of which the one with most edges is shown; 1: any
    background: float = 0.5  # share of windows on a plain colour; the others are transparent around the drawing

    def __post_init__(self) -> None:
        require(self.split in SPLITS, f"split {self.split!r}", "one of " + ", ".join(SPLITS))
        known = len(self.styles) > 0 and set(self.styles) <= set(VECTOR_STYLES)
        require(known, f"styles {', '.join(self.styles)}", "some of " + ", ".join(VECTOR_STYLES))
        fits = len(self.sizes) > 0 and 8 <= self.crop <= min(self.sizes)
        require(fits, f"a crop of {self.crop} from drawings of {self.sizes}", "8 pixels to the smallest drawing")
        require(self.places >= 1, f"places is {self.places}", "at least 1")
        require(0.0 <= self.background <= 1.0, f"background is {self.background}", "a share from 0 to 1")


class VectorSet:
    """A picture set of windows; its captions are the drawings' English names.

    Args:
        world: an open world folder that keeps its vectors.
        config: which drawings, how large, what part.

    Raises:
        BadData: when the world keeps no vectors, or the split has none in these styles.
    """

    def __init__(self, world: World, config: VectorSetConfig | None = None) -> None:
        self.world, self.config = world, config or VectorSetConfig()
        self._vectors = world.vectors()
        cells = cells_of_split(world, self.config.split, self.config.styles)
        self.cells = tuple(cell for cell in cells if self._vectors.has(cell.concept.hexcode, cell.style))
        if not self.cells:
            raise BadData(f"no vectors of split {self.config.split!r}", "a split with vectors", "Choose more styles.")

    def __len__(self) -> int:
        """Return the number of (concept, style) cells of the split that are vectors."""
        return len(self.cells)

    def read(self, index: int, rng: np.random.Generator) -> Example:
        """Return a window of one drawing.

        Args:
            index: of the cell.
            rng: chooses size, place and background.
        """
        cell, config = self.cells[index], self.config
        hexcode, style = cell.concept.hexcode, cell.style
        size = pick(rng, config.sizes)
        small = self.world.sprite(hexcode, style)
        places = [
            (between(rng, 0, size - config.crop), between(rng, 0, size - config.crop)) for _ in range(config.places)
        ]
        left, top = max(places, key=lambda place: _edges(small, *(number / size for number in (*place, config.crop))))
        window = (left / size, top / size, config.crop / size)
        picture = render_svg(self._vectors.svg(hexcode, style), config.crop, window)
        if coin(rng, config.background):
            below = np.empty_like(picture)
            below[...] = (*_paint(rng), 255)
            lay_over(below, picture)
            picture = below
        return Example(picture=picture, caption=cell.concept.names["en"])


def _edges(small: UInt8[np.ndarray, "64 64 4"], left: float, top: float, side: float) -> float:
    """Sum of the steps between neighbouring pixels of a window, given in shares of the drawing's side."""
    x, y, length = (round(share * SMALL_SIZE) for share in (left, top, side))
    window = small[y : y + length, x : x + length].astype(np.float32)
    window[..., :3] *= window[..., 3:] / 255
    return float(np.abs(np.diff(window, axis=0)).sum() + np.abs(np.diff(window, axis=1)).sum())


def _paint(rng: np.random.Generator) -> tuple[int, int, int]:
    """Draw the colour of a background: white, or near one of the basic colours."""
    name = "white" if coin(rng, _WHITE) else pick(rng, COLOUR_NAMES)
    if name == "white":
        return 255, 255, 255
    red, green, blue = (min(255, max(0, one + between(rng, -_TINT, _TINT))) for one in COLOUR_OF_NAME[name].rgb)
    return red, green, blue
