"""The ground behind a picture: where it is one plain colour along a side, it goes on without being drawn.

A generation that is asked for a sentence draws the sentence's things wherever it finds room: beside a finished apple it
draws another one, cut off where the old picture begins.  A thing on plain ground that is to be shown wider wants more
of that ground and nothing else.  Where something reaches the side, what lies behind it must be drawn.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32
from PIL import Image

from opendalle.editing.membrane import membrane
from opendalle.editing.outpainting import SIDES, Extension
from opendalle.pictures import from_array, to_array

BORDER = 32  # the outermost 1/32 of the picture is looked at
NEAR = 0.25  # of [-1, 1]: as far as a colour may be from the border's median and still be its ground
SHARE = 0.95  # of the border that must be ground


@dataclass(frozen=True, kw_only=True)
class Carried:
    """A picture that has grown where its ground is plain."""

    picture: Image.Image  # in the mode in which it came, which it holds byte for byte
    left_over: Extension | None  # new ground that has still to be drawn


def carried_on(picture: Image.Image, extension: Extension) -> Carried:
    """Let the ground go on at every side where it is plain.

    Args:
        picture: RGB or RGBA, straight alpha.
        extension: the new ground.

    Raises:
        BadRequest: when the picture would grow too large.
    """
    values = to_array(picture)
    wide = {side: getattr(extension, side) for side in SIDES}
    is_carried = {side: wide[side] > 0 and is_plain(values[:, *_strip(side, values.shape[1:])]) for side in SIDES}
    carried = {side: wide[side] for side in SIDES if is_carried[side]}
    rest = {side: wide[side] for side in SIDES if wide[side] and not is_carried[side]}
    left_over = Extension(**rest) if rest else None
    if not carried:
        return Carried(picture=picture, left_over=left_over)
    new = Extension(**carried)
    width, height = new.grown(picture.size)
    place = slice(new.top, new.top + picture.height), slice(new.left, new.left + picture.width)
    is_new = np.ones((height, width), dtype=bool)
    is_new[place] = False
    is_border = np.zeros(picture.size[::-1], dtype=bool)  # no more is looked at: things leave no tint on the ground
    for side in carried:
        is_border[_strip(side, is_border.shape)] = True
    given = np.zeros_like(is_new)
    given[place] = is_border
    whole = np.zeros((len(values), height, width), dtype=np.float32)
    whole[:, *place] = values
    grown = from_array(membrane(whole, given, is_new))
    grown.paste(picture, (new.left, new.top))
    return Carried(picture=grown, left_over=left_over)


def is_plain(border: Float32[np.ndarray, "c h w"]) -> bool:
    """Whether nearly all of a strip is of one colour.

    Args:
        border: in [-1, 1], premultiplied.
    """
    distance = np.abs(border - np.median(border, axis=(1, 2), keepdims=True)).max(axis=0)
    return bool((distance <= NEAR).mean() >= SHARE)


def _strip(side: str, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Return the rows and columns that lie along one side.

    Args:
        side: one of SIDES.
        shape: rows and columns of the picture.
    """
    deep = max(1, shape[1 if side in ("left", "right") else 0] // BORDER)
    place = slice(None, deep) if side in ("left", "top") else slice(-deep, None)
    return (slice(None), place) if side in ("left", "right") else (place, slice(None))
