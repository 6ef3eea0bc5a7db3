"""Plain ground goes on, and takes nothing along of what stands on it; a side that something reaches is left to draw."""

import numpy as np
import pytest
from PIL import Image

from opendalle.editing import Extension, carried_on

BLUE = (60, 120, 230)


def thing_on(ground: tuple[int, ...], box: tuple[int, int, int, int], grain: int = 0) -> Image.Image:
    """A red box on a ground that is a little rough."""
    mode = "RGBA" if len(ground) == 4 else "RGB"
    picture = Image.new(mode, (96, 64), ground)
    rough = np.random.default_rng(1).integers(-grain, grain + 1, (64, 96, len(ground)))
    picture = Image.fromarray(np.clip(np.asarray(picture).astype(int) + rough, 0, 255).astype(np.uint8))
    picture.paste((255, 0, 0, 255)[: len(ground)], box)
    return picture


@pytest.mark.parametrize("grain", [0, 12])
@pytest.mark.parametrize("ground", [BLUE, (*BLUE, 255), (0, 0, 0, 0)])
def test_plain_ground_goes_on(ground, grain):
    grain = 0 if len(ground) == 4 and ground[3] == 0 else grain
    picture = thing_on(ground, (10, 10, 86, 60), grain)
    carried = carried_on(picture, Extension(left=30, right=41, top=5))
    assert carried.left_over is None
    assert (carried.picture.size, carried.picture.mode) == ((167, 69), picture.mode)
    grown = np.asarray(carried.picture).astype(int)
    assert np.array_equal(grown[5:, 30:126], np.asarray(picture))
    new = np.ones(grown.shape[:2], bool)
    new[5:, 30:126] = False
    assert np.abs(grown[new] - np.array(ground)).max() <= grain  # no tint of the red box


def test_a_side_that_something_reaches_is_left_to_be_drawn():
    picture = thing_on(BLUE, (0, 10, 40, 60))
    carried = carried_on(picture, Extension(left=30, right=20))
    assert carried.left_over == Extension(left=30)
    assert carried.picture.size == (116, 64)
    assert np.array_equal(np.asarray(carried.picture)[:, :96], np.asarray(picture))
    both = carried_on(thing_on(BLUE, (0, 10, 96, 60)), Extension(left=30, right=20))
    assert both.left_over == Extension(left=30, right=20)
    assert both.picture.size == (96, 64)
