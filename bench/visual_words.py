"""What DALL·E 1's words are, and how a picture is written in them: the figures of docs/dalle1.md.

    python bench/visual_words.py --world world --reconstructions reconstructions.png --atlas atlas.png
    python bench/visual_words.py --growing growing.png --best-of best-of.png

- reconstructions: drawings that training never showed, evenly spaced, above what each codec gives back of them; all
  measured pictures together give decibels (of a peak of 2, with the alpha) and how many words were used;
- atlas: the words that these pictures use most, from dark to light; above as each is drawn among its like, below, in
  the same order, as it is drawn where it stands first in a picture;
- growing: pictures of fixed prompts, seed 0, after every row of words (grey: none yet), and when they are enlarged;
- best-of: the first seeds of fixed prompts, from best to worst by CLIP, and again by the model's own likelihood.

Codecs of numbers (`--codec codec-emoji`) may stand beside those of words: they show what words cost.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from measuring.report import table
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

import opendalle
from opendalle.base.axes import Pictures
from opendalle.base.request import Request
from opendalle.base.rng import picture_generator
from opendalle.clip.rerank import rerank
from opendalle.codec.codebook import perplexity_of
from opendalle.codec.likeness import psnr
from opendalle.codec.protocol import TokenCodec
from opendalle.dalle1.drawing import drawing, log_likelihood
from opendalle.dalle1.pipeline import Dalle1
from opendalle.data.emoji.dataset import EmojiSet, EmojiSetConfig
from opendalle.data.emoji.world import World
from opendalle.pictures import composite, contact_sheet, from_array, to_array

GROWING = ("a red apple", "a blue car", "三个苹果", "a rocket over a castle")
RANKED = ("a red apple", "a rocket over a castle")
UNDRAWN = (232, 232, 232)  # where no word is yet
SIDE, SHOWN = 128, 8  # of a shown picture, in pixels; pictures in a row
BATCH, TEXT, COLOURS = 64, 14, 255  # of the codec, pictures; of a label, pixels; of a sheet


def drawings(world: Path, size: int, count: int) -> Pictures:
    """Return pictures of the split that holds out drawings and combinations, evenly spaced."""
    source = EmojiSet(World(world), EmojiSetConfig(size=size, split="heldout-cells"))
    read = [source.read(k * len(source) // count, np.random.default_rng(k)).picture for k in range(count)]
    return torch.from_numpy(np.stack([to_array(Image.fromarray(np.asarray(one))) for one in read]))


def words_of(codec: TokenCodec, pictures: Pictures) -> Int[Tensor, "b h w"]:
    """Return the words of pictures."""
    return torch.cat([codec.encode_tokens(some) for some in pictures.split(BATCH)])


def decoded(codec: TokenCodec, tokens: Int[Tensor, "b h w"]) -> Pictures:
    """Return what words look like."""
    return torch.cat([codec.decode_tokens(some) for some in tokens.split(BATCH)]).clamp(-1, 1)


@torch.no_grad()
def reconstructions(codecs: Mapping[str, Any], pictures: Pictures, out: Path) -> Iterator[dict[str, Any]]:
    """Draw a few pictures above what each codec gives back, and yield what all of them tell of it."""
    shown = [k * len(pictures) // SHOWN for k in range(SHOWN)]
    rows = [pictures[shown]]
    for name, codec in codecs.items():
        record = {"codec": name, "pictures": len(pictures), "dB": None, "words": None, "used": None, "perplexity": None}
        if isinstance(codec, TokenCodec):
            tokens = words_of(codec, pictures)
            back = decoded(codec, tokens)
            counts = torch.bincount(tokens.flatten(), minlength=codec.vocabulary)
            used, alike = int((counts > 0).sum()), round(perplexity_of(counts.double()))
            record |= {"words": codec.vocabulary, "used": used, "perplexity": alike}
        else:
            back = torch.cat([codec.decode(codec.encode(some)) for some in pictures.split(BATCH)])
        rows.append(back[shown])
        record["dB"] = round(psnr(back, pictures), 2)
        yield record
    save([shown_at(one) for row in rows for one in row], SHOWN, out)


@torch.no_grad()
def atlas(codec: TokenCodec, pictures: Pictures, count: int, out: Path, magnified: int = 3) -> dict[str, Any]:
    """Draw the words that pictures use most twice in the same order: among their like, and where each stands first.

    Among its like: a square of three by three cells of the word in a picture with nothing on it, of which the middle
    one is shown.
    """
    tokens, factor = words_of(codec, pictures), codec.factor
    counts = torch.bincount(tokens.flatten(), minlength=codec.vocabulary)
    words = counts.argsort(descending=True, stable=True)[: min(count, int((counts > 0).sum()))]
    nothing = torch.full_like(pictures[:1], -1.0 if codec.picture_channels == 4 else 1.0)
    grids = codec.encode_tokens(nothing).repeat(len(words), 1, 1)
    middle = grids.shape[1] // 2
    grids[:, middle - 1 : middle + 2, middle - 1 : middle + 2] = words[:, None, None]
    cut = slice(middle * factor, (middle + 1) * factor)
    patches = on_white(decoded(codec, grids))[:, :, cut, cut]
    whole = on_white(decoded(codec, tokens)).unfold(2, factor, factor).unfold(3, factor, factor)
    first = torch.stack([whole.movedim(1, 3)[tuple((tokens == word).nonzero()[0])] for word in words])
    order, columns, side = laid_out(patches), columns_of(len(words)), factor * magnified
    panels = [
        [from_array(some[k].numpy()).resize((side, side), Image.Resampling.NEAREST) for k in order]
        for some in (patches, first)
    ]
    gap = [Image.new("RGB", (side, side), "white")] * (columns + -len(words) % columns)  # to the row's end, and a row
    save([*panels[0], *gap, *panels[1]], columns, out, gap=1)
    share = float(counts[words].sum() / counts.sum())
    return {"words": codec.vocabulary, "drawn": len(words), "share of all cells": round(share, 3)}


def laid_out(patches: Float[Tensor, "n c h w"]) -> list[int]:
    """Order patches for a sheet: rows from dark to light, in a row by hue; what has no colour stands first."""
    mean = (patches.mean(dim=(2, 3)) + 1) / 2
    lightness = mean @ mean.new_tensor((0.299, 0.587, 0.114))
    a, b = mean[:, 0] - mean[:, 1], (mean[:, 0] + mean[:, 1]) / 2 - mean[:, 2]  # red to green, yellow to blue
    hue = torch.atan2(b, a).where((a.square() + b.square()).sqrt() > 0.04, torch.tensor(-4.0))
    columns, order = columns_of(len(patches)), list[int]()
    for row in lightness.argsort(stable=True).split(columns):
        order += row[hue[row].argsort(stable=True)].tolist()
    return order


def columns_of(count: int) -> int:
    """Return how many columns make a panel about twice as wide as it is high."""
    return max(1, round((2 * count) ** 0.5))


def growing(dalle: Dalle1, prompts: Sequence[str], out: Path) -> None:
    """Draw prompts from seed 0, a column after every row of words, the last one enlarged."""
    rows, side, tiles = dalle.parts.transformer.config.grid_height, dalle.sizes[-1], list[Image.Image]()
    for prompt in prompts:
        for one in dalle.generate(prompt, width=side, height=side, previews=rows - 1, background="white"):
            tile, done = fitted(one.picture), one.step * rows // one.num_steps  # whole rows
            tile.paste(UNDRAWN, (0, done * SIDE // rows, SIDE, SIDE))
            tiles.append(tile)
    save(tiles, rows, out)


@torch.no_grad()
def best_of(dalle: Dalle1, prompts: Sequence[str], count: int, out: Path) -> Iterator[dict[str, Any]]:
    """Draw the first seeds of prompts from best to worst, by CLIP and by likelihood, and yield both orders."""
    words, network, tiles = dalle.words, dalle.parts.transformer, list[Image.Image]()
    for prompt in prompts:
        text, generators = words.read([prompt] * count), [picture_generator(seed) for seed in range(count)]
        wish = words.wish(Request(prompt=prompt), [prompt] * count)
        tokens = list(drawing(network, text, generators, wish))[-1].tokens
        small = words.decode(tokens)
        assert dalle.parts.clip is not None, "asked for before"
        ranking = rerank(dalle.parts.clip, words.as_clip_sees(small), *words.as_clip_reads(prompt))
        said, likely = log_likelihood(network, text, tokens).sum(dim=1).sort(descending=True, stable=True)
        drawn = words.upsample(small, dalle.sizes[-1], generators)
        for by, order, scores, form in (
            ("CLIP", list(ranking.order), ranking.scores, "CLIP {:.3f}"),
            ("likelihood", likely.tolist(), said.tolist(), "{:.0f} nats"),
        ):
            ranked = zip(order, scores, strict=True)
            tiles += [labelled(shown_at(drawn[seed]), form.format(score)) for seed, score in ranked]
            yield {"prompt": prompt, "by": by, "best": f"{scores[0]:.4g}", "worst": f"{scores[-1]:.4g}", "seeds": order}
    save(tiles, count, out)


def on_white(pictures: Pictures) -> Float[Tensor, "b 3 h w"]:
    """Lay pictures on white, if they have an alpha."""
    return pictures if pictures.shape[1] == 3 else pictures[:, :3] + 1 - pictures[:, 3:]


def shown_at(picture: Float[Tensor, "c h w"]) -> Image.Image:
    """Turn numbers into a picture for a sheet."""
    return fitted(from_array(picture.float().numpy()))


def fitted(picture: Image.Image) -> Image.Image:
    """Bring a picture to the size of a sheet's cells; small ones keep their pixels visible."""
    how = Image.Resampling.NEAREST if picture.width < SIDE else Image.Resampling.LANCZOS
    return composite(picture).resize((SIDE, SIDE), how)


def labelled(picture: Image.Image, label: str) -> Image.Image:
    """Write a line under a picture."""
    tile = Image.new("RGB", (picture.width, picture.height + TEXT + 6), "white")
    tile.paste(picture)
    middle = (picture.width // 2, picture.height + 2)
    ImageDraw.Draw(tile).text(middle, label, fill="#202020", font=ImageFont.load_default(TEXT), anchor="ma")
    return tile


def save(tiles: Sequence[Image.Image], columns: int, out: Path, gap: int = 4) -> None:
    """Lay tiles side by side and write them with a palette."""
    out.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(tiles, columns=columns, gap=gap).quantize(COLOURS).save(out, optimize=True)
    print(f"{out}, {out.stat().st_size / 1024:.0f} KiB", flush=True)


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Make every figure that is asked for, and print what there is to tell of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="dalle1", help="a DALL·E 1, or for the first two figures a codec of words")
    parser.add_argument("--codec", action="append", default=[], help="a codec to stand beside the model's, any number")
    parser.add_argument("--world", type=Path, help="an emoji world; the first two figures want it")
    parser.add_argument("--count", type=int, default=512, help="pictures of it that are measured")
    parser.add_argument("--words", type=int, default=512, help="of the atlas, at most")
    parser.add_argument("--candidates", type=int, default=SHOWN, help="of a prompt, to be ranked")
    for figure in ("reconstructions", "atlas", "growing", "best-of"):
        parser.add_argument(f"--{figure}", type=Path, metavar="PNG", help="where this figure goes")
    asked, records = parser.parse_args(arguments), list[dict[str, Any]]()
    if not (asked.reconstructions or asked.atlas or asked.growing or asked.best_of):
        parser.print_usage()
        return records
    if (asked.reconstructions or asked.atlas) and asked.world is None:
        parser.error("reconstructions and atlas want --world")
    dalle = opendalle.load(asked.model)
    codec = dalle.parts.codec if isinstance(dalle, Dalle1) else dalle
    if asked.reconstructions or asked.atlas:
        pictures = drawings(asked.world, codec.picture_size, asked.count)
        codecs = {Path(name).name: opendalle.load(name) for name in asked.codec}
        if asked.reconstructions:
            found = list(reconstructions({"its words": codec} | codecs, pictures, asked.reconstructions))
            print(table(found))
            records += found
        if asked.atlas:
            records.append(atlas(codec, pictures, asked.words, asked.atlas))
            print(table(records[-1:]))
    if asked.growing:
        growing(dalle, GROWING, asked.growing)
    if asked.best_of:
        found = list(best_of(dalle, RANKED, asked.candidates, asked.best_of))
        print(table(found))
        records += found
    return records


if __name__ == "__main__":
    main()
