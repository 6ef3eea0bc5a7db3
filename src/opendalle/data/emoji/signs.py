"""Signs and speech bubbles with a word on them.  The font is the openly licensed one that Pillow itself carries."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from opendalle.data.emoji.build import shrink
from opendalle.data.emoji.colours import COLOUR_OF_NAME

WORDS = (
    "hi",
    "yes",
    "no",
    "ok",
    "go",
    "wow",
    "stop",
    "open",
    "love",
    "hey",
    "bye",
    "cat",
    "yay",
    "sale",
    "hello",
    "fun",
)
_SIDE = 256  # drawn large, then shrunk
_DARK = (36, 36, 44)


def draw_sign(word: str, colour: str, side: int) -> UInt8[np.ndarray, "s s 4"]:
    """Draw a board on a post with a word on it.

    Args:
        word: up to six letters.
        colour: basic colour of the board.
        side: pixels.
    """
    image = Image.new("RGBA", (_SIDE, _SIDE))
    pen = ImageDraw.Draw(image)
    pen.rounded_rectangle((116, 120, 140, 250), radius=8, fill=(128, 88, 58))
    paint = COLOUR_OF_NAME[colour].rgb
    pen.rounded_rectangle((6, 28, 250, 156), radius=22, fill=paint, outline=_outline(paint), width=7)
    _write(pen, word.upper(), (128, 92), width=214, height=96, fill=_ink(paint))
    return shrink(np.asarray(image), side)


def draw_bubble(word: str, side: int) -> UInt8[np.ndarray, "s s 4"]:
    """Draw a white speech bubble whose tail points down and to the left.

    Args:
        word: up to six letters.
        side: pixels.
    """
    image = Image.new("RGBA", (_SIDE, _SIDE))
    pen = ImageDraw.Draw(image)
    line = (90, 96, 110)
    pen.polygon(((50, 172), (112, 180), (26, 250)), fill=line)
    pen.rounded_rectangle((4, 28, 252, 190), radius=70, fill=(255, 255, 255), outline=line, width=7)
    pen.polygon(((58, 170), (104, 178), (42, 234)), fill=(255, 255, 255))
    _write(pen, word.upper(), (128, 109), width=206, height=100, fill=_DARK)
    return shrink(np.asarray(image), side)


def _write(
    pen: ImageDraw.ImageDraw, word: str, centre: tuple[int, int], width: int, height: int, fill: tuple[int, int, int]
) -> None:
    """Write a word as large as fits, heavy enough to be read at 64 px."""
    size = float(height)
    font = ImageFont.load_default(size)
    left, _, right, _ = pen.textbbox((0, 0), word, font=font, stroke_width=3)
    font = ImageFont.load_default(size * min(1.25, width / (right - left)))
    pen.text(centre, word, font=font, fill=fill, anchor="mm", stroke_width=3, stroke_fill=fill)


def _ink(paint: tuple[int, int, int]) -> tuple[int, int, int]:
    brightness = 0.3 * paint[0] + 0.59 * paint[1] + 0.11 * paint[2]
    return _DARK if brightness > 140 else (255, 255, 255)


def _outline(paint: tuple[int, int, int]) -> tuple[int, int, int]:
    red, green, blue = (int(channel * 0.7) for channel in paint)
    return red, green, blue
