"""The seam: how a drawing is made to meet the picture that it is laid into.

Three corrections, none of which touches a kept pixel.  A change that the model made to all the colours it was shown is
undone.  Where a drawing is transparent and the picture is not, the surroundings go on behind it.  And along the seam a
membrane is hung between what the drawing is and what it has to be there, and added to it.

Source: Perez et al., Poisson Image Editing (2003), sections 2 and 3; the bound on the drawing's own step is ours.
"""

import math

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from opendalle.editing.membrane import NEIGHBOURS, Region, beside, membrane
from opendalle.pictures import to_array

Values = Float32[np.ndarray, "4 h w"]  # premultiplied RGBA in [-1, 1]; nothing is -1

REACH = 1 / 16  # share of a frame's side within which the seam's correction fades
SHIFT = 1 / 8  # the largest change of all colours that is taken for the model's fault and undone; 16 of 255
STEEPEST = 1.5  # step across the seam that is let through, in median steps of the picture


def grain(pixels: UInt8[np.ndarray, "h w 4"], known: Region) -> float:
    """How rough a picture is: the median step of colour between known neighbours, premultiplied, in [0, 2].

    Args:
        pixels: straight alpha; of large pictures a part of the rows and columns is looked at.
        known: which of them count.
    """
    every = max(1, math.isqrt(known.size // 2**20))
    steps = [np.zeros(1, dtype=np.float32)]
    for some, there in ((pixels[:, ::every], known[:, ::every]), (pixels[::every].swapaxes(0, 1), known[::every].T)):
        colour = to_array(Image.fromarray(np.ascontiguousarray(some)))[:3]
        steps.append(np.abs(np.diff(colour, axis=1))[:, there[1:] & there[:-1]].ravel())
    return float(np.median(np.concatenate(steps)))


def unshifted(drawn: Values, shown: UInt8[np.ndarray, "h w 4"], known: Region) -> Values:
    """Undo what the model did to the colours that it was shown; it did the same to the rest of its drawing.

    Args:
        drawn: a whole frame.
        shown: the picture there, straight alpha.
        known: where the picture was shown and drawn again; a frame of more than 512 pixels a side is looked at in part.
    """
    every = max(1, len(known) // 512)
    there = known[::every, ::every]
    if not there.any():
        return drawn
    change = to_array(Image.fromarray(np.ascontiguousarray(shown[::every, ::every]))) - drawn[:, ::every, ::every]
    shift = np.median(change[:, there], axis=1).clip(-SHIFT, SHIFT).astype(np.float32)
    return (drawn + shift[:, None, None]).clip(-1, 1)


def laid_behind(drawn: Values, around: Values, rim: Region, free: Region) -> Values:
    """Let an opaque picture's surroundings go on where the drawing is transparent.

    Args:
        drawn: the drawing.
        around: the picture at the same place.
        rim: kept pixels beside the free ones.
        free: pixels that take the drawing.
    """
    behind = membrane(around, rim, free) if rim.any() else around
    opaque = drawn + (1 - drawn[3:]) / 2 * (behind + 1)
    opaque[3] = 1
    return opaque


def fitted(drawn: Values, around: Values, kept: Region, free: Region, steepest: float, reach: float) -> Values:
    """Shift a drawing along the seam so that it meets the picture.

    Args:
        drawn: the drawing.
        around: the picture at the same place; read where kept.
        kept: pixels of the picture that stay.
        free: pixels that take the drawing.
        steepest: largest step from a kept pixel to a drawn one.
        reach: pixels within which the correction fades.
    """
    edge, wanted = _continued(drawn, around, beside(free) & kept, free, steepest)
    if edge.any():
        drawn = drawn + membrane(wanted - drawn, edge, free, reach)
    drawn[3] = drawn[3].clip(-1, 1)
    drawn[:3] = np.minimum(drawn[:3].clip(-1, 1), drawn[3])  # premultiplied colour is at most alpha
    return drawn


def _continued(drawn: Values, around: Values, rim: Region, free: Region, steepest: float) -> tuple[Region, Values]:
    """Say which drawn pixels lie at the rim, and what they should be.

    From a kept pixel to the drawn one beside it, the drawing's own step is taken, but none that is steeper than the
    picture would have it: a drawing that breaks off at the seam is faded in, one that goes on is left alone.
    """
    total, number = np.zeros_like(drawn), np.zeros(rim.shape, dtype=np.float32)
    for here, there in NEIGHBOURS:
        meets = free[here] & rim[there]
        own = (drawn[here] - drawn[there]).clip(-steepest, steepest)
        total[here] += np.where(meets, around[there] + own, 0)
        number[here] += meets
    return number > 0, total / np.maximum(number, 1)
