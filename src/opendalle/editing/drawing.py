"""Editing and extending, for any generation: frame after frame, a generation draws and the canvas takes it in."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32
from PIL import Image

from opendalle.editing.canvas import Canvas
from opendalle.editing.frames import Frame, Framing, mask_frames
from opendalle.editing.masks import Mask, cells_of, check_mask, check_picture
from opendalle.editing.outpainting import Extension, OutpaintingOrder
from opendalle.pictures import composite, resize, to_array

# What a generation brings: (RGBA picture of the model's side, where to draw) -> the whole square, drawn.
Draw = Callable[[Image.Image, Mask], Image.Image]


@dataclass(frozen=True, kw_only=True)
class OnGrid:
    """What a generation is to draw, as its codec sees it."""

    values: Float32[np.ndarray, "1 c h w"]  # in [-1, 1]
    known: Bool[np.ndarray, "h2 w2"]  # True for the cells that nothing to be drawn touches


def on_grid(picture: Image.Image, mask: Mask, *, side: int, channels: int, factor: int) -> OnGrid:
    """Bring a frame, as `Draw` gets it, before a codec.

    Args:
        picture: RGBA, of the model's side.
        mask: where to draw.
        side: of the codec's pictures, in pixels; divides the model's.
        channels: 4 keeps transparency; 3 lays all on white.
        factor: pixels a cell of its grid, along each axis.
    """
    small = resize(picture, side, side)
    values = to_array(small if channels == 4 else composite(small))
    return OnGrid(values=values[None], known=~cells_of(mask, len(mask) * factor // side))


@dataclass(frozen=True, kw_only=True)
class Edited:
    """Where an edit stands after a frame; the picture of the last one is the result."""

    frame: Frame  # the one just laid
    done: int  # frames done, from 1
    num_frames: int  # frames in all
    canvas: Canvas  # goes on changing while frames follow

    @property
    def picture(self) -> Image.Image:
        """The picture as it stands when asked."""
        return self.canvas.picture


def edited(picture: Image.Image, mask: Mask, draw: Draw, side: int, framing: Framing | None = None) -> Iterator[Edited]:
    """Draw the masked part of a picture anew, one state a frame.  Stop iterating to cancel.

    Args:
        picture: RGB or RGBA, straight alpha.
        mask: where to edit, of the picture's size; all else comes back byte for byte.
        draw: the generation, with its prompt and chance inside.
        side: of the square that it draws, in pixels.
        framing: how frames are chosen.

    Raises:
        BadPicture: at once, when the picture cannot be edited.
        BadRequest: at once, when the mask does not fit it.
    """
    check_mask(mask, picture)
    return _drawn(Canvas(picture, mask), mask_frames(mask, side, framing), draw, side)


def extended(
    picture: Image.Image, extension: Extension, draw: Draw, side: int, framing: Framing | None = None
) -> Iterator[Edited]:
    """Let a picture grow on any of its sides, one state a frame.  Stop iterating to cancel.

    Args:
        picture: RGB or RGBA, straight alpha; comes back inside the larger one byte for byte.
        extension: the new ground.
        draw: the generation, with its prompt and chance inside.
        side: of the square that it draws, in pixels.
        framing: how much frames overlap.

    Raises:
        BadPicture: at once, when the picture cannot be edited.
        BadRequest: at once, when it would grow too large.
    """
    check_picture(picture)
    canvas = Canvas.extended(picture, extension)
    order = OutpaintingOrder(size=picture.size, extension=extension, side=side, framing=framing or Framing())
    return _drawn(canvas, order, draw, side)


def _drawn(canvas: Canvas, frames: Sequence[Frame] | OutpaintingOrder, draw: Draw, side: int) -> Iterator[Edited]:
    for done, frame in enumerate(frames, start=1):
        window = canvas.window(frame, side)
        canvas.lay(frame, draw(window.picture, window.mask))
        yield Edited(frame=frame, done=done, num_frames=len(frames), canvas=canvas)
