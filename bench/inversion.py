"""How well a picture comes back from its own latent (z_i, x_T), against steps and refinements.

    python bench/inversion.py --world world --plot inversion.png

Squared error is measured against the codec's own reconstruction, which no decoder can better, at guidance 1.  Pictures
are the first drawings of a world's training split, or, without one, what the model draws of 20 captions with seeds 0 to
19.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import opendalle
from opendalle.base.request import Request
from opendalle.base.rng import picture_generator
from opendalle.dalle2.pipeline import Dalle2
from opendalle.data.emoji.dataset import EmojiSet, EmojiSetConfig
from opendalle.data.emoji.world import World
from opendalle.pictures import to_array
from opendalle.samplers.sample import last_state

WAYS = (
    (10, 0),
    (20, 0),
    (50, 0),
    (100, 0),
    (200, 0),
    (10, 1),
    (20, 1),
    (50, 1),
    (100, 1),
    (10, 3),
    (20, 3),
    (50, 3),
    (20, 9),
)
NOUNS = ("apple", "car", "castle", "rocket", "cat", "dog", "tree", "house", "fish", "star")


def pictures(dalle: Dalle2, world: Path | None, count: int) -> torch.Tensor:
    """Return pictures at the codec's size."""
    side = dalle.parts.codec.picture_size
    if world is None:
        prompts = [f"a {noun}{place}" for place in ("", " on a blue background") for noun in NOUNS][:count]
        drawn = dalle.generate_many(prompts, range(count), width=side, height=side, background="transparent")
        return torch.from_numpy(np.stack([to_array(one.picture) for one in drawn]))
    source = EmojiSet(World(world), EmojiSetConfig(size=side, kinds={"single": 0.6, "plain": 0.4}))
    stride = len(source) // count
    read = [source.read(k * stride, np.random.default_rng(k)).picture for k in range(count)]
    return torch.from_numpy(np.stack([to_array(Image.fromarray(np.asarray(one))) for one in read]))


def decibels(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Peak signal over error of each picture; values span 2."""
    return 10 * torch.log10(4 / (one - other).square().mean(dim=(1, 2, 3)).clamp_min(1e-12))


@torch.no_grad()
def measure(dalle: Dalle2, given: torch.Tensor) -> list[tuple[int, int, float, float, float, float]]:
    """Return (steps, refinements, mean dB to the codec's, least of them, dB to the pixels, seconds a picture)."""
    cascade, codec, rows = dalle.cascade, dalle.parts.codec, len(given)
    own = codec.decode(codec.encode(given)).clamp(-1, 1)
    z, said = cascade.embed(given), cascade.read([""] * rows)
    print(f"codec alone: {decibels(own, given).mean():.1f} dB to the pixels")
    found: list[tuple[int, int, float, float, float, float]] = []
    for steps, refinements in WAYS:
        began = time.perf_counter()
        request = Request(steps=steps, guidance=1.0)
        latent = cascade.invert(z, given, said, request, refinements)
        generators = [picture_generator(0)] * rows
        grid = last_state(cascade.denoise(latent, said, said, generators, request)).x_t
        rebuilt = codec.decode(grid).clamp(-1, 1)
        near, pixels = decibels(rebuilt, own), decibels(rebuilt, given)
        seconds = (time.perf_counter() - began) / rows
        found.append((steps, refinements, float(near.mean()), float(near.min()), float(pixels.mean()), seconds))
        print(
            f"{steps:4} steps, {refinements} refinements, {steps * (1 + refinements):4} calls: "
            f"{found[-1][2]:5.1f} dB to the codec's (least {found[-1][3]:5.1f}), {found[-1][4]:4.1f} to the pixels, "
            f"{seconds:.2f} s a picture",
            flush=True,
        )
    return found


def plot(found: list[tuple[int, int, float, float, float, float]], out: Path) -> None:
    """Draw error against calls, a line for each number of refinements."""
    import matplotlib  # pyright: ignore[reportMissingImports] - of the extra `train`

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt  # pyright: ignore[reportMissingImports]

    figure, axes = plt.subplots(figsize=(6, 3.6))
    for refinements in sorted({one[1] for one in found}):
        line = [one for one in found if one[1] == refinements]
        axes.plot([s * (1 + refinements) for s, *_ in line], [one[2] for one in line], "o-", label=f"{refinements}")
    axes.axhline(30, color="grey", linewidth=0.8)
    axes.set(xscale="log", xlabel="calls of the decoder", ylabel="dB to the codec's own reconstruction")
    axes.legend(title="refinements a step")
    figure.tight_layout()
    figure.savefig(out, dpi=110)


def main() -> None:
    """Measure, print, plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", type=Path)
    parser.add_argument("--model", default="dalle2")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--plot", type=Path)
    asked = parser.parse_args()
    dalle = opendalle.load(asked.model)
    found = measure(dalle, pictures(dalle, asked.world, asked.count))
    if asked.plot:
        plot(found, asked.plot)


if __name__ == "__main__":
    main()
