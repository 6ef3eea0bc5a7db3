"""Editing, for any generation: masks, frames, the way back into the picture, outpainting order, sizes.  No torch."""

from opendalle.editing.canvas import Canvas, Window
from opendalle.editing.drawing import Draw, Edited, OnGrid, edited, extended, on_grid
from opendalle.editing.frames import Frame, Framing, mask_frames
from opendalle.editing.ground import Carried, carried_on
from opendalle.editing.masks import (
    Box,
    Mask,
    cells_of,
    check_mask,
    check_picture,
    mask_from_alpha,
    mask_from_box,
    mask_from_text,
    mask_from_white,
    mask_to_text,
)
from opendalle.editing.outpainting import Extension, OutpaintingOrder
from opendalle.editing.sizes import SizePlan, Sizes

__all__ = [
    "Box",
    "Canvas",
    "Carried",
    "Draw",
    "Edited",
    "Extension",
    "Frame",
    "Framing",
    "Mask",
    "OnGrid",
    "OutpaintingOrder",
    "SizePlan",
    "Sizes",
    "Window",
    "carried_on",
    "cells_of",
    "check_mask",
    "check_picture",
    "edited",
    "extended",
    "mask_frames",
    "mask_from_alpha",
    "mask_from_box",
    "mask_from_text",
    "mask_from_white",
    "mask_to_text",
    "on_grid",
]
