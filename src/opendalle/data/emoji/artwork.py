"""One drawing of one concept in one style, from the npm packages: vectors are rendered, renders are read."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from opendalle.base.errors import BadData, MissingExtra
from opendalle.data.emoji.catalogue import plain_hexcode

FULL_SIZE = 256  # pixels: the side of the 3D renders, which come as pixels and are the sharpest there is
_MARGIN = {"twemoji": 0.045}  # of the drawing's side: this style touches its edges, the others bring air of their own

_VIEW = re.compile(r'viewBox="(\S+) (\S+) (\S+) (\S+)"')

Draw = Callable[[str], UInt8[np.ndarray, "h w 4"] | None]
Trace = Callable[[str], str | None]


def open_style(package: Path, style: str) -> Draw:
    """Return a function from a plain hexcode to its RGBA drawing of FULL_SIZE, or None where there is none.

    Args:
        package: the unpacked npm package.
        style: one of STYLES.

    Raises:
        BadData: when the package is not there or not what was published.
    """
    if not package.is_dir():
        raise BadData(f"no folder {package}", f"the unpacked package of style {style!r}", "Run: opendalle data emoji")
    if style == "3d":
        return _open_renders(package / "assets")
    trace = open_vectors(package, style)

    def draw(hexcode: str) -> UInt8[np.ndarray, "h w 4"] | None:
        svg = trace(hexcode)
        return None if svg is None else render_svg(svg)

    return draw


def _open_renders(assets: Path) -> Draw:
    path_of = {plain_hexcode(path.stem): path for path in sorted(assets.glob("*.webp"))}

    def draw(hexcode: str) -> UInt8[np.ndarray, "h w 4"] | None:
        path = path_of.get(hexcode)
        return None if path is None else _pixels(path.read_bytes())

    return draw


def open_vectors(package: Path, style: str) -> Trace:
    """Return a function from a plain hexcode to its drawing as an SVG document, or None where there is none.

    Args:
        package: the unpacked npm package, an Iconify collection.
        style: one of STYLES that are vectors.

    Raises:
        BadData: when the package is not what was published.
    """
    try:
        icons: dict[str, Any] = json.loads((package / "icons.json").read_text(encoding="utf-8"))
        chars: dict[str, str] = json.loads((package / "chars.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError) as error:
        raise BadData(f"{package}: {error}", "icons.json and chars.json as Iconify publishes them") from None
    name_of = {plain_hexcode(hexcode): name for hexcode, name in chars.items()}

    def trace(hexcode: str) -> str | None:
        name = name_of.get(hexcode)
        icon = None if name is None else _resolve(icons, name)
        return None if icon is None else svg_of_icon(icon, _MARGIN.get(style, 0.0))

    return trace


def _resolve(icons: dict[str, Any], name: str) -> dict[str, Any] | None:
    """Follow aliases to an icon, collecting the mirror flags and sizes on the way."""
    icon: dict[str, Any] = {"width": icons.get("width", 16), "height": icons.get("height", 16)}
    changes: dict[str, Any] = {"hFlip": False, "vFlip": False}
    for _ in range(8):  # aliases of aliases are two deep at most; eight stops a circle
        if name in icons["icons"]:
            return {**icon, **icons["icons"][name], **changes}
        alias = icons.get("aliases", {}).get(name)
        if alias is None:
            return None
        for flag in changes:
            changes[flag] ^= bool(alias.get(flag, False))
        name = alias["parent"]
    return None


def svg_of_icon(icon: dict[str, Any], margin: float) -> str:
    """Wrap an Iconify icon into a whole square SVG document.

    Args:
        icon: body, width, height and optional left, top, hFlip, vFlip.
        margin: air added on every side, as a share of the longer side.
    """
    width, height = float(icon["width"]), float(icon["height"])
    left, top = float(icon.get("left", 0)), float(icon.get("top", 0))
    body = icon["body"]
    if icon.get("hFlip") or icon.get("vFlip"):
        x, move_x = (-1, 2 * left + width) if icon.get("hFlip") else (1, 0.0)
        y, move_y = (-1, 2 * top + height) if icon.get("vFlip") else (1, 0.0)
        body = f'<g transform="translate({move_x} {move_y}) scale({x} {y})">{body}</g>'
    side = max(width, height) * (1 + 2 * margin)
    corner = (left - (side - width) / 2, top - (side - height) / 2)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{FULL_SIZE}" height="{FULL_SIZE}" viewBox="{corner[0]} {corner[1]} {side} {side}">{body}</svg>'
    )


def render_svg(
    svg: str, size: int = FULL_SIZE, window: tuple[float, float, float] | None = None
) -> UInt8[np.ndarray, "h w 4"]:
    """Render an SVG document, or a square window of it, to straight RGBA.

    A window costs what a picture of its size costs, however large the whole would be.

    Args:
        svg: as `svg_of_icon` writes it.
        size: side of what is rendered, in pixels.
        window: its left, top and side as shares of the drawing's; None: the whole drawing.

    Raises:
        BadData: when a window is asked of a document without a viewBox.
        MissingExtra: when resvg-py is not installed.
    """
    try:
        import resvg_py
    except ImportError:
        raise MissingExtra("resvg-py", "train") from None
    if window is not None:
        svg = _windowed(svg, *window)
    return _pixels(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, skip_system_fonts=True)), size)


def _windowed(svg: str, left: float, top: float, side: float) -> str:
    """Look at a part of a drawing: the document stays, its viewBox moves."""
    found = _VIEW.search(svg)
    if found is None:
        raise BadData("an SVG document without a viewBox", "one as svg_of_icon writes it")
    x, y, width, height = map(float, found.groups())
    view = f'viewBox="{x + left * width} {y + top * height} {side * width} {side * height}"'
    return svg[: found.start()] + view + svg[found.end() :]


def _pixels(data: bytes, size: int = FULL_SIZE) -> UInt8[np.ndarray, "h w 4"]:
    image = Image.open(io.BytesIO(data)).convert("RGBA")
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(image)
