"""Which of the eleven basic colour words a pixel deserves, by nearness in CIELAB, where distance is what people see.

Basic colours are large, crooked regions, so each word has several anchors; a pixel takes the word of its nearest
anchor, and no word when another word's anchor is about as near.  The naming is independent of the one that writes
captions, as an examiner's should be.
"""

import numpy as np
from jaxtyping import Float, Int, UInt8

# sRGB anchors of each word: light, clear and dark members that most people would still call so.
_ANCHORS: dict[str, tuple[str, ...]] = {
    "red": ("e0302c", "b01818", "f8312f", "ff5050", "8c1010", "dd2e44"),
    "orange": ("f88c1c", "ff6f1e", "ffa030", "e07010", "f4900c"),
    "yellow": ("fdd634", "ffe066", "fcc010", "e8d020", "fff08a", "ffcc4d"),
    "green": ("3aa84e", "107030", "8cd060", "00a060", "a8e0a0", "5c913b", "78b159", "205020"),
    "blue": ("2c6ce0", "103080", "60a8f0", "00a0d8", "a0d4f8", "1a1a70", "40c8e0", "3b88c3", "0074ba"),
    "purple": ("8444be", "501878", "b080e8", "a030c0", "d0b8f0", "6838c0"),
    "pink": ("f688ba", "ffb8d0", "f03890", "ff90a8", "e060a0", "ffd0e0"),
    "brown": ("825230", "5a3418", "a06a3c", "6d4534", "8c5c3c", "c1694f", "9c6b50"),
    "black": ("1a1a1c", "000000", "202428", "2c2c30"),
    "white": ("ffffff", "f2f2f4", "e8eaec"),
    "grey": ("94969a", "c0c4c8", "606468", "b4b4b4", "99aab5", "4c5054"),
}
COLOUR_NAMES = tuple(_ANCHORS)
NO_COLOUR = -1  # abstained


def lab(rgb: UInt8[np.ndarray, "*shape 3"]) -> Float[np.ndarray, "*shape 3"]:
    """Convert sRGB to CIELAB under daylight (D65): L from 0 to 100, a and b about -100 to 100.

    Args:
        rgb: 0 to 255.

    Source: CIE 15:2004, section 8.2.1; sRGB transfer curve and matrix of IEC 61966-2-1.
    """
    levels = np.arange(256) / 255
    linear_of_byte = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    matrix = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    xyz = linear_of_byte[rgb] @ (matrix / matrix.sum(axis=1, keepdims=True)).T  # white becomes (1, 1, 1)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def _anchor_table() -> tuple[Float[np.ndarray, "m 3"], Int[np.ndarray, " m"]]:
    codes = [(index, code) for index, name in enumerate(COLOUR_NAMES) for code in _ANCHORS[name]]
    rgb = np.array([[int(code[at : at + 2], 16) for at in (0, 2, 4)] for _, code in codes], dtype=np.uint8)
    return lab(rgb), np.array([index for index, _ in codes])


_ANCHOR_LAB, _ANCHOR_NAME = _anchor_table()


def name_colours(rgb: UInt8[np.ndarray, "n 3"], abstain: float = 1.0) -> Int[np.ndarray, " n"]:
    """Name each colour: index into COLOUR_NAMES, or NO_COLOUR within the band between two words.

    Args:
        rgb: colours, 0 to 255.
        abstain: least lead of the nearest word over the next, in CIELAB units; 0 always answers.
    """
    apart = np.linalg.norm(lab(rgb)[:, None] - _ANCHOR_LAB[None], axis=2)  # (n, anchors)
    by_name = np.stack([apart[:, index == _ANCHOR_NAME].min(axis=1) for index in range(len(COLOUR_NAMES))], axis=1)
    nearest, second = np.partition(by_name, 1, axis=1)[:, :2].T
    return np.where(second - nearest >= abstain, by_name.argmin(axis=1), NO_COLOUR)


def colour_shares(rgb: UInt8[np.ndarray, "n 3"], abstain: float = 1.0) -> dict[str, float]:
    """Return the share of pixels that each word describes, largest first; words of no pixel are left out.

    Args:
        rgb: a thing's pixels, 0 to 255.
        abstain: as in `name_colours`.
    """
    if len(rgb) == 0:
        return {}
    named = name_colours(rgb, abstain)
    shares = np.bincount(named[named >= 0], minlength=len(COLOUR_NAMES)) / len(rgb)
    order = np.argsort(-shares, kind="stable")
    return {COLOUR_NAMES[index]: float(shares[index]) for index in order if shares[index] > 0}


def colour_name(rgb: tuple[int, int, int], abstain: float = 1.0) -> str | None:
    """Name one colour, or None within the band between two words."""
    index = int(name_colours(np.array([rgb], dtype=np.uint8), abstain)[0])
    return None if index == NO_COLOUR else COLOUR_NAMES[index]
