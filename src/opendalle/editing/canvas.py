"""The canvas: a picture while it is being edited, what a model is shown of it, and how a drawing is laid back.

Pixels outside the mask are never written, so they come back byte for byte.  All that is computed, is computed in
premultiplied colour, so that transparent pictures keep clean edges.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32
from PIL import Image

from opendalle.base.errors import BadPicture
from opendalle.editing.frames import Frame, bounds
from opendalle.editing.masks import Mask
from opendalle.editing.membrane import beside, membrane
from opendalle.editing.outpainting import Extension
from opendalle.editing.seam import REACH, STEEPEST, fitted, grain, laid_behind, unshifted
from opendalle.pictures import from_array, to_array

OPAQUE = 0.99  # alpha from which nothing shines through; in [-1, 1], and resampling rounds
SOLID = 0.25  # share of known pixels from which a pixel of the model's square can be told from them


@dataclass(frozen=True, kw_only=True)
class Window:
    """What a model is shown of a frame."""

    picture: Image.Image  # RGBA, of the model's side; what is to be drawn holds a smooth continuation of the rest
    mask: Mask  # True where to draw; of a shrunken frame, every pixel with any part in the picture's mask


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
        self.grain = grain(self.pixels, ~mask)  # how rough the picture is; a seam may be no rougher

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
        shown = ~pending if self.mode == "RGBA" else ~pending & (values[3] > OPAQUE)  # and was drawn again
        values = unshifted(values, self.pixels[frame.rows, frame.columns], shown)
        # One pixel more on each side, where there is one: the seam may run along the frame's own border.
        rows, columns = bounds(pending)
        down, across = (
            np.arange(max(0, start + span.start - 1), min(total, start + span.stop + 1))
            for start, span, total in zip((frame.top, frame.left), (rows, columns), self.pending.shape, strict=True)
        )
        place = slice(down[0], down[-1] + 1), slice(across[0], across[-1] + 1)
        y, x = down[:, None] - frame.top, across[None] - frame.left  # as the frame counts
        free = self.pending[place] & (y >= 0) & (y < frame.side) & (x >= 0) & (x < frame.side)
        values = values[:, y.clip(0, frame.side - 1), x.clip(0, frame.side - 1)]
        around, kept = to_array(Image.fromarray(self.pixels[place])), ~self.pending[place]
        if self.mode == "RGB" and values[3].min() < OPAQUE:
            values = laid_behind(values, around, beside(free) & kept, free)
        values = fitted(values, around, kept, free, STEEPEST * self.grain, REACH * frame.side)
        self.pixels[place][free] = np.asarray(from_array(values))[free]
        self.pending[frame.rows, frame.columns] = False


def _resized(
    layers: Float32[np.ndarray, "c h1 w1"], side: int, by: Image.Resampling = Image.Resampling.LANCZOS
) -> Float32[np.ndarray, "c h2 w2"]:
    """Resample each layer in floating point; shrinking averages, as it should."""
    return np.stack([np.asarray(Image.fromarray(one).resize((side, side), by)) for one in layers])
