"""The canvas: a picture while it is being edited, what a model is shown of it, and how a drawing is laid back.

Pixels outside the mask are never computed with, so they come back byte for byte.  Inside, the drawing's colours are
shifted by a membrane hung between the two along the seam; the seam then has no step, whatever the model did to the
colours of its surroundings.  All of it happens in premultiplied colour, so that transparent pictures keep clean edges.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from opendalle.base.errors import BadPicture
from opendalle.editing.frames import Frame, bounds
from opendalle.editing.masks import Mask
from opendalle.editing.membrane import NEIGHBOURS, Region, beside, membrane
from opendalle.editing.outpainting import Extension
from opendalle.pictures import from_array, to_array

Values = Float32[np.ndarray, "4 h w"]  # premultiplied RGBA in [-1, 1]; nothing is -1

REACH = 1 / 8  # share of a frame's side within which the seam's correction fades
SOLID = 0.25  # share of known pixels from which a pixel of the model's square can be told from them


@dataclass(frozen=True, kw_only=True)
class Window:
    """What a model is shown of a frame."""

    picture: Image.Image  # RGBA, of the model's side; what is to be drawn holds a smooth continuation of the rest
    mask: Mask  # True where to draw: every pixel with any part in the picture's mask


class Canvas:
    """A picture and which of its pixels are still to be drawn.

    Args:
        picture: RGB or RGBA, straight alpha; left as it is.
        mask: where to edit, of the picture's size.
    """

    def __init__(self, picture: Image.Image, mask: Mask) -> None:
        self.mode = picture.mode
        self.pixels = np.array(picture.convert("RGBA"))  # (h, w, 4), a copy
        self.pending = mask.copy()
        self.grain = _grain(self.pixels, ~mask)  # how rough the picture is; a seam may be no rougher

    @classmethod
    def extended(cls, picture: Image.Image, extension: Extension) -> "Canvas":
        """Lay a picture on a larger canvas; the new ground is to be drawn, until then white or transparent.

        Args:
            picture: RGB or RGBA.
            extension: the new ground.

        Raises:
            BadRequest: when the canvas would be too large.
        """
        ground = Image.new(picture.mode, extension.grown(picture.size), (255, 255, 255, 0)[: len(picture.mode)])
        ground.paste(picture, (extension.left, extension.top))
        mask = np.ones((ground.height, ground.width), dtype=bool)
        mask[extension.top :, extension.left :][: picture.height, : picture.width] = False
        return cls(ground, mask)

    @property
    def picture(self) -> Image.Image:
        """The picture as it stands, in the mode in which it came."""
        image = Image.fromarray(self.pixels)
        return image if self.mode == "RGBA" else image.convert("RGB")

    def window(self, frame: Frame, side: int) -> Window:
        """Show a frame at the model's side.

        Only known pixels are looked at: what lies under the mask leaks into nothing.

        Args:
            frame: a square of the picture.
            side: of the model's square, in pixels.
        """
        values = to_array(Image.fromarray(self.pixels[frame.rows, frame.columns]))
        pending = self.pending[frame.rows, frame.columns]
        known = (~pending).astype(np.float32)
        weight = known
        if frame.side != side:
            weight = _resized(known[None], side)[0]
            values = _resized((values + 1) * known, side) / np.maximum(weight, 1e-3) - 1
            pending = _resized(pending.astype(np.float32)[None], side, Image.Resampling.BOX)[0] > 0
        given = weight >= min(SOLID, weight.max())
        values = membrane(values, given, ~given)
        if self.mode == "RGB":
            values[3] = 1
        return Window(picture=from_array(values), mask=pending)

    def lay(self, frame: Frame, drawn: Image.Image) -> None:
        """Lay a drawing of a frame into what is still to be drawn of it.

        Where the picture is opaque and the drawing is not, the surroundings go on behind it.

        Args:
            frame: the square that was drawn.
            drawn: RGB or RGBA, straight alpha, square, of any side.

        Raises:
            BadPicture: when the drawing is no square, or of another mode.
        """
        if drawn.width != drawn.height:
            raise BadPicture(f"a drawing of {drawn.width} x {drawn.height} pixels", "a square one")
        pending = self.pending[frame.rows, frame.columns]
        if not pending.any():
            return
        values = to_array(drawn)
        if len(values) == 3:
            values = np.concatenate([values, np.ones_like(values[:1])])
        if drawn.width != frame.side:
            values = _resized(values, frame.side).clip(-1, 1)
        # One pixel more on each side: the seam may run along the frame's own border.
        rows, columns = bounds(pending)
        place = (
            slice(max(0, frame.top + rows.start - 1), frame.top + rows.stop + 1),
            slice(max(0, frame.left + columns.start - 1), frame.left + columns.stop + 1),
        )
        is_free = np.zeros_like(self.pending[place])
        top, left = frame.top + rows.start - place[0].start, frame.left + columns.start - place[1].start
        height, width = rows.stop - rows.start, columns.stop - columns.start
        is_free[top : top + height, left : left + width] = pending[rows, columns]
        wider = np.pad(values, ((0, 0), (1, 1), (1, 1)), mode="edge")
        first = place[0].start - frame.top + 1, place[1].start - frame.left + 1
        there = wider[:, first[0] : first[0] + is_free.shape[0], first[1] : first[1] + is_free.shape[1]]
        fitted = self._fitted(there, place, is_free, REACH * frame.side)
        self.pixels[place][is_free] = np.asarray(from_array(fitted))[is_free]
        self.pending[frame.rows, frame.columns] = False

    def _fitted(self, drawn: Values, place: tuple[slice, slice], is_free: Region, reach: float) -> Values:
        """Shift the drawing so that it meets the picture along the seam."""
        around = to_array(Image.fromarray(self.pixels[place]))
        rim = beside(is_free) & ~self.pending[place]
        if self.mode == "RGB" and drawn[3].min() < 1:
            behind = membrane(around, rim, is_free) if rim.any() else around
            drawn = drawn + (1 - drawn[3:]) / 2 * (behind + 1)
            drawn[3] = 1
        edge, wanted = _continued(around, drawn, rim, is_free, 1.5 * self.grain)
        if not edge.any():
            return drawn
        step = wanted - drawn
        level = np.median(step[:, edge], axis=1)[:, None, None]  # a shift of the whole drawing, if there is one
        fitted = drawn + level + membrane(step - level, edge, is_free, reach)
        fitted[3] = fitted[3].clip(-1, 1)
        fitted[:3] = np.minimum(fitted[:3].clip(-1, 1), fitted[3])  # premultiplied colour is at most alpha
        return fitted


def _continued(around: Values, drawn: Values, rim: Region, is_free: Region, steepest: float) -> tuple[Region, Values]:
    """Say which drawn pixels lie at the rim, and what they should be.

    From a kept pixel to the drawn one beside it, the drawing's own step is taken, but none that is steeper than the
    picture would have it: a drawing that breaks off at the seam is faded in, one that goes on is left alone.
    """
    total, number = np.zeros_like(drawn), np.zeros(rim.shape, dtype=np.float32)
    for here, there in NEIGHBOURS:
        meets = is_free[here] & rim[there]
        own = (drawn[here] - drawn[there]).clip(-steepest, steepest)
        total[here] += np.where(meets, around[there] + own, 0)
        number[here] += meets
    return number > 0, total / np.maximum(number, 1)


def _grain(pixels: UInt8[np.ndarray, "h w 4"], known: Mask) -> float:
    """The median step of colour between known neighbours, premultiplied; large pictures are looked at in part."""
    every = max(1, math.isqrt(known.size // 2**20))
    steps = [np.zeros(1, dtype=np.float32)]
    for some, there in ((pixels[:, ::every], known[:, ::every]), (pixels[::every].swapaxes(0, 1), known[::every].T)):
        colour = to_array(Image.fromarray(np.ascontiguousarray(some)))[:3]
        steps.append(np.abs(np.diff(colour, axis=1))[:, there[1:] & there[:-1]].ravel())
    return float(np.median(np.concatenate(steps)))


def _resized(
    layers: Float32[np.ndarray, "c h1 w1"], side: int, by: Image.Resampling = Image.Resampling.LANCZOS
) -> Float32[np.ndarray, "c h2 w2"]:
    """Resample each layer in floating point; shrinking averages, as it should."""
    return np.stack([np.asarray(Image.fromarray(one).resize((side, side), by)) for one in layers])
