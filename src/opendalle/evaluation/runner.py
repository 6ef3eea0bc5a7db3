"""The examination: every protocol of the report in order, one score after another.

    for score in evaluate(pipeline, world=world, judge=judge, paper=paper, out=folder):
        print(score.name, score.value)

Question i of a protocol is drawn from seed i; nothing is drawn twice and nothing is left out.  With `out`, results
(`results.json`, `results.txt`) and sheets of the first pictures are written after each protocol, so that a run cut
short keeps what it has.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from opendalle.base.errors import BadRequest, require
from opendalle.base.protocols import LikelihoodProbe, Pipeline
from opendalle.data.emoji.prompts import Prompt
from opendalle.data.emoji.world import World
from opendalle.data.sets import PictureSet
from opendalle.evaluation import choosing, names, scenes
from opendalle.evaluation.distribution import copying, density_coverage, kid, random_features
from opendalle.evaluation.drawing import Artist, enlarge, tensor_of
from opendalle.evaluation.judge import Judge
from opendalle.evaluation.judge_batches import scene_vocabulary
from opendalle.evaluation.metrics import bootstrap_mean
from opendalle.evaluation.pixels import gradient_energy
from opendalle.evaluation.questions import Paper
from opendalle.evaluation.score import Score, score_of, table, write_results
from opendalle.pictures import contact_sheet

JUDGED_SIZE = 64  # side in pixels at which names are judged
SHARP_SIZE = 256  # side in pixels at which sharpness is


@dataclass(frozen=True, kw_only=True)
class RunnerConfig:
    """How an examination is held."""

    scene_size: int = 64  # side in pixels at which scenes are drawn and marked
    sheet: int = 48  # pictures on a contact sheet, the first ones of the protocol
    sharp: int = 300  # seen names drawn again at 256 px

    def __post_init__(self) -> None:
        require(self.scene_size >= 32, f"scene_size is {self.scene_size}", "32 or more")
        require(self.sheet >= 1 and self.sharp >= 0, f"sheet {self.sheet}, sharp {self.sharp}", ">= 1 and >= 0")


@dataclass
class _Desk:
    """What the protocols share: who is examined, who judges, and what has been drawn so far."""

    artist: Artist
    world: World
    judge: Judge
    judge_256: Judge | None
    paper: Paper
    config: RunnerConfig
    out: Path | None
    drawn: dict[str, list[Image.Image]] = field(default_factory=dict)

    def draw(self, name: str, prompts: Sequence[str], size: int) -> list[Image.Image]:
        """Draw a list of prompts once and show the first of them on a sheet."""
        if name not in self.drawn:
            self.drawn[name] = list(self.artist.draw(prompts, size))
            if self.out is not None:
                contact_sheet(self.drawn[name][: self.config.sheet], columns=8).save(self.out / f"{name}.png")
        return self.drawn[name]

    def answers(self, name: str, questions: Sequence[Prompt]) -> names.Answers:
        """Have a protocol's questions drawn and judged."""
        pictures = self.draw(name, [question.prompt for question in questions], JUDGED_SIZE)
        return names.judged(questions, pictures, self.judge)

    def real(self, questions: Sequence[Prompt]) -> names.Answers:
        """Have the artwork of a protocol's questions judged."""
        return names.judged(questions, names.real_pictures(questions, self.world), self.judge)


def _rules(desk: _Desk) -> Iterator[Score]:
    truths = scenes.truths_of([*desk.paper.scenes, *desk.paper.new_scenes])
    if truths:
        vocabulary = scene_vocabulary(desk.world)
        yield from scenes.validate_rules(truths, desk.world, desk.judge, vocabulary, desk.config.scene_size)


def _seen(desk: _Desk) -> Iterator[Score]:
    questions = desk.paper.seen
    if questions:
        yield from names.seen_names(desk.answers("seen", questions), desk.real(questions))


def _cells(desk: _Desk) -> Iterator[Score]:
    questions = desk.paper.cells
    if questions:
        yield from names.held_out_cells(desk.answers("cells", questions), desk.real(questions), desk.world)


def _chinese(desk: _Desk) -> Iterator[Score]:
    questions = desk.paper.chinese
    if questions:
        twins = desk.draw("chinese-twins", [question.twin or "" for question in questions], JUDGED_SIZE)
        english = names.judged(questions, twins, desk.judge)
        yield from names.chinese_twins(desk.answers("chinese", questions), english)


def _paraphrases(desk: _Desk) -> Iterator[Score]:
    if desk.paper.paraphrases:
        yield from names.paraphrased(desk.answers("paraphrases", desk.paper.paraphrases))


def _scenes(desk: _Desk) -> Iterator[Score]:
    paper, size, vocabulary = desk.paper, desk.config.scene_size, scene_vocabulary(desk.world)

    def marked(name: str, questions: Sequence[Prompt]) -> list[scenes.Mark]:
        pictures = desk.draw(name, [question.prompt for question in questions], size)
        return scenes.marks(scenes.truths_of(questions), scenes.detections(pictures, desk.judge, vocabulary))

    if not paper.scenes:
        return
    truths = scenes.truths_of(paper.scenes)
    renders = scenes.truth_renders(truths, desk.world, size)
    if desk.out is not None:
        contact_sheet(renders[: desk.config.sheet], columns=8).save(desk.out / "scenes-truth.png")
    ours = marked("scenes", paper.scenes)
    yield from scenes.scene_scores(ours, scenes.marks(truths, scenes.detections(renders, desk.judge, vocabulary)))
    if paper.new_scenes:
        yield from scenes.new_scene_scores(marked("new-scenes", paper.new_scenes), ours)


def _sharp(desk: _Desk) -> Iterator[Score]:
    questions = desk.paper.seen[: desk.config.sharp]
    if not questions:
        return
    prompts = [question.prompt for question in questions]
    small = desk.draw("seen", [question.prompt for question in desk.paper.seen], JUDGED_SIZE)[: len(questions)]
    enlarged = enlarge(small, SHARP_SIZE)
    drawn = desk.draw("seen-256", prompts, SHARP_SIZE)
    if desk.out is not None:
        pairs = [picture for pair in zip(enlarged[:8], drawn[:8], strict=True) for picture in pair]
        contact_sheet(pairs, columns=4).save(desk.out / "bicubic-beside-ours.png")
    yield from names.sharpness(drawn, enlarged, questions, desk.judge_256)


def _copying(desk: _Desk) -> Iterator[Score]:
    if desk.paper.seen:
        yield from names.memorisation(desk.answers("seen", desk.paper.seen), desk.world)


def _zero_shot(desk: _Desk) -> Iterator[Score]:
    pipeline, questions = desk.artist.pipeline, desk.paper.choices
    if questions and isinstance(pipeline, LikelihoodProbe):  # a model that says no likelihoods has no such rows
        yield from choosing.zero_shot(pipeline, questions, desk.world)


_PROTOCOLS: dict[str, Callable[[_Desk], Iterator[Score]]] = {
    "rules": _rules,
    "seen": _seen,
    "cells": _cells,
    "chinese": _chinese,
    "paraphrases": _paraphrases,
    "scenes": _scenes,
    "sharp": _sharp,
    "copying": _copying,
    "zero-shot": _zero_shot,
}
PROTOCOLS = tuple(_PROTOCOLS)


def evaluate(
    pipeline: Pipeline,
    *,
    world: World,
    judge: Judge,
    paper: Paper,
    judge_256: Judge | None = None,
    only: Sequence[str] = PROTOCOLS,
    out: Path | None = None,
    config: RunnerConfig | None = None,
    **asked: Any,
) -> Iterator[Score]:
    """Examine a generation on the emoji world.

    Args:
        pipeline: what is examined; one with `generate_many` is asked for many pictures at once.
        world: the artwork.
        judge: the classifier at 64 px.
        paper: the questions.
        judge_256: the classifier at 256 px; None leaves its rows out.
        only: protocols to hold, some of PROTOCOLS.
        out: folder for results and contact sheets; made if missing.  None writes nothing.
        config: sizes and counts.
        asked: further fields of `Request` for every picture, as steps or guidance.

    Raises:
        BadRequest: when a protocol does not exist.
    """
    unknown = [name for name in only if name not in _PROTOCOLS]
    if unknown:
        raise BadRequest(f"the protocol {unknown[0]!r}", "some of " + ", ".join(PROTOCOLS))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    desk = _Desk(Artist(pipeline, **asked), world, judge, judge_256, paper, config or RunnerConfig(), out)
    scores: list[Score] = []
    for name in only:
        for score in _PROTOCOLS[name](desk):
            scores.append(score)
            yield score
        if out is not None:
            _write(
                out, scores, {"world": world.stamp, "protocols": list(only), "asked": asked, "seeds": "0, 1, 2, ..."}
            )


def evaluate_set(
    pipeline: Pipeline,
    pictures: PictureSet,
    *,
    num: int = 200,
    held_out: PictureSet | None = None,
    size: int = JUDGED_SIZE,
    out: Path | None = None,
    **asked: Any,
) -> Iterator[Score]:
    """Examine a generation on any captioned pictures, where no judge knows the classes.

    What can be said without one: whether drawings lie where the pictures lie (KID, density, coverage), are as sharp,
    and are not copies.  Features come from a network with random weights.

    Args:
        pipeline: what is examined.
        pictures: the set; its first `num` captions are drawn.
        num: how many, at most.
        held_out: pictures that training never saw; without them the copying ratio is left out.
        size: side in pixels at which pictures are drawn and compared.
        out: folder for results and a contact sheet; None writes nothing.
        asked: further fields of `Request`.
    """
    examples = [pictures.read(index, np.random.default_rng(index)) for index in range(min(num, len(pictures)))]
    real = tensor_of([_sized(example.picture, size) for example in examples])
    prompts = [example.caption for example in examples]
    drawn_pictures = list(Artist(pipeline, **asked).draw(prompts, size))
    drawn, rng = tensor_of(drawn_pictures, size), np.random.default_rng(len(examples))
    features, reference = random_features(drawn), random_features(real)
    scores = [score_of("set/KID-random", kid(features, reference, rng), note="0 is alike; features of random weights")]
    if len(features) > 5:
        spread = density_coverage(features, reference)
        scores.append(Score(name="set/density-random", value=spread.density, n=len(features), note="k = 5; 1 is alike"))
        scores.append(
            Score(name="set/coverage-random", value=spread.coverage, n=len(features), note="k = 5; 1 is best")
        )
    for name, values in (("", drawn), ("-of-real", real)):
        scores.append(score_of(f"set/gradient-energy{name}", bootstrap_mean(gradient_energy(values).numpy(), rng)))
    if held_out is not None:
        unseen = [held_out.read(index, np.random.default_rng(index)) for index in range(min(num, len(held_out)))]
        others = random_features(tensor_of([_sized(example.picture, size) for example in unseen]))
        result = copying(features, reference, others, rng)
        scores.append(score_of("set/copying-ratio-random", result.ratio, note="1 is drawing, 0 copying"))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        contact_sheet(drawn_pictures[:48], columns=8).save(out / "set.png")
        _write(out, scores, {"pictures": len(examples), "asked": asked, "seeds": "0, 1, 2, ..."})
    yield from scores


def _sized(picture: np.ndarray, size: int) -> Image.Image:
    """Bring a straight-alpha picture to a square, premultiplied meanwhile so that edges keep their colour."""
    image = Image.fromarray(picture)
    if image.size == (size, size):
        return image
    return image.convert("RGBa").resize((size, size), Image.Resampling.BICUBIC).convert("RGBA")


def _write(out: Path, scores: Sequence[Score], about: dict[str, Any]) -> None:
    write_results(out / "results.json", scores, about)
    (out / "results.txt").write_text(table(scores) + "\n", encoding="utf-8")
