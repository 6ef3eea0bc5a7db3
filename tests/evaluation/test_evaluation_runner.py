"""Whole examinations: a perfect artist passes, a careless one fails where it should, and everything is written down."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_fixture import STYLES, THINGS, ComparingJudge
from PIL import Image

from opendalle.base.errors import BadConfig, BadRequest
from opendalle.base.records import Sample
from opendalle.base.request import Request
from opendalle.data.emoji.compose import Composer
from opendalle.data.emoji.prompts import Prompt
from opendalle.data.emoji.truth import Thing, Truth
from opendalle.data.emoji.world import World
from opendalle.data.sets import Example
from opendalle.evaluation.drawing import Artist, BatchedPipeline, enlarge, tensor_of
from opendalle.evaluation.questions import Paper, emoji_paper
from opendalle.evaluation.runner import PROTOCOLS, RunnerConfig, evaluate, evaluate_set
from opendalle.evaluation.score import Score, table, write_results

APPLE, CAR, HOUSE, STAR = THINGS


class Painter:
    """A pipeline that looks its pictures up."""

    def __init__(self, pictures: dict[str, Any]) -> None:
        self.pictures, self.log = pictures, []

    def generate(self, prompt: str = "", *, hooks: Any = None, **asked: Any) -> Iterator[Sample]:
        request = Request(prompt=prompt, **asked)
        self.log.append((prompt, request.seed, request.width))
        yield Sample(
            picture=Image.new("RGB", (8, 8)), request=request, index=0, seed=0, step=1, num_steps=2, is_preview=True
        )
        picture = self.pictures[prompt](request.width)
        yield Sample(picture=picture, request=request, index=0, seed=request.seed, step=2, num_steps=2)


class BatchedPainter(Painter):
    def generate_many(self, prompts, seeds, **asked: Any) -> Iterator[Sample]:
        for prompt, seed in zip(prompts, seeds, strict=True):
            yield from self.generate(prompt, count=1, seed=seed, **asked)


def sprite(world: World, key: str, style: str):
    return lambda size: Image.fromarray(world.sprite(key, style, 256)).resize((size, size), Image.Resampling.BOX)


def render(world: World, truth: Truth):
    return lambda size: Image.fromarray(Composer(world, size).draw(truth))


@pytest.fixture(scope="module")
def paper() -> Paper:
    seen = [
        Prompt(prompt=f"{style} {key}", keys=(key,), style=style) for key in (APPLE, CAR, HOUSE) for style in STYLES
    ]
    left, right = Thing(key=APPLE, box=(2, 18, 28)), Thing(key=HOUSE, box=(34, 18, 28))
    two = Truth(kind="relation", style="3d", things=(left, right), relation="left", background="white")
    cars = tuple(Thing(key=CAR, box=(2 + 32 * (k % 2), 2 + 32 * (k // 2), 28)) for k in range(3))
    three = Truth(kind="count", style="3d", things=cars)
    scenes = [Prompt(prompt="two", keys=(APPLE, HOUSE), truth=two), Prompt(prompt="three", keys=(CAR,), truth=three)]
    return Paper(
        seen=seen,
        cells=[Prompt(prompt="flat star", keys=(STAR,), style="flat")],
        chinese=[Prompt(prompt="苹果", keys=(APPLE,), twin="3d " + APPLE)],
        paraphrases=[Prompt(prompt="orchard fruit", keys=(APPLE, CAR))],
        scenes=scenes,
        new_scenes=scenes[:1],
    )


@pytest.fixture(scope="module")
def perfect(world: World, paper: Paper) -> dict[str, Any]:
    pictures = {one.prompt: sprite(world, one.keys[0], one.style) for one in (*paper.seen, *paper.cells)}
    pictures |= {one.prompt: sprite(world, one.keys[0], "3d") for one in (*paper.chinese, *paper.paraphrases)}
    return pictures | {one.prompt: render(world, one.truth) for one in paper.scenes}


def test_a_perfect_artist_passes_everything(world, comparing_judge: ComparingJudge, paper, perfect, tmp_path: Path):
    run = evaluate(
        Painter(perfect),
        world=world,
        judge=comparing_judge,
        judge_256=comparing_judge,
        paper=paper,
        out=tmp_path / "out",
    )
    scores = {score.name: score for score in run}
    failed = [name for name, score in scores.items() if score.passed is False]
    # An enlargement of a perfect 64 px picture is as recognisable as the picture itself: no gain for the judge.
    assert set(failed) <= {"sharp/judge256-gain"}
    assert scores["seen/top1-share"].value == 1
    assert scores["seen/style"].value == 1
    assert scores["cells/beyond-retrieval"].value == 1  # the retriever can only show the star in the other style
    assert scores["chinese/behind-english"].value == 0
    assert scores["scenes/relation"].value == scores["scenes/relation-of-truth"].value == 1
    assert scores["rules/count-refused"].value == 1
    assert scores["sharp/gradient-gain"].low > 0
    assert scores["copying/share-judge"].value > 0.8  # it does copy
    saved = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in saved["scores"]] == list(scores)
    assert {path.name for path in (tmp_path / "out").glob("*.png")} >= {"seen.png", "scenes.png", "scenes-truth.png"}


def test_a_careless_artist_fails_where_it_should(world, comparing_judge: ComparingJudge, paper, perfect):
    careless = perfect | {one.prompt: sprite(world, STAR, "3d") for one in paper.seen}
    mirrored = lambda size: perfect["two"](size).transpose(Image.Transpose.FLIP_LEFT_RIGHT)  # noqa: E731
    careless |= {"two": mirrored}
    run = evaluate(
        Painter(careless),
        world=world,
        judge=comparing_judge,
        paper=paper,
        only=("seen", "scenes"),
        config=RunnerConfig(),
    )
    scores = {score.name: score for score in run}
    assert scores["seen/top1"].value == 0
    assert scores["seen/top1-share"].passed is False
    assert scores["scenes/objects"].value == 1
    assert scores["scenes/relation"].value == 0
    assert scores["scenes/relation-if-both"].value == 0
    assert scores["scenes/count"].value == 1


def test_seeds_are_the_first_in_order_and_no_prompt_is_drawn_twice(world, comparing_judge, paper, perfect):
    painter = Painter(perfect)
    list(evaluate(painter, world=world, judge=comparing_judge, paper=paper, only=("seen", "sharp", "copying")))
    assert painter.log == [(one.prompt, seed, size) for size in (64, 256) for seed, one in enumerate(paper.seen)]


def test_the_batched_door_gives_the_same_pictures(paper, perfect):
    prompts = [one.prompt for one in paper.seen]
    plain, batched = Painter(perfect), BatchedPainter(perfect)
    assert not isinstance(plain, BatchedPipeline)
    assert isinstance(batched, BatchedPipeline)
    one, many = (list(Artist(pipeline, steps=3).draw(prompts, 64)) for pipeline in (plain, batched))
    assert [a.tobytes() for a in one] == [b.tobytes() for b in many]
    assert plain.log == batched.log


def test_an_unknown_protocol_is_refused(world, comparing_judge, paper, perfect):
    with pytest.raises(BadRequest, match="seen"):
        next(evaluate(Painter(perfect), world=world, judge=comparing_judge, paper=paper, only=("beauty",)))
    assert set(PROTOCOLS) == {
        "rules",
        "seen",
        "cells",
        "chinese",
        "paraphrases",
        "scenes",
        "sharp",
        "copying",
        "zero-shot",
    }


def test_papers_are_checked():
    with pytest.raises(BadConfig, match="style"):
        Paper(cells=[Prompt(prompt="x", keys=("a",))])
    with pytest.raises(BadConfig, match="twin"):
        Paper(chinese=[Prompt(prompt="x", keys=("a",))])
    assert len(Paper(seen=[Prompt(prompt="x", keys=("a",))] * 5).first(2).seen) == 2


def test_the_emoji_paper_asks_every_protocol(world):
    paper = emoji_paper(world, num=3, num_scenes=2)
    assert len(paper.seen) == 3
    assert {one.keys[0] for one in paper.cells} == {STAR, CAR}
    assert {one.skill for one in paper.scenes} == {"background", "objects", "relation", "binding", "count", "size"}
    assert len(paper.new_scenes) == 6


class Folder:
    """Any captioned pictures: noise, of which the second half is kept back."""

    def __init__(self, seed: int) -> None:
        self.noise = np.random.default_rng(seed).integers(0, 256, (12, 48, 48, 4)).astype(np.uint8)

    def __len__(self) -> int:
        return len(self.noise)

    def read(self, index: int, rng: np.random.Generator) -> Example:
        return Example(picture=self.noise[index], caption=f"picture {index}")


def test_any_set_can_be_examined_without_a_judge(tmp_path: Path):
    train, held_out = Folder(0), Folder(1)
    copier = Painter(
        {f"picture {k}": lambda size, k=k: Image.fromarray(train.noise[k]).resize((size, size)) for k in range(12)}
    )
    scores = {
        score.name: score for score in evaluate_set(copier, train, held_out=held_out, num=12, size=48, out=tmp_path)
    }
    assert scores["set/coverage-random"].value == 1
    assert scores["set/gradient-energy"].value == pytest.approx(scores["set/gradient-energy-of-real"].value)
    assert scores["set/copying-ratio-random"].value < 0.01
    assert (tmp_path / "results.json").exists()
    assert (tmp_path / "set.png").exists()


def test_scores_know_their_floors():
    sure = Score(name="gain", value=0.2, low=-0.1, high=0.5, floor=0.0, of_low=True)
    assert sure.passed is False
    assert Score(name="gain", value=0.2, low=-0.1, high=0.5, floor=0.0).passed is True
    assert Score(name="shown", value=1.0).passed is None
    assert Score(name="broken", value=math.nan, floor=0.5).passed is False


def test_results_are_plain_json_and_a_plain_table(tmp_path: Path):
    scores = [
        Score(name="a/b", value=0.5, low=0.4, high=0.6, n=10, floor=0.7, note="why"),
        Score(name="c", value=math.nan),
    ]
    write_results(tmp_path / "results.json", scores, {"model": "x"})
    saved = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert saved["scores"][0]["passed"] is False
    assert saved["scores"][1]["value"] is None
    lines = table(scores).splitlines()
    assert lines[1].split() == ["LOW", "a/b", "0.500", "0.400", "..", "0.600", "10", "0.700", "why"]
    assert len(lines) == 3


def test_enlarging_keeps_transparent_edges_clean():
    picture = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    picture.paste((255, 255, 255, 255), (0, 0, 4, 8))
    large = np.asarray(enlarge([picture], 32)[0])
    assert large[large[..., 3] > 20][:, :3].min() > 245  # no black from nothing creeps in
    assert tensor_of([picture], 16).shape == (1, 3, 16, 16)
