"""A codec's own decoder beside a consistency decoder: likeness, names, written words, time.

    python bench/consistency.py --world world --decoder consistency-emoji

Names: artwork of seen names goes through the codec, and the judge says what it sees.  Words: of a sign with a word on
it, the word is read that, written on the same sign, lies nearest to what came back; no network reads.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from measuring.report import describe, machine, table, write
from PIL import Image
from torch import Tensor

from opendalle import pretrained
from opendalle.base.axes import Pictures
from opendalle.codec.consistency import ConsistencyCodec
from opendalle.codec.protocol import Codec
from opendalle.data.emoji.colours import COLOUR_NAMES
from opendalle.data.emoji.compose import Composer
from opendalle.data.emoji.prompts import seen_names
from opendalle.data.emoji.signs import WORDS
from opendalle.data.emoji.truth import GRID, Thing, Truth
from opendalle.data.emoji.world import World
from opendalle.evaluation.names import judged, real_pictures
from opendalle.evaluation.pixels import psnr
from opendalle.pictures import composite, from_array, to_array


def signs(count: int) -> list[Truth]:
    """Make signs: words and colours in turn, so that none is picked."""
    colours = [COLOUR_NAMES[k % len(COLOUR_NAMES)] for k in range(count)]
    things = [
        Thing(key="sign", box=(0, 0, GRID), colour=colour, word=WORDS[k % len(WORDS)])
        for k, colour in enumerate(colours)
    ]
    return [Truth(kind="sign", style="flat", things=(thing,)) for thing in things]


def tensor_of(pictures: Sequence[Image.Image]) -> Pictures:
    """Turn pictures into what codecs see."""
    return torch.from_numpy(np.stack([to_array(one) for one in pictures]))


@torch.no_grad()
def rebuilt(codec: Codec, grids: Float[Tensor, "n g hg wg"], batch: int) -> tuple[Pictures, float]:
    """Draw grids; return the pictures, and seconds of processor time a picture."""
    began = time.process_time()
    drawn = torch.cat([codec.decode(part) for part in grids.split(batch)])
    return drawn, (time.process_time() - began) / len(grids)


def words_read(drawn: Pictures, truths: Sequence[Truth], composer: Composer) -> list[bool]:
    """Say of each sign whether its own word is the nearest."""
    right = []
    for picture, truth in zip(drawn, truths, strict=True):
        thing = truth.things[0]
        written = [replace(truth, things=(replace(thing, word=word),)) for word in WORDS]
        known = tensor_of([Image.fromarray(composer.draw(one)) for one in written])
        nearest = int((known - picture).square().flatten(1).sum(1).argmin())
        right.append(WORDS[nearest] == thing.word)
    return right


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", type=Path, required=True, help="folder of the emoji world")
    parser.add_argument("--decoder", required=True, help="made by `python -m opendalle.recipes.consistency_decoder`")
    parser.add_argument("--judge", default="judge", help="bundled judge or its folder")
    parser.add_argument("--num", type=int, default=100, help="names, and as many signs")
    parser.add_argument("--batch", type=int, default=16, help="pictures drawn at once")
    parser.add_argument("--threads", type=int, default=0, help="of torch")
    parser.add_argument("--out", type=Path, help="folder of the JSON; default bench/results")
    asked = parser.parse_args(arguments)
    if asked.threads:
        torch.set_num_threads(asked.threads)
    ours, judge, world = pretrained.load(asked.decoder), pretrained.load(asked.judge), World(asked.world)
    if not isinstance(ours, ConsistencyCodec):
        print(f"{asked.decoder} names no codec whose grids it draws", file=sys.stderr)
        return 2
    questions, truths, composer = seen_names(world, asked.num), signs(asked.num), Composer(world, GRID)
    artwork = tensor_of(real_pictures(questions, world))
    boards = tensor_of([Image.fromarray(composer.draw(truth)) for truth in truths])
    grids = [torch.cat([ours.encode(part) for part in one.split(asked.batch)]) for one in (artwork, boards)]
    about, rows = machine() | {"pictures": asked.num}, list[dict[str, Any]]()
    print(describe(about), flush=True)
    for name, codec in (("its own", ours.codec), ("consistency", ours)):
        (things, seconds), (words, _) = (rebuilt(codec, one, asked.batch) for one in grids)
        hits = judged(questions, [composite(from_array(one.numpy())) for one in things], judge).hits(1)
        rows.append(
            {
                "decoder": name,
                "PSNR": psnr(things, artwork).mean().item(),
                "PSNR of signs": psnr(words, boards).mean().item(),
                "named": float(hits.mean()),
                "words read": float(np.mean(words_read(words, truths, composer))),
                "cpu_s": seconds,
            }
        )
    print(table(rows))
    print(write("consistency", about, rows, asked.out).name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
