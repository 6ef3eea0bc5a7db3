"""Who sees whom in DALL·E 1's attention, as a picture, and how many pairs that saves.

    python bench/patterns.py --picture docs/dalle1/patterns.png

The table counts, for every preset of the transformer, how many of the picture's words a word looks at in a layer of
each pattern, on average over the grid, and how many tokens with the caption; the last column compares with a dense
layer.  The picture asks the same of one cell.  Both come from `dalle1/patterns.py`, which the network reads, too.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from measuring.report import table
from PIL import Image, ImageDraw, ImageFont

from opendalle.dalle1.patterns import PATTERNS, Pattern, layer_patterns, visible
from opendalle.dalle1.transformer import DALLE1_PRESETS, Dalle1TransformerConfig

SHOWN: tuple[Pattern, ...] = ("row", "column", "convolution", "dense")
COLOURS = {"row": "#3f6fb5", "column": "#2f9461", "convolution": "#d9822b", "dense": "#8674a8"}
ASKING, DRAWN, LATER, LINE = "#202020", "#e4e4e4", "#ffffff", "#c4c4c4"
CELL, GAP, TEXT = 14, 18, 16  # of the picture, in pixels


def counted(name: str, config: Dalle1TransformerConfig) -> Iterator[dict[str, Any]]:
    """Yield a record for each pattern of a preset, and one for all its layers."""
    height, width = config.grid_height, config.grid_width
    cells = {
        one: visible(one, height, width, kernel=config.kernel, edge=config.edge).sum(axis=1).mean() for one in SHOWN
    }
    dense = cells["dense"] + config.num_read
    for pattern in SHOWN:
        keys = cells[pattern] + config.num_read
        layers = config.patterns.count(pattern)
        yield _record(name, config, pattern, layers, cells[pattern], keys / dense)
    mean = sum(cells[one] for one in config.patterns) / config.depth
    yield _record(name, config, "all layers", config.depth, mean, (mean + config.num_read) / dense)


def _record(
    name: str, config: Dalle1TransformerConfig, pattern: str, layers: int, cells: float, share: float
) -> dict[str, Any]:
    return {
        "preset": name,
        "grid": f"{config.grid_height}x{config.grid_width}",
        "pattern": pattern,
        "layers": layers,
        "words seen": f"{cells:.1f}",
        "with the caption": f"{cells + config.num_read:.1f}",
        "of dense": f"{share:.2f}",
    }


def picture(side: int, depth: int) -> Image.Image:
    """Draw what one cell sees under each pattern, and below which layer has which.

    Args:
        side: of the grid, in cells.
        depth: layers.
    """
    panel, head = side * CELL + 1, TEXT + 10
    width = GAP + len(SHOWN) * (panel + GAP)
    strip = (width - 2 * GAP) / depth
    height = GAP + head + panel + GAP + head + CELL + 2 * GAP
    sheet = Image.new("RGB", (width, height), "white")
    pencil, font = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT)
    asking = (side * 5 // 8) * side + side * 3 // 8
    for place, pattern in enumerate(SHOWN):
        sees = visible(pattern, side, side)[asking]
        left, top = GAP + place * (panel + GAP), GAP
        pencil.text((left, top), f"{pattern}: {int(sees.sum())} words", fill=ASKING, font=font)
        for cell in range(side * side):
            row, column = divmod(cell, side)
            x, y = left + column * CELL, top + head + row * CELL
            fill = COLOURS[pattern] if sees[cell] else (DRAWN if cell < asking else LATER)
            pencil.rectangle((x, y, x + CELL, y + CELL), fill=ASKING if cell == asking else fill, outline=LINE)
    top = GAP + head + panel + GAP
    pencil.text((GAP, top), f"patterns of the {depth} layers, first to last", fill=ASKING, font=font)
    for layer, pattern in enumerate(layer_patterns(depth)):
        x = GAP + layer * strip
        pencil.rectangle((x, top + head, x + strip, top + head + CELL), fill=COLOURS[pattern], outline="white")
    return sheet


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Count, print, and draw if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", type=Path, help="also draw what a cell sees into this file")
    parser.add_argument("--side", type=int, default=16, help="of the grid in the picture, in cells")
    parser.add_argument("--depth", type=int, default=64, help="layers in the picture; the paper has 64")
    asked = parser.parse_args(arguments)
    assert set(SHOWN) == set(PATTERNS)
    rows = [row for name, config in DALLE1_PRESETS.items() for row in counted(name, config)]
    print(table(rows))
    if asked.picture:
        asked.picture.parent.mkdir(parents=True, exist_ok=True)
        picture(asked.side, asked.depth).quantize(16).save(asked.picture, optimize=True)
        print(asked.picture)
    return rows


if __name__ == "__main__":
    main()
