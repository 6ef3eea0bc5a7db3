"""Pictures on disk and as numbers: reading with caps, writing that never overwrites, recipes, sheets.  No torch."""

from opendalle.pictures.animation import write_animation
from opendalle.pictures.arrays import from_array, to_array
from opendalle.pictures.fitting import AnyPicture, Box, Given, PictureOrText, fit, fit_box, resize, take, take_or_text
from opendalle.pictures.reading import (
    MAX_BYTES,
    MAX_PIXELS,
    Readable,
    Source,
    picture_size,
    plain_picture,
    read_bytes,
    read_picture,
)
from opendalle.pictures.recipes import read_recipe
from opendalle.pictures.sheets import composite, contact_sheet
from opendalle.pictures.writing import (
    next_number,
    numbered_path,
    refuse_existing,
    refuse_unwritable,
    write_gif,
    write_png,
)

__all__ = [
    "MAX_BYTES",
    "MAX_PIXELS",
    "AnyPicture",
    "Box",
    "Given",
    "PictureOrText",
    "Readable",
    "Source",
    "composite",
    "contact_sheet",
    "fit",
    "fit_box",
    "from_array",
    "next_number",
    "numbered_path",
    "picture_size",
    "plain_picture",
    "read_bytes",
    "read_picture",
    "read_recipe",
    "refuse_existing",
    "refuse_unwritable",
    "resize",
    "take",
    "take_or_text",
    "to_array",
    "write_animation",
    "write_gif",
    "write_png",
]
