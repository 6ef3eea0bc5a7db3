"""Numbers and pixels are the same picture: equality in both directions."""

import numpy as np
import pytest
from PIL import Image

from opendalle.base.errors import BadPicture
from opendalle.pictures import composite, contact_sheet, from_array, to_array


def every_colour_and_alpha() -> np.ndarray:
    colour, alpha = np.meshgrid(np.arange(256), np.arange(256))
    return np.stack([colour, 255 - colour, colour // 2, alpha], axis=-1).astype(np.uint8)


def test_every_rgba_value_survives_the_round_trip():
    pixels = every_colour_and_alpha()
    array = to_array(Image.fromarray(pixels))
    assert array.dtype == np.float32
    assert array.shape == (4, 256, 256)
    wanted = np.where(pixels[..., 3:] == 0, 0, pixels)  # nothing has no colour
    assert np.array_equal(np.asarray(from_array(array)), wanted)


def test_every_rgb_value_survives_the_round_trip():
    pixels = every_colour_and_alpha()[..., :3]
    assert np.array_equal(np.asarray(from_array(to_array(Image.fromarray(pixels)))), pixels)


def test_nothing_is_minus_one_and_white_is_one():
    assert np.array_equal(to_array(Image.new("RGBA", (1, 1), (200, 100, 50, 0))).ravel(), [-1, -1, -1, -1])
    assert np.array_equal(to_array(Image.new("RGBA", (1, 1), (255, 255, 255, 255))).ravel(), [1, 1, 1, 1])


def test_compositing_the_array_equals_compositing_the_picture():
    pixels = every_colour_and_alpha()
    image, array = Image.fromarray(pixels), (to_array(Image.fromarray(pixels)) + 1) / 2
    for background in [(255, 255, 255), (0, 0, 0), (10, 200, 90)]:
        by_rule = array[:3] + (1 - array[3:]) * np.array(background, np.float32)[:, None, None] / 255
        by_picture = np.asarray(composite(image, background)).transpose(2, 0, 1)
        assert np.abs(by_rule * 255 - by_picture).max() <= 0.5 + 1e-3


def test_an_array_with_odd_values_is_clipped():
    wild = np.array([9.0, -9.0, 0.5, -0.2], np.float32).reshape(4, 1, 1)  # premultiplied red above alpha
    assert np.asarray(from_array(wild)).tolist() == [[[255, 0, 255, 102]]]


@pytest.mark.parametrize(
    "array", [np.zeros((2, 3, 3), np.float32), np.full((3, 2, 2), np.nan, np.float32)], ids=["two channels", "NaN"]
)
def test_impossible_arrays_are_refused(array):
    with pytest.raises(BadPicture):
        from_array(array)


def test_only_rgb_and_rgba_become_arrays():
    with pytest.raises(BadPicture, match="mode L"):
        to_array(Image.new("L", (2, 2)))
    with pytest.raises(BadPicture, match="mode L"):
        composite(Image.new("L", (2, 2)))


def test_a_sheet_holds_every_picture_in_reading_order():
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250)]
    sheet = contact_sheet([Image.new("RGB", (4, 6), colour) for colour in colours], columns=2, gap=1)
    assert sheet.size == (1 + 2 * 5, 1 + 2 * 7)
    assert [sheet.getpixel(place) for place in [(1, 1), (6, 1), (1, 8)]] == colours
    assert sheet.getpixel((6, 8)) == (255, 255, 255)


def test_small_pictures_are_centred_and_clear_ones_laid_on_the_background():
    images = [Image.new("RGB", (6, 6)), Image.new("RGBA", (2, 2), (255, 0, 0, 0)), Image.new("RGB", (2, 2), "red")]
    sheet = contact_sheet(images, columns=3, gap=2, background=(1, 2, 3))
    assert sheet.getpixel((12, 4)) == (1, 2, 3)
    assert [sheet.getpixel((x, 4)) for x in (19, 20, 21, 22)] == [(1, 2, 3), (255, 0, 0), (255, 0, 0), (1, 2, 3)]


def test_an_empty_sheet_is_refused():
    with pytest.raises(BadPicture, match="no pictures"):
        contact_sheet([])
    with pytest.raises(BadPicture, match="columns"):
        contact_sheet([Image.new("RGB", (1, 1))], columns=0)
