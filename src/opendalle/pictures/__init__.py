"""Pictures on disk and as numbers: reading with caps, writing that never overwrites, recipes, sheets.  No torch."""

from opendalle.pictures.arrays import from_array, to_array
from opendalle.pictures.reading import MAX_BYTES, MAX_PIXELS, Readable, read_bytes, read_picture
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
    "Readable",
    "composite",
    "contact_sheet",
    "from_array",
    "next_number",
    "numbered_path",
    "read_bytes",
    "read_picture",
    "read_recipe",
    "refuse_existing",
    "refuse_unwritable",
    "to_array",
    "write_gif",
    "write_png",
]
