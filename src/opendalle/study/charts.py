"""A line chart as SVG that stands inside a page: a few lines over two axes, in the page's own colours."""

import math
from collections.abc import Sequence
from html import escape

from opendalle.study.report import Chart

WIDTH, HEIGHT = 560, 360  # in the chart's own units; the page scales it
LEFT, RIGHT, TOP, BOTTOM = 62, 24, 18, 52
TICKS = 5
COLOURS = 6  # of lines, in the page's style


def ticks(low: float, high: float, count: int = TICKS) -> list[float]:
    """Return round numbers that cover a range, about so many.

    Args:
        low: least value.
        high: largest value.
        count: how many, about.
    """
    if high - low <= 1e-9 * max(1.0, abs(low), abs(high)):  # the same number, but for rounding
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / count
    scale = 10.0 ** math.floor(math.log10(rough))
    step = next(one * scale for one in (1, 2, 2.5, 5, 10) if one * scale >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(place * step, 10) for place in range(first, last + 1)]


def doublings(low: float, high: float) -> list[float]:
    """Return powers of two that cover a range.

    Args:
        low: least value, above 0.
        high: largest value.
    """
    first = math.floor(math.log2(low))
    return [2.0**power for power in range(first, max(first + 1, math.ceil(math.log2(high))) + 1)]


def svg(chart: Chart) -> str:
    """Draw a chart.

    Args:
        chart: lines with at least one point between them.
    """
    points = [point for line in chart.lines for point in line.points]
    if not points:
        return ""
    ends = _ends([one[0] for one in points])
    xs, ys = (doublings if chart.doubles else ticks)(*ends), ticks(*_ends([one[1] for one in points]))
    along = math.log2 if chart.doubles else float

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (along(x) - along(xs[0])) / (along(xs[-1]) - along(xs[0])) * (WIDTH - LEFT - RIGHT)
        down = HEIGHT - BOTTOM - (y - ys[0]) / (ys[-1] - ys[0]) * (HEIGHT - TOP - BOTTOM)
        return round(across, 1), round(down, 1)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(chart.title)}">']
    for x in xs:
        across, down = place(x, ys[0])
        parts.append(f'<line class="grid" x1="{across}" y1="{TOP}" x2="{across}" y2="{down}"/>')
        parts.append(f'<text x="{across}" y="{down + 18}" text-anchor="middle">{x:g}</text>')
    for y in ys:
        across, down = place(xs[0], y)
        parts.append(f'<line class="grid" x1="{across}" y1="{down}" x2="{WIDTH - RIGHT}" y2="{down}"/>')
        parts.append(f'<text x="{across - 8}" y="{down + 4}" text-anchor="end">{y:g}</text>')
    middle, centre = (LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2
    parts.append(f'<text class="axis" x="{middle}" y="{HEIGHT - 10}" text-anchor="middle">{escape(chart.x)}</text>')
    parts.append(
        f'<text class="axis" transform="translate(14 {centre}) rotate(-90)" text-anchor="middle">'
        f"{escape(chart.y)}</text>"
    )
    for number, line in enumerate(chart.lines):
        places = [place(x, y) for x, y, _ in line.points]
        way = " ".join(f"{x},{y}" for x, y in places)
        parts.append(f'<g class="line-{number % COLOURS}"><polyline points="{way}"/>')
        for (x, y), (_, _, told) in zip(places, line.points, strict=True):
            parts.append(f'<circle cx="{x}" cy="{y}" r="4"/>')
            parts += [f'<text x="{x + 7}" y="{y - 7}">{escape(told)}</text>'] if told else []
        parts.append("</g>")
    return "".join([*parts, "</svg>"])


def _ends(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)
