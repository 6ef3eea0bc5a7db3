"""Three ways to mark a place, one kind of mask, and every unusable one refused before any work."""

import numpy as np
import pytest
from PIL import Image

from opendalle.base.errors import BadPicture, BadRequest
from opendalle.editing import (
    Box,
    cells_of,
    check_mask,
    mask_from_alpha,
    mask_from_box,
    mask_from_text,
    mask_from_white,
    mask_to_text,
)


def random_mask(height: int, width: int, share: float = 0.3) -> np.ndarray:
    return np.random.default_rng(height * width).random((height, width)) < share


def test_the_three_ways_mark_the_same_place():
    wanted = mask_from_box(Box(left=3, top=5, width=10, height=4), (20, 16))
    assert wanted.sum() == 40
    assert wanted[5:9, 3:13].all()
    alpha = np.where(wanted, 0, 255).astype(np.uint8)
    rubbed = Image.fromarray(np.dstack([np.full((16, 20, 3), 77, np.uint8), alpha]))
    assert np.array_equal(mask_from_alpha(rubbed), wanted)
    white = Image.fromarray(np.dstack([np.where(wanted, 255, 0).astype(np.uint8)] * 3))
    assert np.array_equal(mask_from_white(white), wanted)
    painted = Image.fromarray(np.dstack([np.full((16, 20, 3), 255, np.uint8), 255 - alpha]))
    assert np.array_equal(mask_from_white(painted), wanted), "white paint on a clear ground"


def test_only_what_is_wholly_transparent_is_edited():
    ramp = np.zeros((2, 256, 4), np.uint8)
    ramp[..., 3] = np.arange(256)
    assert np.array_equal(mask_from_alpha(Image.fromarray(ramp)), np.arange(256)[None].repeat(2, 0) == 0)


def test_white_is_what_is_nearer_to_white():
    grey = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, 2).repeat(2, 0)
    assert np.array_equal(mask_from_white(Image.fromarray(grey)), np.arange(256)[None].repeat(2, 0) >= 128)


def test_a_mask_without_transparency_is_told_what_to_do():
    with pytest.raises(BadPicture, match="without transparency"):
        mask_from_alpha(Image.new("RGB", (8, 8)))


@pytest.mark.parametrize("text", ["1,2,3", "1,2,3,4,5", "a,b,c,d", "", "1.5,2,3,4", "-1,0,4,4", "0,0,0,4", "0,0,4,-4"])
def test_a_box_that_is_none_is_refused(text):
    with pytest.raises(BadRequest):
        Box.parse(text)


def test_a_box_lies_inside():
    assert Box.parse("4, 6,12,10") == Box(left=4, top=6, width=12, height=10)
    assert mask_from_box(Box.parse("4,6,12,10"), (16, 16)).sum() == 120
    for text in ("5,6,12,10", "4,7,12,10", "99,0,1,1"):
        with pytest.raises(BadRequest, match="inside the picture of 16 x 16"):
            mask_from_box(Box.parse(text), (16, 16))


def test_masks_that_cannot_be_used_are_refused():
    picture, mask = Image.new("RGB", (20, 16)), random_mask(16, 20)
    check_mask(mask, picture)
    for wrong, said in [
        (mask.T, "16 x 20 pixels; wanted the picture's 20 x 16"),
        (np.zeros_like(mask), "marks nothing"),
        (np.ones_like(mask), "something to keep"),
    ]:
        with pytest.raises(BadRequest, match=said):
            check_mask(wrong, picture)


@pytest.mark.parametrize(
    ("size", "mode", "said"),
    [
        ((1, 1), "RGB", "at least 8 pixels"),
        ((400, 7), "RGBA", "at least 8 pixels"),
        ((8000, 5000), "RGB", "at most 16777216 pixels"),
        ((20, 20), "L", "mode L"),
    ],
)
def test_pictures_that_cannot_be_edited_are_refused(size, mode, said):
    with pytest.raises(BadPicture, match=said):
        check_mask(np.ones((2, 2), bool), Image.new(mode, size))


@pytest.mark.parametrize("factor", [1, 2, 8])
def test_a_cell_is_edited_when_any_of_its_pixels_is(factor):
    mask = random_mask(64, 32, 0.02)
    cells = cells_of(mask, factor)
    assert cells.shape == (64 // factor, 32 // factor)
    for y, x in np.ndindex(cells.shape):
        assert cells[y, x] == mask[y * factor : (y + 1) * factor, x * factor : (x + 1) * factor].any()


def test_a_mask_off_the_grid_is_refused():
    with pytest.raises(BadRequest, match="multiples of 8"):
        cells_of(random_mask(64, 60), 8)


def test_a_recipe_holds_a_mask_and_gives_it_back():
    for mask in (random_mask(33, 57), mask_from_box(Box(left=100, top=50, width=400, height=300), (1024, 1024))):
        text = mask_to_text(mask)
        assert text.isascii()
        assert np.array_equal(mask_from_text(text), mask)
    assert len(text) < 2000, "a box is a short text"
    for damaged in ("no base 64!", text[: len(text) // 8 * 4], ""):
        with pytest.raises(BadPicture):
            mask_from_text(damaged)
