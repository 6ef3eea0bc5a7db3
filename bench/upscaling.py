"""How sharp and how true the cascade's two upsamplers are, beside plain enlargement, and the three stages side by side.

    python bench/upscaling.py --world world --sheet docs/edit/stages.png

Drawings that training never showed, vectors that are rendered at every size, are enlarged four times: from 64 px (as
they are, and as the codec gives them back, which is what the upsampler meets) and from 256 px.  Three numbers are told:

- dB: peak signal over error against the drawing at full size;
- edges: squared steps between neighbouring pixels, over the drawing's own; 1 is as sharp as the truth;
- specks: second differences where the drawing has none, of 255; 0 is as clean as the truth.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from measuring.report import describe, machine, table, write
from PIL import Image

import opendalle
from opendalle.base.axes import Pictures
from opendalle.base.rng import picture_generator
from opendalle.dalle2.pipeline import Dalle2
from opendalle.data.emoji.artwork import render_svg
from opendalle.data.emoji.vectors import VectorSet, VectorSetConfig
from opendalle.data.emoji.world import World
from opendalle.diffusion.grids import strided
from opendalle.pictures import composite, from_array, to_array
from opendalle.recipes.scales import shrink
from opendalle.upsampling.cascade import UpsamplerStage, enlarged

STEPS = (1, 2, 4, 8)
PROMPTS = ("a red apple", "a cat", "a rocket over a castle")


def drawings(world: World, size: int, count: int) -> Pictures:
    """Return drawings of held-out cells, evenly spaced, at a size."""
    cells = VectorSet(world, VectorSetConfig(split="heldout-cells")).cells
    chosen = [cells[k * (len(cells) // count)] for k in range(count)]
    vectors = world.vectors()
    rendered = [render_svg(vectors.svg(one.concept.hexcode, one.style), size, (0.0, 0.0, 1.0)) for one in chosen]
    return torch.from_numpy(np.stack([to_array(Image.fromarray(one)) for one in rendered]))


def scores(drawn: Pictures, truth: Pictures) -> dict[str, float]:
    """Measure pictures against the truth."""
    error = (drawn - truth).square().mean(dim=(1, 2, 3))
    bends, own = _bends(drawn), _bends(truth)
    reach = truth.shape[-1] // 64
    flat = F.max_pool2d(own.amax(dim=1, keepdim=True), 2 * reach + 1, 1, reach) < 4 / 127.5
    return {
        "dB": round(float((10 * torch.log10(4 / error)).mean()), 2),
        "edges": round(float(_steps(drawn) / _steps(truth)), 3),
        "specks": round(float((bends * flat).sum() / (flat.sum() * 3)) * 127.5, 2),
    }


def _steps(x: Pictures) -> torch.Tensor:
    x = x[:, :3]
    return x.diff(dim=3).square().mean() + x.diff(dim=2).square().mean()


def _bends(x: Pictures) -> torch.Tensor:
    x = x[:, :3]
    middle = x[..., 1:-1, 1:-1]
    around = x[..., :-2, 1:-1] + x[..., 2:, 1:-1] + x[..., 1:-1, :-2] + x[..., 1:-1, 2:]
    return (4 * middle - around).abs()


@torch.no_grad()
def measure(dalle: Dalle2, world: World, count: int) -> Iterator[dict[str, object]]:
    """Yield a record for plain enlargement and for each number of steps, of each stage."""
    codec = dalle.parts.codec
    for stage in dalle.cascade.stages:
        truth = drawings(world, stage.base * stage.factor, count)
        small = shrink(truth, stage.factor)
        given = {"the drawing": small}
        if stage.base == codec.picture_size:
            given["the codec's"] = codec.decode(codec.encode(small)).clamp(-1, 1)
        for name, pictures in given.items():
            about = {"stage": f"{stage.base} to {stage.base * stage.factor}", "from": name}
            yield {**about, "by": "bicubic", **scores(stage.upsampler.condition(pictures), truth)}
            for steps in STEPS:
                drawn = torch.cat([_drawn(stage, steps, pictures[k : k + 1], k) for k in range(count)])
                chosen = " (bundled)" if steps == len(stage.grid) else ""
                yield {**about, "by": f"{steps} steps{chosen}", **scores(drawn, truth)}


def _drawn(stage: UpsamplerStage, steps: int, picture: Pictures, seed: int) -> Pictures:
    once = replace(stage, grid=strided(stage.schedule.num_steps, steps))
    size = (picture.shape[2] * stage.factor, picture.shape[3] * stage.factor)
    return enlarged(picture, size, (once,), [picture_generator(seed)])


@torch.no_grad()
def stages_side_by_side(dalle: Dalle2, out: Path, side: int = 320) -> None:
    """Draw a few prompts at 64 and show, in a row each: 64, bicubic to 1024, 256, 1024."""
    sheet = Image.new("RGB", (4 * side, len(PROMPTS) * side), "white")
    for row, prompt in enumerate(PROMPTS):
        (sample,) = dalle.generate(prompt, seed=0, width=64, height=64, background="transparent")
        small = torch.from_numpy(to_array(sample.picture))[None]
        shown = [small, F.interpolate(small, size=(1024, 1024), mode="bicubic").clamp(-1, 1)]
        shown += [enlarged(small, (size, size), dalle.cascade.stages, [picture_generator(0)]) for size in (256, 1024)]
        for column, one in enumerate(shown):
            picture = composite(from_array(one[0].numpy()))
            how = Image.Resampling.NEAREST if picture.width < side else Image.Resampling.LANCZOS
            sheet.paste(picture.resize((side, side), how), (column * side, row * side))
    sheet.save(out, optimize=True)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", type=Path, required=True, help="an emoji world that keeps its vectors")
    parser.add_argument("--model", default="dalle2")
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--sheet", type=Path, help="also draw the three stages side by side")
    asked = parser.parse_args()
    dalle = opendalle.load(asked.model)
    if asked.sheet:
        stages_side_by_side(dalle, asked.sheet)
    about = machine()
    print(describe(about))
    records = list(measure(dalle, World(asked.world), asked.count))
    print(table(records))
    print(write("upscaling", about, records))


if __name__ == "__main__":
    main()
