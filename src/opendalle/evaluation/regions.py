"""From a picture to its things: what is background, what is not, and which pixels hang together.  Plain numpy."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from opendalle.evaluation.colours import lab

BinaryMask = Bool[np.ndarray, "h w"]


@dataclass(frozen=True)
class Backdrop:
    """What lies behind the things."""

    rgb: tuple[int, int, int] | None  # None: transparent
    share: float  # of the border that is backdrop; low when things touch the edge or the backdrop is not plain


def backdrop(picture: UInt8[np.ndarray, "h w 4"], border: int, tolerance: float = 12.0) -> Backdrop:
    """Read the background off the border: its commonest colour, or transparency.

    Args:
        picture: RGBA, straight alpha.
        border: width of the border in pixels.
        tolerance: CIELAB distance within which a pixel still counts as background.
    """
    frame = np.ones(picture.shape[:2], dtype=bool)
    frame[border:-border, border:-border] = False
    edge = picture[frame]  # (n, 4)
    clear = edge[:, 3] < 128
    if clear.mean() > 0.5:
        return Backdrop(None, float(clear.mean()))
    colours = edge[~clear, :3]
    bins = (colours >> 4).astype(np.int64) @ np.array([256, 16, 1])
    commonest = colours[bins == np.bincount(bins).argmax()]
    mode = np.median(commonest, axis=0).round().astype(np.uint8)
    near = np.linalg.norm(lab(colours) - lab(mode), axis=1) <= tolerance
    return Backdrop((int(mode[0]), int(mode[1]), int(mode[2])), float(near.mean()))


def foreground(picture: UInt8[np.ndarray, "h w 4"], behind: Backdrop, tolerance: float = 12.0) -> BinaryMask:
    """Return where the picture is not background.

    Args:
        picture: RGBA, straight alpha.
        behind: its background.
        tolerance: CIELAB distance within which a pixel still counts as background.
    """
    if behind.rgb is None:
        return picture[..., 3] >= 128
    ground = lab(np.array(behind.rgb, dtype=np.uint8))
    return (np.linalg.norm(lab(picture[..., :3]) - ground, axis=2) > tolerance) & (picture[..., 3] >= 128)


def grow(mask: BinaryMask, steps: int) -> BinaryMask:
    """Add every pixel within `steps` king's moves of the mask."""
    for _ in range(steps):
        padded = np.pad(mask, 1)
        rows = padded[:-2] | padded[1:-1] | padded[2:]
        mask = rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:]
    return mask


def depth(mask: BinaryMask) -> Int[np.ndarray, "h w"]:
    """Return for each pixel how many king's moves lead out of the mask: 0 outside, 1 on the rim; the frame is out."""
    deep = np.zeros(mask.shape, dtype=np.int64)
    while mask.any():
        deep += mask
        mask = ~grow(~np.pad(mask, 1), 1)[1:-1, 1:-1]
    return deep


def label(mask: BinaryMask) -> tuple[Int[np.ndarray, "h w"], int]:
    """Number the connected parts of a mask from 1, eight neighbours a pixel, in reading order of their first pixel.

    Runs of pixels in each row are joined with the runs they touch in the row above (union-find), which needs one
    pass and a Python loop over runs instead of pixels.

    Args:
        mask: the pixels to number.

    Returns:
        The number of each pixel, 0 outside the mask, and how many parts there are.
    """
    parent: list[int] = []

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    runs: list[tuple[int, int, int]] = []  # row, first column, end column
    above: list[int] = []
    for row, line in enumerate(mask):
        edges = np.flatnonzero(np.diff(line.astype(np.int8), prepend=0, append=0)).tolist()
        here = []
        for first, end in zip(edges[::2], edges[1::2], strict=True):
            index = len(runs)
            runs.append((row, first, end))
            parent.append(index)
            here.append(index)
            for other in above:
                if runs[other][1] <= end and first <= runs[other][2]:  # touching, corners included
                    low, high = sorted((root(index), root(other)))
                    parent[high] = low
        above = here
    labels = np.zeros(mask.shape, dtype=np.int64)
    number_of_root: dict[int, int] = {}
    for index, (row, first, end) in enumerate(runs):
        labels[row, first:end] = number_of_root.setdefault(root(index), len(number_of_root) + 1)
    return labels, len(number_of_root)


def box_of(mask: BinaryMask) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom of a mask that is not empty; right and bottom are exclusive."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def parts(mask: BinaryMask, bridge: int, smallest: int) -> list[BinaryMask]:
    """Return the things of a foreground: parts closer than two bridges are one thing, specks are dropped.

    Args:
        mask: foreground.
        bridge: pixels that each part reaches out before parts are joined.
        smallest: least pixels of a thing.
    """
    labels, count = label(grow(mask, bridge))
    things = [mask & (labels == number) for number in range(1, count + 1)]
    return [thing for thing in things if thing.sum() >= smallest]


def split_at_waist(mask: BinaryMask, smallest: int) -> list[BinaryMask]:
    """Cut a thing at its narrowest waist, if it has one: two touching things look like that.

    The thing is peeled layer by layer; the first depth at which it falls into two or more large cores makes the
    cut, and every pixel goes to the core it is nearest to.

    Args:
        mask: one connected thing.
        smallest: least pixels of a resulting thing.

    Returns:
        The cut parts, or the thing itself when it has no waist.
    """
    deep = depth(mask)
    for level in range(1, int(deep.max())):
        labels, count = label(deep > level)
        cores = [labels == number for number in range(1, count + 1)]
        cores = [core for core in cores if core.sum() * 4 >= smallest]
        if len(cores) > 1:
            nearest = _nearest_core(mask, cores)
            pieces = [mask & (nearest == index) for index in range(len(cores))]
            return pieces if min(piece.sum() for piece in pieces) >= smallest else [mask]
    return [mask]


def _nearest_core(mask: BinaryMask, cores: list[BinaryMask]) -> Int[np.ndarray, "h w"]:
    """Give every pixel of the mask to the core that reaches it first when all grow inside the mask."""
    owner = np.full(mask.shape, -1)
    for index, core in enumerate(cores):
        owner[core] = index
    while (mask & (owner < 0)).any():
        before = owner.copy()
        for index in range(len(cores)):
            reached = grow(before == index, 1) & mask & (owner < 0)
            owner[reached] = index
        if (owner == before).all():
            break  # pixels cut off from every core stay nobody's
    return owner


def gap(first: tuple[int, int, int, int], second: tuple[int, int, int, int]) -> float:
    """Return the larger of the empty distances between two boxes across and down; 0 when they overlap."""
    across = max(first[0] - second[2], second[0] - first[2], 0)
    down = max(first[1] - second[3], second[1] - first[3], 0)
    return float(max(across, down))


def mean_colour(picture: UInt8[np.ndarray, "h w 4"], mask: BinaryMask) -> Float[np.ndarray, " 3"]:
    """Return the mean RGB under a mask, 0 to 255."""
    return picture[..., :3][mask].mean(axis=0)
