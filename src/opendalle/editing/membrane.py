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

_COARSEST = 4  # pixels; a film this small is relaxed until it rests
_SWEEPS = 12  # at each level; its start is right but for what the level below could not resolve
_SWEEPS_COARSEST = 60

Layer = Float32[np.ndarray, "h w"]


def membrane(
    values: Float32[np.ndarray, "c h w"],
    given: Bool[np.ndarray, "h w"],
    inside: Bool[np.ndarray, "h w"],
    reach: float = math.inf,
) -> Float32[np.ndarray, "c h w"]:
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
    return np.stack(
        [_stretched(np.where(given, one, np.float32(0)), given, inside & ~given, tension) for one in values]
    )


def _stretched(values: Layer, given: Bool[np.ndarray, "h w"], free: Bool[np.ndarray, "h w"], tension: float) -> Layer:
    """The film of one layer; solved on half the pixels first."""
    if not free.any():
        return values
    if max(values.shape) <= _COARSEST:
        return _relaxed(values, given, free, tension, _SWEEPS_COARSEST)
    height, width = values.shape
    num_given = _summed(given.astype(np.float32))
    coarse = _summed(values) / np.maximum(num_given, 1)
    below = _stretched(coarse, num_given > 0, (_summed(free.astype(np.float32)) > 0) & (num_given == 0), 4 * tension)
    start = below.repeat(2, axis=0)[:height].repeat(2, axis=1)[:, :width]
    return _relaxed(np.where(free, start, values), given, free, tension, _SWEEPS)


def _summed(layer: Layer) -> Layer:
    """Sum of each block of 2x2; a last odd row or column stands alone."""
    height, width = layer.shape
    even = np.pad(layer, ((0, height % 2), (0, width % 2)))
    return even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]


def _relaxed(
    film: Layer, given: Bool[np.ndarray, "h w"], free: Bool[np.ndarray, "h w"], tension: float, num_sweeps: int
) -> Layer:
    """Gauss-Seidel in two colours: free pixels become the mean of their neighbours, the black ones, then the white."""
    pull = _around((given | free).astype(np.float32)) + np.float32(tension)
    share = np.divide(np.float32(1), pull, out=np.zeros_like(pull), where=pull > 0)
    rows, columns = np.ogrid[: film.shape[0], : film.shape[1]]
    is_black = (rows + columns) % 2 == 0
    colours = (free & is_black, free & ~is_black)
    for _ in range(num_sweeps):
        for colour in colours:
            np.copyto(film, _around(film) * share, where=colour)
    return film


def _around(layer: Layer) -> Layer:
    """Sum of the four neighbours; outside there is nothing."""
    total = np.zeros_like(layer)
    total[1:] += layer[:-1]
    total[:-1] += layer[1:]
    total[:, 1:] += layer[:, :-1]
    total[:, :-1] += layer[:, 1:]
    return total
