"""Editing and extending, for any generation: frame after frame, a generation draws and the canvas takes it in."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from PIL import Image

from opendalle.editing.canvas import Canvas
from opendalle.editing.frames import Frame, Framing, mask_frames
from opendalle.editing.masks import Mask, check_mask, check_picture
from opendalle.editing.outpainting import Extension, OutpaintingOrder

# What a generation brings: (RGBA picture of the model's side, where to draw) -> the whole square, drawn.
Draw = Callable[[Image.Image, Mask], Image.Image]


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
