"""Pictures as numbers in [-1, 1], with premultiplied colour.

A transparent pixel has no colour, yet a straight-alpha file must store one, and a network that has to predict it
learns noise along every edge.  Multiplying the colour by alpha removes the question, makes blending linear, and
turns "nothing" into one value: -1 in every channel.  Source: Porter and Duff, Compositing Digital Images (1984).
"""

import numpy as np
from jaxtyping import Float32
from PIL import Image

from opendalle.base.errors import BadPicture

Picture = Float32[np.ndarray, "c h w"]  # c = 3 (RGB) or 4 (premultiplied RGBA), values in [-1, 1]


def to_array(image: Image.Image) -> Picture:
    """Turn an eight-bit picture into numbers.

    Args:
        image: RGB, or RGBA with straight alpha (as files store it).

    Raises:
        BadPicture: when the mode is another; `read_picture` yields only these two.
    """
    if image.mode not in ("RGB", "RGBA"):
        raise BadPicture(f"a picture of mode {image.mode}", "RGB or RGBA", "Read it with read_picture.")
    values = np.asarray(image).astype(np.float32) / np.float32(255)  # (h, w, c) in [0, 1]
    if image.mode == "RGBA":
        values[..., :3] *= values[..., 3:]
    return np.ascontiguousarray(values.transpose(2, 0, 1) * np.float32(2) - np.float32(1))


def from_array(array: Picture) -> Image.Image:
    """Turn numbers into an eight-bit picture; values outside [-1, 1] are clipped.

    Args:
        array: three channels become RGB, four (premultiplied) become RGBA with straight alpha.

    Raises:
        BadPicture: when there are neither three nor four channels, or a value is not a number.
    """
    if array.shape[0] not in (3, 4):
        raise BadPicture(f"an array of {array.shape[0]} channels", "3 (RGB) or 4 (premultiplied RGBA)")
    if np.isnan(array).any():
        raise BadPicture("an array with values that are not numbers", "values in [-1, 1]")
    values = array.transpose(1, 2, 0).astype(np.float64).clip(-1, 1) / 2 + 0.5  # (h, w, c) in [0, 1]
    if array.shape[0] == 4:
        # Dividing by the alpha that will be stored keeps the colour that a viewer composites as we had it.
        alpha = np.round(values[..., 3:] * 255) / 255
        colour = np.divide(values[..., :3], alpha, out=np.zeros_like(values[..., :3]), where=alpha > 0)
        values = np.concatenate([colour.clip(0, 1), alpha], axis=-1)
    return Image.fromarray(np.round(values * 255).astype(np.uint8))
