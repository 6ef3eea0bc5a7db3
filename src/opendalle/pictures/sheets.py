"""Laying pictures on a background and beside each other."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from opendalle.base.errors import BadPicture

Colour = tuple[int, int, int]  # red, green, blue, 0 to 255
WHITE: Colour = (255, 255, 255)


def composite(image: Image.Image, background: Colour = WHITE) -> Image.Image:
    """Lay a picture on a plain background.

    Args:
        image: RGB (returned as a copy) or RGBA with straight alpha.
        background: its colour.

    Raises:
        BadPicture: when the mode is another.
    """
    if image.mode == "RGB":
        return image.copy()
    if image.mode != "RGBA":
        raise BadPicture(f"a picture of mode {image.mode}", "RGB or RGBA", "Read it with read_picture.")
    values = np.asarray(image).astype(np.int64)  # (h, w, 4)
    colour, alpha = values[..., :3], values[..., 3:]
    blended = colour * alpha + np.array(background) * (255 - alpha)  # 0 to 255 * 255
    return Image.fromarray(((blended + 127) // 255).astype(np.uint8))


def contact_sheet(
    images: Sequence[Image.Image], columns: int | None = None, gap: int = 8, background: Colour = WHITE
) -> Image.Image:
    """Lay pictures side by side, row by row, each centred in a cell as large as the largest picture.

    Args:
        images: RGB or RGBA; transparent ones are laid on the background.
        columns: pictures in a row; None makes the sheet about square.
        gap: pixels between pictures and around them.
        background: colour of the gaps and behind transparent pictures.

    Raises:
        BadPicture: when there is no picture, or no column.
    """
    if not images:
        raise BadPicture("a sheet of no pictures", "one picture or more")
    if columns is not None and columns < 1:
        raise BadPicture(f"a sheet of {columns} columns", "one column or more")
    across = min(columns or math.ceil(math.sqrt(len(images))), len(images))
    down = math.ceil(len(images) / across)
    width, height = max(image.width for image in images), max(image.height for image in images)
    sheet = Image.new("RGB", (gap + across * (width + gap), gap + down * (height + gap)), background)
    for place, image in enumerate(images):
        left = gap + place % across * (width + gap) + (width - image.width) // 2
        top = gap + place // across * (height + gap) + (height - image.height) // 2
        sheet.paste(composite(image, background), (left, top))
    return sheet
