"""A membrane: the smoothest surface through given values, like a soap film hung in a wire.

It carries two jobs.  Stretched over a hole in a picture it continues the surroundings into it, so that nothing sharp
tells a codec where the hole was.  Stretched over the difference between a picture and a drawing along their seam, it
says how to shift the drawing's colours so that the seam closes (Poisson blending is exactly this correction).

With a finite reach the film is also pulled towards zero and forgets the rim within about that many pixels: the seam
closes, and the middle of the drawing keeps its own colours.

Source: Perez et al., Poisson Image Editing (2003), section 2, eq. 3 (the correction is a membrane).  Solved from coarse
to fine, each level relaxed from the one below: Bornemann and Deuflhard, The cascadic multigrid method (1996).
"""

import math

import numpy as np
from jaxtyping import Bool, Float32

_COARSEST = 4  # pixels; a film this small has no level below
_SWEEPS = 4  # at each level at least: its start is right but for what the level below could not resolve
_MORE_SWEEPS = 28  # at small levels, where they cost next to nothing
_WORK = 250_000  # pixels; levels that are larger than that get none of those

_ALL, _FIRST, _LAST = slice(None), slice(None, -1), slice(1, None)
# Each pixel and one of its four neighbours, as two slices of the last two axes.
NEIGHBOURS = (
    ((..., _LAST, _ALL), (..., _FIRST, _ALL)),
    ((..., _FIRST, _ALL), (..., _LAST, _ALL)),
    ((..., _ALL, _LAST), (..., _ALL, _FIRST)),
    ((..., _ALL, _FIRST), (..., _ALL, _LAST)),
)

Layers = Float32[np.ndarray, "c h w"]
Region = Bool[np.ndarray, "h w"]


def membrane(values: Layers, given: Region, inside: Region, reach: float = math.inf) -> Layers:
    """Stretch a film over the inside that passes through the given values.

    Where it is neither given nor inside there is no film: it ends there, flat.

    Args:
        values: read where given.
        given: the rim.
        inside: where the film is wanted; what is also given counts as given.
        reach: pixels within which it forgets the rim; infinite: never.

    Returns:
        The values where given, the film inside, 0 elsewhere.
    """
    tension = 0.0 if math.isinf(reach) else 1.0 / reach**2
    return _stretched(np.where(given, values, np.float32(0)), given, inside & ~given, tension)


def beside(region: Region) -> Region:
    """Pixels outside a region that share an edge with it."""
    near = np.zeros_like(region)
    for here, there in NEIGHBOURS:
        near[here] |= region[there]
    return near & ~region


def _stretched(values: Layers, given: Region, free: Region, tension: float) -> Layers:
    """The film, solved on half the pixels along each axis first."""
    if not free.any():
        return values
    height, width = free.shape
    num_sweeps = _SWEEPS + min(_WORK // free.size, _MORE_SWEEPS)
    if max(height, width) <= _COARSEST:
        return _relaxed(values, given, free, tension, num_sweeps)
    num_given = _summed(given.astype(np.float32))
    coarse = _summed(values) / np.maximum(num_given, 1)
    below = _stretched(coarse, num_given > 0, (_summed(free.astype(np.float32)) > 0) & (num_given == 0), 4 * tension)
    start = below.repeat(2, axis=1)[:, :height].repeat(2, axis=2)[:, :, :width]
    return _relaxed(np.where(free, start, values), given, free, tension, num_sweeps)


def _summed(layers: Float32[np.ndarray, "... h w"]) -> Float32[np.ndarray, "... h2 w2"]:
    """Sum of each block of 2x2; a last odd row or column stands alone."""
    odd = [(0, 0)] * (layers.ndim - 2) + [(0, side % 2) for side in layers.shape[-2:]]
    even = np.pad(layers, odd)
    return even[..., ::2, ::2] + even[..., 1::2, ::2] + even[..., ::2, 1::2] + even[..., 1::2, 1::2]


def _relaxed(film: Layers, given: Region, free: Region, tension: float, num_sweeps: int) -> Layers:
    """Gauss-Seidel in two colours: free pixels become the mean of their neighbours, the black ones, then the white."""
    pull = np.full(free.shape, tension, dtype=np.float32)
    for here, there in NEIGHBOURS:
        pull[here] += (given | free)[there]
    share = np.divide(np.float32(1), pull, out=np.zeros_like(pull), where=pull > 0)
    rows, columns = np.ogrid[: film.shape[1], : film.shape[2]]
    is_black = (rows + columns) % 2 == 0
    around = np.empty_like(film)
    for _ in range(num_sweeps):
        for colour in (free & is_black, free & ~is_black):
            around.fill(0)
            for here, there in NEIGHBOURS:
                around[here] += film[there]
            around *= share
            np.copyto(film, around, where=colour)
    return film
