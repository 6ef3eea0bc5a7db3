"""From what a network draws to the picture that is handed out: cut to shape, before the background asked for."""

import numpy as np
from jaxtyping import Float
from PIL import Image

from opendalle.base.jobs import keeps_transparency
from opendalle.base.request import Request
from opendalle.pictures.arrays import from_array
from opendalle.pictures.fitting import fit_box
from opendalle.pictures.sheets import composite


def finished(
    values: Float[np.ndarray, "c h w"],
    request: Request,
    *,
    shape: tuple[int, int] | None = None,
    is_clear: bool | None = None,
) -> Image.Image:
    """Turn what was drawn into a picture, of the shape of the one handed in, before the background asked for.

    Args:
        values: as the networks draw it, in [-1, 1].
        request: background.
        shape: width and height of the one picture that was handed in; None: there was none.
        is_clear: whether what was handed in is transparent somewhere; None: nothing was.
    """
    picture = from_array(values)
    if shape is not None:
        picture = picture.crop(fit_box(*shape, *picture.size))
    keeps = keeps_transparency(request) if is_clear is None or request.background != "auto" else is_clear
    return picture if keeps else composite(picture)
