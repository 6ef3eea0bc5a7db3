"""Masks: which pixels of a picture are to be drawn anew, and whether that makes sense, before any work is done.

A mask is a boolean array of the picture's size, True where the picture is edited.  People mark it in three ways: by
transparency (as OpenAI's interface has it: what was rubbed out is edited), by white, or by a box.
"""

import base64
import io
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from PIL import Image

from opendalle.base.errors import BadPicture, BadRequest
from opendalle.pictures import MAX_PIXELS, composite, read_picture

Mask = Bool[np.ndarray, "h w"]  # True: edit this pixel

MIN_SIDE = 8  # pixels; a smaller picture holds no surroundings that anything could be fitted to


@dataclass(frozen=True, kw_only=True)
class Box:
    """A rectangle of pixels, from the picture's upper left corner.

    Raises:
        BadRequest: when it is empty or begins outside.
    """

    left: int
    top: int
    width: int
    height: int

    def __post_init__(self) -> None:
        if min(self.left, self.top) < 0 or min(self.width, self.height) < 1:
            came = f"the box {self.left},{self.top},{self.width},{self.height}"
            raise BadRequest(came, "x,y,width,height with x and y of at least 0, width and height of at least 1")

    @classmethod
    def parse(cls, text: str) -> "Box":
        """Read a box that a person typed.

        Args:
            text: `x,y,width,height` in pixels.

        Raises:
            BadRequest: when it is not four whole numbers.
        """
        try:
            left, top, width, height = (int(one) for one in text.split(","))
        except ValueError:
            raise BadRequest(f"the box {text!r}", "four whole numbers x,y,width,height, such as 40,60,128,96") from None
        return cls(left=left, top=top, width=width, height=height)


def mask_from_alpha(picture: Image.Image) -> Mask:
    """Edit what is wholly transparent; a pixel with any alpha at all is kept.

    Args:
        picture: RGBA; also the picture itself, rubbed out where it is to be edited.

    Raises:
        BadPicture: when it has no transparency.

    Source: OpenAI Images API, `mask` of the edits endpoint: alpha zero indicates where to edit.
    """
    if picture.mode != "RGBA":
        raise BadPicture(
            f"a mask of mode {picture.mode}, without transparency",
            "a PNG that is transparent where the picture is to be edited",
            "If white marks the place, say so.",
        )
    return np.asarray(picture)[..., 3] == 0


def mask_from_white(picture: Image.Image) -> Mask:
    """Edit what is nearer to white than to black.

    Args:
        picture: RGB or RGBA; what is transparent counts as black.

    Raises:
        BadPicture: when the mode is another.
    """
    return np.asarray(composite(picture, (0, 0, 0)).convert("L")) >= 128


def mask_from_box(box: Box, size: tuple[int, int]) -> Mask:
    """Edit a rectangle.

    Args:
        box: the rectangle.
        size: width and height of the picture.

    Raises:
        BadRequest: when the box reaches out of the picture.
    """
    width, height = size
    if box.left + box.width > width or box.top + box.height > height:
        came = f"a box that ends at ({box.left + box.width}, {box.top + box.height})"
        raise BadRequest(came, f"one inside the picture of {width} x {height} pixels")
    mask = np.zeros((height, width), dtype=bool)
    mask[box.top : box.top + box.height, box.left : box.left + box.width] = True
    return mask


def check_picture(picture: Image.Image) -> None:
    """Refuse a picture that cannot be edited.

    Args:
        picture: RGB or RGBA.

    Raises:
        BadPicture: when the mode is another, or there are too few or too many pixels.
    """
    if picture.mode not in ("RGB", "RGBA"):
        raise BadPicture(f"a picture of mode {picture.mode}", "RGB or RGBA", "Read it with read_picture.")
    size = f"a picture of {picture.width} x {picture.height} pixels"
    if min(picture.size) < MIN_SIDE:
        raise BadPicture(size, f"at least {MIN_SIDE} pixels a side")
    if picture.width * picture.height > MAX_PIXELS:
        raise BadPicture(size, f"at most {MAX_PIXELS} pixels")


def check_mask(mask: Mask, picture: Image.Image) -> None:
    """Refuse a mask that does not fit its picture, marks nothing, or leaves nothing.

    Args:
        mask: where to edit.
        picture: what to edit, RGB or RGBA.

    Raises:
        BadPicture: when the picture cannot be edited, whatever the mask.
        BadRequest: when the mask cannot be used with it.
    """
    check_picture(picture)
    height, width = mask.shape
    if (width, height) != picture.size:
        raise BadRequest(f"a mask of {width} x {height} pixels", f"the picture's {picture.width} x {picture.height}")
    if not mask.any():
        raise BadRequest(
            "a mask that marks nothing",
            "at least one pixel to edit",
            "Transparent pixels mark what to edit, or white ones where that is said.",
        )
    if mask.all():
        raise BadRequest("a mask that marks the whole picture", "something to keep", "To draw all anew, generate.")


def cells_of(mask: Mask, factor: int) -> Bool[np.ndarray, "h2 w2"]:
    """Carry a mask over to a codec's grid: a cell is edited when any of its pixels is.

    Args:
        mask: where to edit; sides are multiples of the factor.
        factor: pixels a cell, along each axis.

    Raises:
        BadRequest: when the sides are no multiples.
    """
    height, width = mask.shape
    if height % factor or width % factor:
        raise BadRequest(f"a mask of {width} x {height} pixels", f"sides that are multiples of {factor}")
    return np.asarray(mask.reshape(height // factor, factor, width // factor, factor).any(axis=(1, 3)))


def mask_to_text(mask: Mask) -> str:
    """Write a mask as text for a recipe: a PNG of one bit a pixel, in base 64."""
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, format="PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def mask_from_text(text: str) -> Mask:
    """Read the mask that `mask_to_text` wrote.

    Args:
        text: from a recipe.

    Raises:
        BadPicture: when it is damaged.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise BadPicture("a mask that is not base 64", "the mask of a recipe") from None
    return mask_from_white(read_picture(data))
