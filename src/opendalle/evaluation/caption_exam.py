"""The captioner's examination: it is shown pictures of which everything is known, and what it writes is marked.

    for score in examine_captioner(captioner, world=world):
        print(score.name, score.value)

Scenes are drawn from real artwork, seen combinations and held-out ones; lone things are those of (concept, style) cells
that training never showed.  Picture i of a list comes from seed i, and the first ones count.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from opendalle.base.errors import require
from opendalle.base.protocols import WritesCaptions
from opendalle.data.emoji.compose import Composer
from opendalle.data.emoji.dataset import EmojiSet, EmojiSetConfig
from opendalle.data.emoji.descriptions import description
from opendalle.data.emoji.holdout import HoldoutConfig
from opendalle.data.emoji.lexicon import Lexicon
from opendalle.data.emoji.prompts import held_out_cells
from opendalle.data.emoji.scenes import held_out_combination
from opendalle.data.emoji.truth import GRID, SCENE_KINDS, Thing, Truth
from opendalle.data.emoji.world import World
from opendalle.data.loading import network_pictures
from opendalle.evaluation.caption_names import FLOOR, NameMarker, name_scores
from opendalle.evaluation.caption_reading import ClaimReader
from opendalle.evaluation.caption_statistics import statistics
from opendalle.evaluation.caption_truth import marks_of, shuffled, tally, truth_scores, weakness_scores
from opendalle.evaluation.score import Score, score_of, table, write_results
from opendalle.pictures import resize

ASKED_KINDS = ("plain", *SCENE_KINDS)  # of pictures with something to tell
TRUE_FLOOR = 1.0  # of every skill in the world's own words: below it the reader, not the captioner, is measured


@dataclass(frozen=True, kw_only=True)
class CaptionExamConfig:
    """How a captioner is examined."""

    num_names: int = 300  # lone things, at most
    num_scenes: int = 100  # of each kind of scene
    languages: tuple[str, ...] = ("en", "zh")  # that it is asked to write in
    batch: int = 32  # pictures shown together
    decoding: object = None  # as the captioner takes it; None: its best

    def __post_init__(self) -> None:
        require(self.num_names >= 1 and self.num_scenes >= 1, f"{self.num_names} and {self.num_scenes}", "at least 1")
        require(set(self.languages) <= {"en", "zh"}, f"languages {', '.join(self.languages)}", "en, zh")
        require(self.batch >= 1, f"batches of {self.batch}", "at least 1")


@dataclass
class _Room:
    """What the parts of the examination share."""

    captioner: WritesCaptions
    world: World
    lexicon: Lexicon
    config: CaptionExamConfig
    out: Path | None

    def captions(self, truths: Sequence[Truth], kind: str, language: str, name: str) -> list[str]:
        """Show pictures of truths to the captioner; with `out`, keep what it writes."""
        size, written = self.captioner.picture_size, list[str]()
        composer = Composer(self.world, size if size in (64, 128, 256) else 256)
        for start in range(0, len(truths), self.config.batch):
            drawn = [composer.draw(truth) for truth in truths[start : start + self.config.batch]]
            written += self._look(np.stack(drawn), kind, language, start)
        if self.out is not None:
            rows = zip(truths, written, strict=True)
            lines = [json.dumps({"caption": text, "truth": one.record()}, ensure_ascii=False) for one, text in rows]
            (self.out / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return written

    def _look(self, drawn: np.ndarray, kind: str, language: str, start: int) -> list[str]:
        size = self.captioner.picture_size
        if drawn.shape[1] != size:
            drawn = np.stack([np.asarray(resize(Image.fromarray(one), size, size)) for one in drawn])
        pictures = torch.from_numpy(network_pictures(drawn, self.captioner.picture_channels))
        with torch.inference_mode():
            told = self.captioner.caption_many(
                pictures,
                kind=kind,
                language=language,
                decoding=self.config.decoding,
                seeds=list(range(start, start + len(drawn))),
            )
        return [one.text for one in told]


def scenes_of(world: World, num: int, *, held_out: bool) -> list[Truth]:
    """Return scenes of every kind.

    Args:
        world: an open world folder.
        num: of each kind.
        held_out: scenes that show a combination which training never showed, instead of ones that show none.
    """
    truths = list[Truth]()
    for number, kind in enumerate(ASKED_KINDS):
        split = "heldout-cells" if held_out else "train"
        pictures = EmojiSet(world, EmojiSetConfig(split=split, styles=world.styles, kinds={kind: 1.0}))
        for row in range(num):
            rng = np.random.default_rng([number, row, int(held_out)])
            truth = pictures.truth(int(rng.integers(len(pictures))), rng)
            if not held_out or held_out_combination(truth, HoldoutConfig(**world.manifest["holdout"])):
                truths.append(truth)
    return truths


def examine_captioner(
    captioner: WritesCaptions, *, world: World, config: CaptionExamConfig | None = None, out: Path | None = None
) -> Iterator[Score]:
    """Examine a captioner on the emoji world.

    Args:
        captioner: who is examined.
        world: the artwork.
        config: how many pictures, which languages.
        out: folder for results and all captions; made if missing.  None writes nothing.
    """
    config = config or CaptionExamConfig()
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    room, scores = _Room(captioner, world, Lexicon(world), config, out), list[Score]()
    for part in (_reader_scores, _scene_scores, _name_scores):
        for score in part(room):
            scores.append(score)
            yield score
        if out is not None:
            write_results(out / "results.json", scores, {"world": world.stamp, "seeds": "0, 1, 2, ..."})
            (out / "results.txt").write_text(table(scores) + "\n", encoding="utf-8")


def _reader_scores(room: _Room) -> Iterator[Score]:
    """Examine the examiner: in the world's own words every scene must be told, and nothing else."""
    truths = scenes_of(room.world, room.config.num_scenes, held_out=False)
    reader = ClaimReader(room.lexicon)
    for language in room.config.languages:
        texts = [description(one, room.lexicon, language, np.random.default_rng(row)) for row, one in enumerate(truths)]
        marks = marks_of(truths, texts, reader, room.lexicon)
        for skill, interval in tally(marks).items():
            yield score_of(f"reader/{language}/{skill}", interval, floor=TRUE_FLOOR, note="in the world's own words")


def _scene_scores(room: _Room) -> Iterator[Score]:
    reader = ClaimReader(room.lexicon)
    seen, new = (scenes_of(room.world, room.config.num_scenes, held_out=held_out) for held_out in (False, True))
    for language in room.config.languages:
        texts = room.captions(seen, "descriptive", language, f"scenes-{language}")
        marks = marks_of(seen, texts, reader, room.lexicon)
        others = marks_of(seen, shuffled(seen, texts), reader, room.lexicon)
        yield from truth_scores(f"scenes/{language}", marks, others)
        yield from weakness_scores(f"weakness/{language}", marks)
        yield from statistics(texts, f"statistics/{language}/descriptive")
        if new:
            told = marks_of(new, room.captions(new, "descriptive", language, f"new-{language}"), reader, room.lexicon)
            for skill, interval in tally(told).items():
                yield score_of(f"new-scenes/{language}/{skill}", interval, note="held-out combinations")


def _name_scores(room: _Room) -> Iterator[Score]:
    marker = NameMarker(room.lexicon)
    cells = held_out_cells(room.world, room.config.num_names)
    truths = [
        Truth(kind="single", style=cell.style or "", things=(Thing(key=cell.keys[0], box=(0, 0, GRID)),))
        for cell in cells
    ]
    for language in room.config.languages:
        for kind in ("short", "descriptive"):
            texts = room.captions(truths, kind, language, f"names-{language}-{kind}")
            prefix = f"names/{language}/{kind}"
            yield from name_scores(prefix, texts, [cell.keys for cell in cells], marker, floor=FLOOR)
            if kind == "short":
                yield from statistics(texts, f"statistics/{language}/{kind}")
