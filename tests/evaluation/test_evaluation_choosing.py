"""Zero-shot by likelihood: who knows the pictures chooses rightly, and what is wrong beforehand is taken off."""

from collections import Counter
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_fixture import STYLES, THINGS

from opendalle.base.protocols import LikelihoodProbe, PairLikelihood
from opendalle.dalle1.parts import Dalle1Config
from opendalle.dalle1.pipeline import Dalle1
from opendalle.data.emoji.fixture import build_fixture
from opendalle.data.emoji.lexicon import Lexicon, article
from opendalle.data.emoji.prompts import Prompt
from opendalle.data.emoji.world import World
from opendalle.evaluation.choosing import asked, squares, zero_shot
from opendalle.evaluation.questions import Paper, emoji_paper
from opendalle.evaluation.runner import evaluate

PLAIN = {"2B50": 50.0}  # a picture that is likely after any caption
RARE = {"1F697": -5.0}  # other names are likelier beforehand


class Reader:
    """Knows every picture of the world by heart: 3 nats for its own name, and what is wrong beforehand."""

    def __init__(self, world: World, knows: float = 3.0) -> None:
        self.key_of = {world.sprite(key, style).tobytes(): key for key in THINGS for style in STYLES}
        self.called = {key: article(Lexicon(world).names(key, "en")[0]) for key in THINGS}
        self.knows, self.num_asked = knows, 0

    def generate(self, prompt="", *, hooks=None, **wishes):
        yield from ()

    def log_likelihood(self, captions, pictures) -> PairLikelihood:
        (picture,) = pictures
        key, self.num_asked = self.key_of[np.asarray(picture).tobytes()], self.num_asked + len(captions)
        said = [PLAIN.get(key, 0.0) + self.knows * (caption == self.called[key]) for caption in captions]
        rare = {self.called[key]: nats for key, nats in RARE.items()}
        beforehand = [rare.get(caption, 0.0) for caption in captions]
        return PairLikelihood(text=torch.tensor(beforehand), picture=torch.tensor(said))


@pytest.fixture(scope="module")
def questions() -> list[Prompt]:
    return [Prompt(prompt=f"{style} {key}", keys=(key,), style=style) for style in STYLES for key in THINGS]


def test_who_knows_chooses_rightly_and_what_is_wrong_beforehand_is_taken_off(world, questions):
    reader = Reader(world)
    assert isinstance(reader, LikelihoodProbe)
    scores = {score.name.removeprefix("zero-shot/"): score for score in zero_shot(reader, questions, world, 4)}
    assert scores["caption-top1"].value == scores["picture-top1"].value == 1.0
    assert scores["caption-top1"].n == 8  # two squares of four
    assert scores["caption-top1-joint"].value == 0.75  # the car's name is too rare
    assert scores["picture-top1-plain"].value == 0.25  # every caption likes the star
    assert scores["caption-top5"].value == 1.0
    assert scores["chance"].value == 0.25
    assert not any("clip" in name for name in scores)
    assert reader.num_asked == 2 * 4 * (4 + 1)


def test_who_knows_nothing_has_no_luck(world, questions):
    scores = {score.name: score.value for score in zero_shot(Reader(world, 0.0), questions, world, 4)}
    assert scores["zero-shot/caption-top1"] == scores["zero-shot/picture-top1"] == 0.0  # ties count against


def test_squares_hold_different_things_and_nothing_twice(tmp_path):
    for _ in build_fixture(tmp_path / "fixture"):
        pass
    world = World(tmp_path / "fixture")
    lone = [Prompt(prompt=one.hexcode, keys=(one.hexcode,), style=s) for s in world.styles for one in world.concepts]
    laid = squares(lone, world, 7)
    assert {len(one.captions) for one in laid} == {7}
    assert len(laid) >= len(lone) // 7 - 3
    for one in laid:
        assert len(set(one.captions)) == 7
    assert max(Counter(caption for one in laid for caption in one.captions).values()) <= len(world.styles)
    few = squares(lone[:3], world, 7)
    assert [len(one.captions) for one in few] == [3]
    twins = [Prompt(prompt="x", keys=(lone[0].keys[0], lone[1].keys[0])), lone[1], lone[2]]
    assert [len(one.captions) for one in squares(twins, world, 7)] == [2]  # two of one kind never stand together
    assert squares(lone[:1], world) == []
    assert squares([], world) == []


def test_only_a_model_of_likelihoods_has_such_rows(world, comparing_judge, questions, tmp_path):
    paper, held = Paper(choices=questions), {"world": world, "judge": comparing_judge, "only": ("zero-shot",)}
    assert [one.prompt for one in paper.first(3).choices] == [one.prompt for one in questions[:3]]
    rows = list(evaluate(Reader(world), paper=paper, out=tmp_path / "out", **held))
    assert rows[0].name == "zero-shot/caption-top1"
    assert "zero-shot/picture-top1" in (tmp_path / "out/results.txt").read_text()

    class Draws:
        def generate(self, prompt="", *, hooks=None, **wishes):
            yield from ()

    assert list(evaluate(Draws(), paper=paper, **held)) == []
    assert list(evaluate(Reader(world), paper=Paper(), **held)) == []
    assert {one.keys[0] for one in emoji_paper(world, num=3).choices} == {"2B50", "1F697"}


def test_a_square_is_asked_pair_by_pair(world, questions):
    spec = spec_from_file_location("tiny_dalle1", Path(__file__).parents[1] / "dalle1/conftest.py")
    assert spec is not None
    assert spec.loader is not None
    tiny = module_from_spec(spec)
    spec.loader.exec_module(tiny)
    dalle = Dalle1(tiny.tiny_parts(), Dalle1Config())
    (square,) = squares(questions[:3], world)
    found = asked(dalle, square)
    assert found.clip is not None
    for row, picture in enumerate(square.pictures):
        for column, caption in enumerate(square.captions):
            alone = dalle.log_likelihood([caption], [picture])
            assert found.likelihood[row, column] == pytest.approx(float(alone.picture[0]), rel=1e-4)
            assert found.caption[column] == pytest.approx(float(alone.text[0]), rel=1e-4)
            likeness = float((dalle.embed(picture) * dalle.encode_text([caption])).sum())
            assert found.clip[row, column] == pytest.approx(likeness, abs=1e-4)
        assert found.picture[row] == pytest.approx(float(dalle.log_likelihood([""], [picture]).picture[0]), rel=1e-4)
    names = [score.name for score in zero_shot(dalle, questions[:3], world)]
    assert "zero-shot/caption-top1-of-clip" in names
    assert "zero-shot/picture-beyond-clip" in names
