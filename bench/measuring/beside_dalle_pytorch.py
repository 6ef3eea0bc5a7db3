"""DALL·E 1's transformer beside DALLE-pytorch's at equal size: a training step, and words near a picture's end.

Equal are width, depth, heads, vocabularies, the caption's and the picture's length, the loss and, with our feed-forward
layers widened to what their gated ones hold, the number of weights.  The networks are not the same function, so their
outputs cannot be compared; instead each side's words with a cache are compared with its own without.

Decoding is theirs at its best: `forward` with a cache, one pass a word.  (Its `generate_images` drops the cache without
guidance, and under guidance runs both passes on one cache.)  Its sparse layers are then masks over dense ones, the
kind that knows a cache.
"""

import argparse
import sys
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from measuring.clock import spread, take_turns, times
from measuring.peers import Anything, import_from, require_equal
from measuring.report import describe, is_busy, machine, table, write
from opendalle.dalle1.drawing import CaptionLogits
from opendalle.dalle1.transformer import Dalle1Transformer, Dalle1TransformerConfig

PAPER_LIKE = ("axial_row", "axial_col", "axial_row", "axial_row")  # the nearest of theirs to the paper's mix
KINDS = {"dense": ("full",), "paper": PAPER_LIKE}  # our pattern -> their layers
NEEDED = ("axial_positional_embedding", "rotary_embedding_torch")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of what is measured."""

    width: int
    depth: int
    heads: int
    num_text: int  # caption tokens
    vocabulary: int  # of captions and of pictures
    side: int  # words of a row, and rows
    batch: int  # pictures a training step
    words: int  # decoded in a turn


SHAPES = {
    "tiny": Shape(width=48, depth=2, heads=2, num_text=6, vocabulary=50, side=8, batch=2, words=8),
    "small": Shape(width=256, depth=8, heads=8, num_text=32, vocabulary=1024, side=32, batch=2, words=32),
}


def our_network(shape: Shape, pattern: str) -> Dalle1Transformer:
    """Build ours, with feed-forward layers of 12 width^2 weights, as theirs are."""
    torch.manual_seed(0)
    config = Dalle1TransformerConfig(
        text_vocabulary=shape.vocabulary,
        num_text=shape.num_text,
        picture_vocabulary=shape.vocabulary,
        grid_height=shape.side,
        grid_width=shape.side,
        width=shape.width,
        depth=shape.depth,
        heads=shape.heads,
        mlp_ratio=6.0,
        ties_embeddings=True,
        initialisation="gpt",
    )
    return Dalle1Transformer(replace(config, pattern=pattern))  # type: ignore[arg-type]


def their_network(package: Any, shape: Shape, pattern: str, *, decodes: bool) -> Any:
    """Build theirs; the picture's autoencoder only tells it sizes."""
    torch.manual_seed(0)
    codec = package.DiscreteVAE(image_size=2 * shape.side, num_layers=1, num_tokens=shape.vocabulary, hidden_dim=4)
    return package.DALLE(
        dim=shape.width,
        vae=codec,
        num_text_tokens=shape.vocabulary,
        text_seq_len=shape.num_text,
        depth=shape.depth,
        heads=shape.heads,
        dim_head=shape.width // shape.heads,
        attn_types=KINDS[pattern],
        shift_tokens=False,  # with it, words after several that were read at once are others with a cache than without
        share_input_output_emb=True,
        optimize_for_inference=decodes,
    )


def sizes(network: torch.nn.Module) -> int:
    """Count the weights that are trained."""
    return sum(weight.numel() for name, weight in network.named_parameters() if not name.startswith("vae."))


def examples(shape: Shape) -> tuple[Tensor, Tensor]:
    """Draw captions that fill their places, and words."""
    rng = torch.Generator().manual_seed(1)
    text = torch.randint(1, shape.vocabulary, (shape.batch, shape.num_text), generator=rng)
    return text, torch.randint(shape.vocabulary, (shape.batch, shape.side**2), generator=rng)


def training(package: Any, shape: Shape, pattern: str, repeats: int) -> dict[str, Any]:
    """Compare a training step, forward and backward, with the paper's loss."""
    text, words = examples(shape)
    theirs, ours = their_network(package, shape, pattern, decodes=False), our_network(shape, pattern)

    def their_loss() -> Tensor:
        return theirs(text.clone(), words, return_loss=True)

    def our_loss() -> Tensor:
        said = ours(text, words)
        of_picture = F.cross_entropy(said.picture.mT, words)
        return (F.cross_entropy(said.text.mT, text) + 7 * of_picture) / 8

    def step(network: torch.nn.Module, loss: Callable[[], Tensor]) -> Callable[[], Tensor]:
        def run() -> Tensor:
            network.zero_grad()
            lost = loss()
            lost.backward()
            return lost.detach()

        return run

    laps, losses = take_turns({"theirs": step(theirs, their_loss), "ours": step(ours, our_loss)}, repeats)
    if not all(torch.isfinite(loss) for loss in losses.values()):
        raise SystemExit("a loss is not finite")
    return _row(f"training step, {pattern}", laps, 1, sizes(theirs), sizes(ours))


@torch.no_grad()
def decoding(package: Any, shape: Shape, pattern: str, repeats: int) -> dict[str, Any]:
    """Compare the last words of a picture, one pass a word, each side from a cache that is filled up to there."""
    text, words = (one[:1] for one in examples(shape))
    begin = shape.side**2 - shape.words
    theirs = their_network(package, shape, pattern, decodes=True).eval()
    ours = our_network(shape, pattern).eval()
    for weight in ours.parameters():  # its read-out begins tied to tiny embeddings; give it something to say
        weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(2)), alpha=0.02)

    filled: dict[str, Any] = {}
    theirs(text.clone(), words[:, :begin], cache=filled)

    def their_words() -> Tensor:
        cache = {key: deque(one) if isinstance(one, deque) else one for key, one in filled.items()}
        said = [theirs(text.clone(), words[:, : begin + k], cache=cache) for k in range(1, shape.words)]
        return torch.cat(said, dim=1)[..., theirs.num_text_tokens :]

    logits = CaptionLogits(ours, text)
    kept = logits.new_cache()
    logits(words[:, :begin], kept)
    length = kept.length

    def our_words() -> Tensor:
        kept.rewind(length)
        return torch.stack([logits(words[:, : begin + k], kept) for k in range(1, shape.words)], dim=1)

    whole = theirs(text.clone(), words)[:, -shape.words + 1 :, theirs.num_text_tokens :]
    require_equal(f"their {pattern} words with a cache and without", whole, their_words())
    whole = ours(text, words).picture[:, begin + 1 :]
    require_equal(f"our {pattern} words with a cache and without", whole, our_words())
    laps, _ = take_turns({"theirs": their_words, "ours": our_words}, repeats)
    return _row(f"a word, {pattern}", laps, shape.words - 1, sizes(theirs), sizes(ours))


def _row(what: str, laps: Mapping[str, Any], parts: int, theirs: int, ours: int) -> dict[str, Any]:
    row: dict[str, Any] = {"what": what, "threads": torch.get_num_threads()}
    row |= {"their_weights_m": theirs / 1e6, "our_weights_m": ours / 1e6}
    for name, lap in laps.items():
        row[f"{name}_wall_ms"] = spread([1000 * seconds / parts for seconds in lap.wall])
    return row | times(laps["theirs"], laps["ours"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="checkout of DALLE-pytorch")
    parser.add_argument("--shape", choices=tuple(SHAPES), default="small", help="sizes of the networks")
    parser.add_argument("--repeats", type=int, default=5, help="turns, besides one to warm up")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--needs", type=Path, help=f"folder where pip put {' and '.join(NEEDED)}")
    parser.add_argument("--out", type=Path, help="folder of the JSON; default bench/results")
    asked = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    if asked.needs:
        sys.path.append(str(asked.needs))
    torch.set_num_threads(asked.threads)
    about = machine() | {"shape": asked.shape, "repeats": asked.repeats}
    print(f"{describe(about)}; shape {asked.shape}", flush=True)
    codecs = {"dalle_pytorch.vae": Anything("dalle_pytorch.vae")}  # published autoencoders, and their downloads
    package = import_from(asked.path, "dalle_pytorch.dalle_pytorch", ("pkg_resources",), codecs)
    rows = []
    for measured in (training, decoding):
        rows += [measured(package, SHAPES[asked.shape], pattern, asked.repeats) for pattern in KINDS]
    print(table(rows))
    if is_busy(about):
        print("the machine was busy: read times_cpu")
    print(write(f"dalle-pytorch-{asked.shape}-{asked.threads}", about, rows, asked.out).name)


if __name__ == "__main__":
    main()
