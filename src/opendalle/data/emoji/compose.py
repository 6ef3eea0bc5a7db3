"""From a truth to a picture: put drawings, painted ones and shapes where the truth says, on its background."""

from collections import OrderedDict
from collections.abc import Hashable

import numpy as np
from jaxtyping import UInt8

from opendalle.base.errors import require
from opendalle.data.emoji.build import shrink
from opendalle.data.emoji.colours import COLOUR_OF_NAME
from opendalle.data.emoji.painting import SHAPES, draw_shape, repaint
from opendalle.data.emoji.signs import draw_bubble, draw_sign
from opendalle.data.emoji.truth import GRID, Thing, Truth
from opendalle.data.emoji.world import SMALL_SIZE, World

_MEMORY = 256 * 2**20  # bytes of drawings kept; nearly all that scenes use at 64 px fits
_SOURCE_SIZE = 256
_OVERLAPPING = ("speech",)  # kinds whose boxes may overlap; the others are copied, which costs less than laying over


class Composer:
    """Draws truths of one world at one size.

    Args:
        world: an open world folder.
        size: side of square pictures, the short side of others: 64, 128 or 256.

    Raises:
        BadConfig: when the size is none of these.
    """

    def __init__(self, world: World, size: int) -> None:
        require(size in (64, 128, 256), f"pictures of {size} px", "64, 128 or 256")
        self._world = world
        self.size = size
        self._scale = size // GRID
        self._drawings: OrderedDict[Hashable, UInt8[np.ndarray, "h w 4"]] = OrderedDict()
        self._bytes = 0

    def draw(self, truth: Truth, tint: tuple[int, int, int] = (0, 0, 0)) -> UInt8[np.ndarray, "h w 4"]:
        """Draw a picture: RGBA, straight alpha, opaque where the truth names a background.

        Args:
            truth: what to draw; its things do not overlap, or the later ones lie on top.
            tint: added to the background's red, green and blue, since no two blues are the same.
        """
        width, height = (side * self._scale for side in truth.canvas)
        picture = np.zeros((height, width, 4), dtype=np.uint8)
        if truth.background is not None:
            paint = np.array(COLOUR_OF_NAME[truth.background].rgb) + np.array(tint)
            picture[..., :3] = np.clip(paint, 0, 255)
            picture[..., 3] = 255
        apart = truth.background is None and (len(truth.things) == 1 or truth.kind not in _OVERLAPPING)
        for thing in truth.things:
            x, y, side = (number * self._scale for number in thing.box)
            window, drawing = picture[y : y + side, x : x + side], self._drawing(thing, truth.style, side)
            if apart:
                window[...] = drawing
            else:
                lay_over(window, drawing)
        return picture

    def _drawing(self, thing: Thing, style: str, side: int) -> UInt8[np.ndarray, "s s 4"]:
        key = (thing.key, thing.colour, thing.word, style, side)
        found = self._drawings.get(key)
        if found is None:
            found = self._draw_thing(thing, style, side)
            self._keep(key, found)
        return found

    def _draw_thing(self, thing: Thing, style: str, side: int) -> UInt8[np.ndarray, "s s 4"]:
        if thing.key == "sign":
            return draw_sign(thing.word or "", thing.colour or "white", side)
        if thing.key == "bubble":
            return draw_bubble(thing.word or "", side)
        if thing.key in SHAPES:
            return draw_shape(thing.key, thing.colour or "grey", style, side)
        if thing.colour is None and side == SMALL_SIZE:
            return self._world.sprite(thing.key, style, SMALL_SIZE)
        source = self._source(thing, style)
        return source if side == source.shape[0] else shrink(source, side)

    def _source(self, thing: Thing, style: str) -> UInt8[np.ndarray, "s s 4"]:
        """Return the large drawing, painted, that smaller ones are shrunk from.

        It is kept too, at twice the largest size wanted: decoding and painting cost far more than shrinking.
        """
        key = (thing.key, thing.colour, style)
        if key not in self._drawings:
            source = self._world.sprite(thing.key, style, _SOURCE_SIZE)
            if 2 * self.size < _SOURCE_SIZE:
                source = shrink(source, 2 * self.size)
            self._keep(key, repaint(source, thing.colour) if thing.colour else source)
        return self._drawings[key]

    def _keep(self, key: Hashable, drawing: UInt8[np.ndarray, "s s 4"]) -> None:
        """Remember a drawing, forgetting the oldest ones when there are too many."""
        self._drawings[key] = drawing
        self._bytes += drawing.nbytes
        while self._bytes > _MEMORY and len(self._drawings) > 1:
            self._bytes -= self._drawings.popitem(last=False)[1].nbytes


def lay_over(below: UInt8[np.ndarray, "h w 4"], above: UInt8[np.ndarray, "h w 4"]) -> None:
    """Lay one straight-alpha picture over another, in place.

    Args:
        below: changed; often a window of a larger picture.
        above: what is laid on top.
    """
    if not below[..., 3].any():  # nothing there yet: the upper picture as it is, not a rounding away from it
        below[...] = above
        return
    if below[0, 0, 3] == 255 and below[..., 3].min() == 255:
        solid = above[..., 3:].astype(np.uint16)
        below[..., :3] = (above[..., :3] * solid + below[..., :3] * (255 - solid) + 127) // 255
        return
    alpha = above[..., 3:].astype(np.uint32)
    under = below[..., 3:].astype(np.uint32) * (255 - alpha)  # in 1/255 of a byte
    total = alpha * 255 + under
    colour = above[..., :3] * (alpha * 255) + below[..., :3] * under
    below[..., :3] = (colour + total // 2) // np.maximum(total, 1)
    below[..., 3:] = (total + 127) // 255
