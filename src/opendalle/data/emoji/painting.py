"""Painting things other colours: drawings by turning their main hue, and simple shapes from formulas."""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float, UInt8

from opendalle.data.emoji.colours import COLOUR_OF_NAME, hue_saturation_value

# What a painted surface looks like on average: hue in turns, saturation, value.  Judged by eye on all four styles.
_PAINT: Mapping[str, tuple[float, float, float]] = {
    "red": (0.995, 0.84, 0.90),
    "orange": (0.078, 0.86, 0.97),
    "yellow": (0.140, 0.80, 0.98),
    "green": (0.370, 0.72, 0.70),
    "blue": (0.610, 0.80, 0.88),
    "purple": (0.765, 0.66, 0.72),
    "pink": (0.915, 0.46, 0.97),
    "brown": (0.066, 0.64, 0.50),
    "black": (0.66, 0.10, 0.17),
    "white": (0.60, 0.03, 0.97),
    "grey": (0.60, 0.04, 0.62),
}


def repaint(picture: UInt8[np.ndarray, "h w 4"], colour: str) -> UInt8[np.ndarray, "h w 4"]:
    """Paint the main surface of a drawing; its light, shade and small parts stay.

    Args:
        picture: RGBA, straight alpha, with one surface of a clear hue.
        colour: a basic colour word.
    """
    flat = picture.reshape(-1, 4)
    hue, saturation, value = hue_saturation_value(flat[:, :3]).T
    weight = _main_surface(hue, saturation, value, flat[:, 3] > 127)
    total = weight.sum() + 1e-6
    mean_saturation, mean_value = (weight * saturation).sum() / total, (weight * value).sum() / total
    target_hue, target_saturation, target_value = _PAINT[colour]
    main = _main_hue(hue, weight)
    turned = (target_hue + 0.35 * _turn(hue - main)) % 1.0
    shaded = np.clip(target_value * (value / max(mean_value, 1e-3)) ** 0.9, 0.0, 1.0)
    filled = np.clip(target_saturation * (saturation / max(mean_saturation, 1e-3)) ** 0.7, 0.0, 1.0)
    painted = _rgb(turned, filled, shaded)
    blended = weight[:, None] * painted + (1.0 - weight[:, None]) * (flat[:, :3] / 255.0)
    out = flat.copy()
    out[:, :3] = np.round(blended * 255.0)
    return out.reshape(picture.shape)


def _main_surface(
    hue: Float[np.ndarray, " n"],
    saturation: Float[np.ndarray, " n"],
    value: Float[np.ndarray, " n"],
    solid: np.ndarray,
) -> Float[np.ndarray, " n"]:
    """Weigh each pixel, 0 to 1, by how much it belongs to the most common hue."""
    vivid = solid & (saturation > 0.15) & (value > 0.12)
    bins = np.bincount((hue[vivid] * 36).astype(np.int64) % 36, minlength=36).astype(np.float64)
    smooth = sum(np.roll(bins, shift) for shift in (-2, -1, 0, 1, 2))
    centre = (float(np.argmax(smooth)) + 0.5) / 36
    near = np.clip((0.125 - np.abs(_turn(hue - centre))) / 0.035, 0.0, 1.0)  # full within 32 degrees, none past 45
    rich = np.clip((saturation - 0.07) / 0.12, 0.0, 1.0)
    return (near * rich).astype(np.float32)


def _main_hue(hue: Float[np.ndarray, " n"], weight: Float[np.ndarray, " n"]) -> float:
    angle = 2 * np.pi * hue
    return float(np.arctan2((weight * np.sin(angle)).sum(), (weight * np.cos(angle)).sum()) / (2 * np.pi)) % 1.0


def _turn(difference: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Bring a difference of hues to -0.5 to 0.5 turns."""
    return (difference + 0.5) % 1.0 - 0.5


def _rgb(
    hue: Float[np.ndarray, " n"], saturation: Float[np.ndarray, " n"], value: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "n 3"]:
    """Invert `hue_saturation_value`; values 0 to 1."""
    channels = []
    for offset in (5.0, 3.0, 1.0):
        k = (offset + hue * 6.0) % 6.0
        channels.append(value - value * saturation * np.clip(np.minimum(k, 4.0 - k), 0.0, 1.0))
    return np.stack(channels, axis=1)


# Shapes.  Each is a signed field over the square [-1, 1]^2 (y down), positive inside, about linear near its edge.
Field = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _polygon(*corners: tuple[float, float]) -> Field:
    """Field of a convex polygon with corners in clockwise order on a y-down page."""

    def field(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        sides = []
        for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
            dx, dy = x1 - x0, y1 - y0
            sides.append(((y - y0) * dx - (x - x0) * dy) / np.hypot(dx, dy))
        return np.minimum.reduce(sides)

    return field


def _ball(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 0.86 - np.hypot(x, y)


def _cone(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    foot = (0.26 - np.hypot(x / 0.72 * 0.26, y - 0.58)) * 1.6
    return np.maximum(_polygon((0.0, -0.9), (0.72, 0.58), (-0.72, 0.58))(x, y), foot)


_SQUARE = _polygon((-0.76, -0.76), (0.76, -0.76), (0.76, 0.76), (-0.76, 0.76))
_TRIANGLE = _polygon((0.0, -0.84), (0.9, 0.72), (-0.9, 0.72))
_CUBE = _polygon((0.0, -0.92), (0.8, -0.5), (0.8, 0.46), (0.0, 0.92), (-0.8, 0.46), (-0.8, -0.5))
_FIELDS: Mapping[str, Field] = {
    "ball": _ball,
    "circle": _ball,
    "square": _SQUARE,
    "triangle": _TRIANGLE,
    "cube": _CUBE,
    "cone": _cone,
}
SHAPES = tuple(_FIELDS)
_FINE = 3  # drawn this many times larger, then averaged


def draw_shape(name: str, colour: str, style: str, side: int) -> UInt8[np.ndarray, "s s 4"]:
    """Draw a simple shape.

    Args:
        name: one of SHAPES.
        colour: a basic colour word.
        style: `3d` glosses it, `noto` grades it softly, the others leave it flat.
        side: pixels.
    """
    fine = _FINE * side
    across = (np.arange(fine, dtype=np.float32) + 0.5) / fine * 2 - 1
    x, y = np.meshgrid(across, across)
    alpha = np.clip(_FIELDS[name](x, y) * fine / 2 + 0.5, 0.0, 1.0)
    light = _light(name, x, y, {"3d": 1.0, "noto": 0.5}.get(style, 0.0))
    paint = np.array(COLOUR_OF_NAME[colour].rgb, dtype=np.float32) / 255.0
    if colour in ("white", "black"):  # leave room for light on black and for shade on white
        paint = np.clip(paint, 0.12, 0.95)
    up, down = np.clip(light, 0, 1)[..., None], np.clip(-light, 0, 1)[..., None]
    rgb = paint * (1 - down) + (1 - paint * (1 - down)) * up
    shaped = np.concatenate([rgb * alpha[..., None], alpha[..., None]], axis=-1)
    shaped = shaped.reshape(side, _FINE, side, _FINE, 4).mean((1, 3))  # smooth edges, also between a cube's faces
    shaped[..., :3] /= np.maximum(shaped[..., 3:], 1e-3)
    return np.round(np.clip(shaped, 0.0, 1.0) * 255).astype(np.uint8)


def _light(name: str, x: np.ndarray, y: np.ndarray, gloss: float) -> np.ndarray:
    """Return how much lighter (to 1) or darker (to -1) than its paint each point is."""
    if name == "cube":
        top = (np.abs(x) / 0.8 * 0.42 - 0.08 + y) < 0
        faces = np.where(top, 0.28, np.where(x < 0, 0.0, -0.26))
        return faces + gloss * 0.10 * (-y)
    if name == "cone":
        return np.where(x > 0.18 * (y + 1), -0.18, 0.0) + gloss * (0.16 - 0.5 * (x + 0.25) ** 2)
    if name == "ball":
        shade = -0.22 * np.clip(np.hypot(x + 0.28, y + 0.3) - 0.55, 0, None)
        spot = np.exp(-((x + 0.34) ** 2 + (y + 0.38) ** 2) / 0.07)
        crescent = np.where(np.hypot(x + 0.16, y + 0.16) > 0.86, -0.16, 0.0) * (1 - gloss)
        return crescent + (0.12 + 0.55 * gloss) * spot + gloss * 2.2 * shade
    return gloss * (0.10 - 0.16 * y)
