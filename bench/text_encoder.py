"""What a text encoder has learned, beside one with random weights and beside CLIP's text tower.

    python bench/text_encoder.py --world world --encoder text-emoji

Each is asked for one unit vector a sentence: the mean of its states, or CLIP's own vector.

- translation: of a Chinese sentence the nearest English one among all; natural phrases, and scenes said twice;
- colour, count: a ridge regression on half of the sentences reads a scene's colour, or its number, off the other half's
  vectors; English alone, and again trained on English and asked in Chinese.

An encoder whose tokens' states are good and whose mean is not would score low here and still serve a denoiser; so this
is a floor of what it knows, not all of it.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from measuring.report import table
from torch import Tensor

from opendalle.checkpoint.folder import read_model
from opendalle.checkpoint.places import find_model
from opendalle.dalle3.reading import CaptionReader
from opendalle.dalle3.sentences import pooled
from opendalle.dalle3.text_encoder import TextEncoder
from opendalle.data.emoji.captions import CaptionConfig, write_caption
from opendalle.data.emoji.colours import COLOUR_NAMES
from opendalle.data.emoji.lexicon import Lexicon
from opendalle.data.emoji.prompts import chinese_twins
from opendalle.data.emoji.scenes import SceneMaker
from opendalle.data.emoji.truth import Truth
from opendalle.data.emoji.world import World
from opendalle.pretrained.texts import load_reader
from opendalle.recipes.sentence_texts import Teacher

CONTEXT, RIDGE, TOGETHER = 256, 1e-2, 64

Embed = Callable[[Sequence[str]], Tensor]  # sentences -> unit vectors


def reading(reader: CaptionReader) -> Embed:
    """Return the mean states of sentences."""
    return lambda sentences: torch.cat(
        [pooled(reader.read(sentences[first : first + TOGETHER])) for first in range(0, len(sentences), TOGETHER)]
    )


def found(questions: Float[Tensor, "b e"], answers: Float[Tensor, "b e"]) -> float:
    """Return how often the nearest answer is the one of the same row, in percent."""
    centred = [one - one.mean(dim=0) for one in (questions, answers)]  # what all sentences of a language share
    nearest = (torch.nn.functional.normalize(centred[0]) @ torch.nn.functional.normalize(centred[1]).T).argmax(dim=1)
    return 100 * (nearest == torch.arange(len(questions))).float().mean().item()


def read_off(known: Tensor, kinds: Int[Tensor, " b"], asked: Tensor, wanted: Int[Tensor, " b"]) -> float:
    """Return how often a ridge regression from vectors to kinds is right about others, in percent."""
    mean = known.mean(dim=0)
    targets = torch.nn.functional.one_hot(kinds, int(max(kinds.max(), wanted.max())) + 1).double()
    centred = (known - mean).double()
    gram = centred.T @ centred + RIDGE * len(known) * torch.eye(known.shape[1]).double() * centred.var(dim=0).mean()
    weights = torch.linalg.solve(gram, centred.T @ (targets - targets.mean(dim=0)))
    scores = (asked - asked.mean(dim=0)).double() @ weights + targets.mean(dim=0)
    return 100 * (scores.argmax(dim=1) == wanted).float().mean().item()


def said(truths: Sequence[Truth], lexicon: Lexicon, language: str) -> list[str]:
    """Say scenes in one language, in one short phrase each, as no two languages share a word of."""
    config = CaptionConfig(voices={"short": 1.0}, languages={language: 1.0}, style_named=0.0, transparent_named=0.0)
    return [write_caption(truth, lexicon, config, np.random.default_rng(k)) for k, truth in enumerate(truths)]


def scores(embed: Embed, world: World, count: int) -> dict[str, float]:
    """Ask one encoder everything."""
    lexicon = Lexicon(world)
    maker = SceneMaker(world, lexicon, styles=world.styles, with_background=0.0)
    twins = {one.twin: one.prompt for one in chinese_twins(world) if one.twin}
    record = {"phrases zh>en": found(embed([*twins.values()]), embed([*twins]))}
    scenes = {
        kind: [maker.make(kind, np.random.default_rng([k])) for k in range(count)]
        for kind in ("colours", "count", "colour")
    }
    distinct = {said([truth], lexicon, "en")[0]: truth for truth in scenes["colours"]}
    both = [embed(said([*distinct.values()], lexicon, language)) for language in ("zh", "en")]
    record["scenes zh>en"] = found(*both)
    half = count // 2
    for name, kinds in (
        ("colour", torch.tensor([COLOUR_NAMES.index(one.things[0].colour or "") for one in scenes["colour"]])),
        ("count", torch.tensor([len(one.things) for one in scenes["count"]])),
    ):
        english, chinese = (embed(said(scenes[name], lexicon, language)) for language in ("en", "zh"))
        record[f"{name} en"] = read_off(english[:half], kinds[:half], english[half:], kinds[half:])
        record[f"{name} en>zh"] = read_off(english[:half], kinds[:half], chinese[half:], kinds[half:])
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", type=Path, default=Path("world"), help="made by `opendalle data emoji`")
    parser.add_argument("--encoder", type=Path, action="append", default=[], help="a text encoder; as often as wanted")
    parser.add_argument("--clip", type=Path, default=Path("clip-emoji"), help="the CLIP that stands beside them")
    parser.add_argument("--count", type=int, default=600, help="scenes of each kind")
    asked = parser.parse_args()
    world = World(asked.world)
    named: dict[str, Embed] = {"CLIP's text tower": Teacher(read_model(find_model(asked.clip)).path)}
    for place in asked.encoder:
        reader = load_reader(place, CONTEXT)
        torch.manual_seed(0)
        random = TextEncoder(reader.encoder.config).eval()
        named["random weights"] = reading(CaptionReader(random, reader.tokenizer, context=CONTEXT))
        named[place.name] = reading(reader)
    rows = [{"encoder": name, **scores(embed, world, asked.count)} for name, embed in named.items()]
    print(table(rows))


if __name__ == "__main__":
    main()
