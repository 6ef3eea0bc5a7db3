"""DALL·E 1's transformer: what sparse attention saves in training, and what a word costs on a taller grid.

    python bench/autoregressive.py                   a few minutes on two cores
    python bench/autoregressive.py --shape tiny      seconds; what the tests run
    python bench/autoregressive.py --min-dalle CHECKOUT              words a second beside min-dalle's own loop
    python bench/autoregressive.py --dalle-pytorch CHECKOUT --needs FOLDER

Training: a step, forward and backward, of the paper's mix of layers beside the same weights with dense attention, at
32x32 words.  Decoding: one word near the end of a picture with a full cache, for a network of each pattern, on grids
of 16x32 and of 64x32 words: a row or a window has as many keys on either.

With the checkout of a peer only that is measured, in a process of its own, after outputs were compared; the scripts are
`measuring/beside_*.py`.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from measuring.clock import spread, take_turns, times
from measuring.peers import beside
from measuring.report import describe, is_busy, machine, table, write
from torch import Tensor

from opendalle.dalle1.patterns import PATTERNS
from opendalle.dalle1.transformer import Dalle1Transformer, Dalle1TransformerConfig, padded_text

FASTER, TALLER = 1.5, 1.1  # times faster a step shall be; times longer a word may take on the taller grid


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of what is measured."""

    widths: tuple[int, ...]  # of the networks that are trained; the last one decodes
    head_width: int
    depth: int
    num_text: int
    vocabulary: int  # of captions and of pictures
    side: int  # words of a row
    rows: int  # of the grid in training
    heights: tuple[int, int]  # of the two grids in decoding
    batch: int  # pictures a training step
    words: int  # decoded in a round


SHAPES: Mapping[str, Shape] = MappingProxyType(
    {
        "tiny": Shape(
            widths=(32,),
            head_width=16,
            depth=3,
            num_text=4,
            vocabulary=50,
            side=8,
            rows=8,
            heights=(4, 8),
            batch=1,
            words=8,
        ),
        "small": Shape(
            widths=(128, 256),  # the wider, the more of a step is spent outside attention
            head_width=32,
            depth=8,
            num_text=32,
            vocabulary=1024,
            side=32,
            rows=32,
            heights=(16, 64),
            batch=2,
            words=64,
        ),
    }
)


def network(shape: Shape, pattern: str, rows: int, width: int, seed: int = 0) -> Dalle1Transformer:
    """Build a network; the same seed gives the same weights under every pattern."""
    torch.manual_seed(seed)
    config = Dalle1TransformerConfig(
        text_vocabulary=shape.vocabulary,
        num_text=shape.num_text,
        picture_vocabulary=shape.vocabulary,
        grid_height=rows,
        grid_width=shape.side,
        width=width,
        depth=shape.depth,
        heads=width // shape.head_width,
        ties_embeddings=True,
        initialisation="gpt",
    )
    return Dalle1Transformer(replace(config, pattern=pattern))  # type: ignore[arg-type]


def captions(shape: Shape, rows: int) -> Tensor:
    """Draw captions that fill half of their places."""
    ids = torch.randint(shape.vocabulary, (rows, shape.num_text), generator=torch.Generator().manual_seed(1))
    return padded_text(ids, torch.full((rows,), shape.num_text // 2), shape.vocabulary)


def training(shape: Shape, width: int, repeats: int) -> dict[str, Any]:
    """Compare a training step under the paper's patterns with one under dense attention."""
    text, cells = captions(shape, shape.batch), shape.rows * shape.side
    tokens = torch.randint(shape.vocabulary, (shape.batch, cells), generator=torch.Generator().manual_seed(2))

    def step(net: Dalle1Transformer) -> Callable[[], Tensor]:
        def run() -> Tensor:
            net.zero_grad()
            logits = net(text, tokens)
            loss = torch.nn.functional.cross_entropy(logits.picture.flatten(0, 1), tokens.flatten())
            loss.backward()
            return loss.detach()

        return run

    nets = {pattern: network(shape, pattern, shape.rows, width) for pattern in ("dense", "paper")}
    laps, losses = take_turns({pattern: step(net) for pattern, net in nets.items()}, repeats)
    if not all(torch.isfinite(loss) for loss in losses.values()):
        raise SystemExit("a loss is not finite")
    return {
        "what": f"training step, {shape.rows}x{shape.side}, width {width}",
        "dense": spread(laps["dense"].wall),
        "sparse": spread(laps["paper"].wall),
        **times(laps["dense"], laps["paper"]),
    }


@torch.no_grad()
def decoding(shape: Shape, pattern: str, repeats: int) -> dict[str, Any]:
    """Compare a word's cost near the end of a picture on two grids of different height."""

    def words(rows: int) -> Callable[[], Tensor]:
        net = network(shape, pattern, rows, shape.widths[-1]).eval()
        cache = net.new_cache(1)
        rng = torch.Generator().manual_seed(3)
        for held in (cache.keys, cache.values):
            held.normal_(generator=rng)
        start = net.config.num_read + net.config.num_cells - shape.words - 1
        token = torch.zeros(1, 1, dtype=torch.long)

        def run() -> Tensor:
            cache.length = start
            logits = token
            for _ in range(shape.words):
                logits = net.advance(token, cache)
            return logits

        return run

    low, high = shape.heights
    laps, _ = take_turns({str(rows): words(rows) for rows in shape.heights}, repeats)
    of_word = {rows: [1000 * one / shape.words for one in lap.wall] for rows, lap in laps.items()}
    return {
        "what": f"a word, {pattern}",
        f"ms_{low}": spread(of_word[str(low)]),
        f"ms_{high}": spread(of_word[str(high)]),
        **times(laps[str(high)], laps[str(low)]),
    }


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Measure both, and print and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=tuple(SHAPES), default="small", help="sizes of the networks")
    parser.add_argument("--repeats", type=int, default=5, help="rounds, besides one to warm up")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--out", type=Path, help="folder of the JSON; default bench/results")
    parser.add_argument("--min-dalle", type=Path, help="checkout of a peer")
    parser.add_argument("--dalle-pytorch", type=Path, help="checkout of another")
    parser.add_argument("--needs", type=Path, help="folder with what DALLE-pytorch imports")
    asked, further = parser.parse_known_args(arguments)
    if asked.min_dalle or asked.dalle_pytorch:
        beside_peers(asked, further)
        return []
    if further:
        parser.error(f"unknown arguments {' '.join(further)}")
    torch.set_num_threads(asked.threads)
    shape, about = SHAPES[asked.shape], machine() | {"shape": asked.shape, "repeats": asked.repeats}
    print(f"{describe(about)}; shape {asked.shape}", flush=True)
    trained = [training(shape, width, asked.repeats) for width in shape.widths]
    print(table(trained))
    print(f"seconds a step, median (lowest .. highest); floor {FASTER} times faster", flush=True)
    decoded = [decoding(shape, pattern, asked.repeats) for pattern in PATTERNS]
    print(table(decoded))
    print(f"milliseconds a word; row and convolution at most {TALLER} times longer on the taller grid")
    if is_busy(about):
        print("the machine was busy: read times_cpu")
    rows = [*trained, *decoded]
    print(write(f"autoregressive-{asked.shape}", about, rows, asked.out).name)
    return rows


def beside_peers(asked: argparse.Namespace, further: Sequence[str]) -> None:
    """Measure beside each peer that was named; what this script does not know, such as `--sides 1 3`, is the peer's."""
    common = ["--threads", str(asked.threads), "--repeats", str(asked.repeats)]
    common += ["--out", str(asked.out)] if asked.out else []
    common += ["--shape", "tiny"] if asked.shape == "tiny" else []  # else each one's own
    if asked.min_dalle:
        beside("beside_min_dalle", asked.min_dalle, [*common, *further])
    if asked.dalle_pytorch:
        needs = ["--needs", str(asked.needs)] if asked.needs else []
        beside("beside_dalle_pytorch", asked.dalle_pytorch, [*common, *needs, *further])


if __name__ == "__main__":
    main()
