"""Do pictures with transparency keep it when they are changed, and are their edges clean?

    python bench/stickers.py --world world

The first drawings of a world's training split are varied (eta 0, which rebuilds them), blended (with themselves, which
ought to change nothing) and edited (their lower half is drawn anew).  Two numbers are told of each:

- overlap: intersection over union of what is opaque, with the drawing's own alpha;
- border: mean difference of colour near the edge of the drawing, of 255, when both lie on white, black and green: a
  fringe of foreign colour shows on one of the three.

Beside them stand the same numbers of the codec and the upsampler alone, which no decoder can better.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from measuring.report import describe, machine, table, write
from PIL import Image, ImageFilter

import opendalle
from opendalle.base.rng import picture_generator
from opendalle.dalle2.pipeline import Dalle2
from opendalle.data.emoji.dataset import EmojiSet, EmojiSetConfig
from opendalle.data.emoji.world import World
from opendalle.evaluation.metrics import bootstrap_mean
from opendalle.pictures import composite, contact_sheet, from_array, resize, to_array

GROUNDS = ((255, 255, 255), (0, 0, 0), (0, 177, 64))
REACH = 4  # pixels on both sides of the edge that count as its border, at 256
OPAQUE = 128  # of 255
GREY = (128, 128, 128)  # behind the pictures of a sheet


def drawings(world: Path, size: int, count: int) -> Iterator[tuple[Image.Image, str]]:
    """Yield drawings of the world with true alpha, and their captions, evenly spaced over the split."""
    source = EmojiSet(World(world), EmojiSetConfig(size=size, kinds={"single": 1.0}))
    for k in range(count):
        example = source.read(k * (len(source) // count), np.random.default_rng(k))
        yield Image.fromarray(np.asarray(example.picture)), example.caption


def overlap(one: Image.Image, truth: Image.Image) -> float:
    """Return intersection over union of what is opaque."""
    a, b = (np.asarray(picture)[..., 3] >= OPAQUE for picture in (one, truth))
    return float((a & b).sum() / max(1, (a | b).sum()))


def border(one: Image.Image, truth: Image.Image) -> float:
    """Return the mean difference near the true edge on three grounds, of 255."""
    alpha = truth.getchannel("A").point([255 * (value >= OPAQUE) for value in range(256)])
    kernel = 2 * REACH + 1
    widened, narrowed = (
        np.asarray(alpha.filter(way(kernel))) for way in (ImageFilter.MaxFilter, ImageFilter.MinFilter)
    )
    near = (widened > 0) & (narrowed < 255)
    if not near.any():
        return 0.0
    return float(np.mean([np.abs(_on(one, ground) - _on(truth, ground))[near].mean() for ground in GROUNDS]))


def _on(picture: Image.Image, ground: tuple[int, int, int]) -> Float[np.ndarray, "h w 3"]:
    return np.asarray(composite(picture, ground)).astype(np.float64)


@torch.no_grad()
def through_codec(dalle: Dalle2, truth: Image.Image) -> Image.Image:
    """Return what codec and upsampler make of a drawing."""
    codec = dalle.parts.codec
    small = torch.from_numpy(to_array(resize(truth, codec.picture_size, codec.picture_size)))[None]
    rebuilt = codec.decode(codec.encode(small)).clamp(-1, 1)
    if truth.width > codec.picture_size:
        rebuilt = dalle.cascade.upsample(rebuilt, [picture_generator(0)])
    return from_array(rebuilt[0].numpy())


def changed(dalle: Dalle2, truth: Image.Image, caption: str) -> Iterator[tuple[str, Image.Image]]:
    """Yield what the verbs make of a drawing, with their names."""
    side = truth.width
    asked = {"background": "transparent", "seed": 0}
    yield "codec and upsampler alone", through_codec(dalle, truth)
    (sample,) = dalle.vary(truth, eta=0.0, width=side, height=side, **asked)
    yield "varied, eta 0", sample.picture
    (sample,) = dalle.vary(truth, caption, eta=0.0, width=side, height=side, **asked)
    yield "varied, eta 0, caption told", sample.picture
    (sample,) = dalle.blend(truth, truth, width=side, height=side, **asked)
    yield "blended with itself", sample.picture
    (sample,) = dalle.edit(truth, caption, box=f"0,{side // 2},{side},{side // 2}", **asked)
    yield "edited, lower half", sample.picture


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", type=Path, required=True)
    parser.add_argument("--model", default="dalle2")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--sheet", type=Path, help="also write the pictures, on grey, into this file")
    asked = parser.parse_args()
    dalle = opendalle.load(asked.model)
    found: dict[str, list[tuple[float, float]]] = {}
    rows: list[list[Image.Image]] = []
    for truth, caption in drawings(asked.world, asked.size, asked.count):
        shown = [truth]
        for name, picture in changed(dalle, truth, caption):
            found.setdefault(name, []).append((overlap(picture, truth), border(picture, truth)))
            shown.append(picture)
        rows.append(shown)
    about = machine()
    print(describe(about))
    records = [_record(name, np.array(numbers)) for name, numbers in found.items()]
    print(table(records))
    print(write("stickers", about, records))
    if asked.sheet:
        small = [picture.resize((128, 128)) for row in rows for picture in row]
        contact_sheet(small, columns=len(rows[0]), gap=0, background=GREY).save(asked.sheet)


def _record(name: str, numbers: Float[np.ndarray, "n 2"]) -> dict[str, object]:
    overlaps, borders = (bootstrap_mean(numbers[:, column], np.random.default_rng(0)) for column in range(2))
    return {
        "picture": name,
        "overlap": round(overlaps.value, 3),
        "interval": f"{overlaps.low:.3f} .. {overlaps.high:.3f}",
        "border": round(borders.value, 1),
        "of 255": f"{borders.low:.1f} .. {borders.high:.1f}",
    }


if __name__ == "__main__":
    main()
