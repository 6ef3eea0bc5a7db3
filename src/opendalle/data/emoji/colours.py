"""The eleven basic colour words, how to paint them and how to read them off a picture."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8


@dataclass(frozen=True, kw_only=True)
class Colour:
    """One basic colour: its words and the paint that scenes use for it."""

    name: str  # English adjective
    zh: str  # Chinese noun, without the 的 that makes it an adjective
    rgb: tuple[int, int, int]  # the clear middle of the colour, 0 to 255
    hue: float | None  # turns of the colour wheel, for recolouring; None: has no hue of its own


COLOURS = (
    Colour(name="red", zh="红色", rgb=(222, 48, 44), hue=0.0),
    Colour(name="orange", zh="橙色", rgb=(248, 140, 28), hue=0.083),
    Colour(name="yellow", zh="黄色", rgb=(253, 214, 52), hue=0.147),
    Colour(name="green", zh="绿色", rgb=(58, 168, 78), hue=0.36),
    Colour(name="blue", zh="蓝色", rgb=(44, 108, 224), hue=0.605),
    Colour(name="purple", zh="紫色", rgb=(132, 68, 190), hue=0.755),
    Colour(name="pink", zh="粉色", rgb=(246, 136, 186), hue=0.92),
    Colour(name="brown", zh="棕色", rgb=(130, 82, 48), hue=None),
    Colour(name="black", zh="黑色", rgb=(26, 26, 28), hue=None),
    Colour(name="white", zh="白色", rgb=(255, 255, 255), hue=None),
    Colour(name="grey", zh="灰色", rgb=(148, 150, 154), hue=None),
)
COLOUR_NAMES = tuple(colour.name for colour in COLOURS)
COLOUR_OF_NAME = {colour.name: colour for colour in COLOURS}
_INDEX = {name: index for index, name in enumerate(COLOUR_NAMES)}
_SOLID = 200  # alpha above which a pixel counts as part of the drawing


def hue_saturation_value(rgb: UInt8[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Convert colours to hue (turns, 0 to 1), saturation and value (0 to 1).

    Args:
        rgb: straight colours, 0 to 255.
    """
    colour = rgb.astype(np.float32) / 255.0
    high, low = colour.max(1), colour.min(1)
    spread = high - low
    safe = np.where(spread > 0, spread, 1.0)
    red, green, blue = colour.T
    hue = np.where(
        high == red,
        (green - blue) / safe % 6.0,
        np.where(high == green, (blue - red) / safe + 2.0, (red - green) / safe + 4.0),
    )
    saturation = spread / np.where(high > 0, high, 1.0)
    return np.stack([np.where(spread > 0, hue / 6.0, 0.0), saturation, high], axis=1).astype(np.float32)


def name_pixels(rgb: UInt8[np.ndarray, "n 3"]) -> Int[np.ndarray, " n"]:
    """Name each colour: index into COLOURS.  The borders are where people put them on emoji artwork, judged by eye.

    Args:
        rgb: straight colours, 0 to 255.
    """
    hue, saturation, value = hue_saturation_value(rgb).T
    degrees = hue * 360.0
    names = np.full(len(rgb), _INDEX["red"], dtype=np.int64)
    for name, low, high in (
        ("orange", 14, 41),
        ("yellow", 41, 66),
        ("green", 66, 168),
        ("blue", 168, 256),
        ("purple", 256, 302),
        ("pink", 302, 346),
    ):
        names[(degrees >= low) & (degrees < high)] = _INDEX[name]
    warm = (degrees < 45) | (degrees >= 346)
    names[warm & (degrees >= 10) & (degrees < 45) & (value < 0.68)] = _INDEX["brown"]
    names[warm & (value < 0.45)] = _INDEX["brown"]
    names[((degrees < 10) | (degrees >= 320)) & (saturation < 0.55) & (value > 0.75)] = _INDEX["pink"]
    pale = saturation < 0.13
    names[pale & (value >= 0.86)] = _INDEX["white"]
    names[pale & (value < 0.86)] = _INDEX["grey"]
    names[(value < 0.2) | ((saturation < 0.3) & (value < 0.3))] = _INDEX["black"]
    return names


def colours_of_picture(picture: UInt8[np.ndarray, "h w 4"], at_least: float = 0.2) -> list[str]:
    """Name the colours that fill a drawing, the largest first, at most three.

    Args:
        picture: RGBA, straight alpha.
        at_least: share of the drawing that a colour must fill to be named.
    """
    solid = picture[picture[..., 3] > _SOLID][:, :3]
    if len(solid) == 0:
        return []
    shares = np.bincount(name_pixels(solid), minlength=len(COLOURS)) / len(solid)
    order = np.argsort(-shares, kind="stable")[:3]
    return [COLOUR_NAMES[index] for index in order if shares[index] >= at_least]
