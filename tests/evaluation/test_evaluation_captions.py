"""Reading captions, marking them against the truth, and the captioner's examination."""

import itertools
import json

import numpy as np
import pytest
import torch

from opendalle.base.errors import BadData
from opendalle.data.emoji.captions import VOICES, CaptionConfig, write_caption
from opendalle.data.emoji.compose import Composer
from opendalle.data.emoji.descriptions import description, subject
from opendalle.data.emoji.lexicon import Lexicon
from opendalle.data.emoji.prompts import held_out_cells
from opendalle.data.emoji.truth import GRID, Thing, Truth
from opendalle.data.emoji.world import World
from opendalle.data.loading import network_pictures
from opendalle.evaluation.caption_exam import CaptionExamConfig, examine_captioner, scenes_of
from opendalle.evaluation.caption_names import NameMarker, name_scores
from opendalle.evaluation.caption_reading import ClaimReader
from opendalle.evaluation.caption_statistics import language_of, statistics
from opendalle.evaluation.caption_truth import mark_caption, marks_of, shuffled, tally, truth_scores, weakness_scores

NUM = 12  # scenes of each kind


@pytest.fixture(scope="module")
def scenes(world):
    return scenes_of(world, NUM, held_out=False)


@pytest.fixture(scope="module")
def lexicon(world):
    return Lexicon(world)


@pytest.fixture(scope="module")
def reader(lexicon):
    return ClaimReader(lexicon)


def in_voice(truth, lexicon, voice, language, seed):
    rng = np.random.default_rng(seed)
    if voice == "description":
        return description(truth, lexicon, language, rng)
    config = CaptionConfig(voices={voice: 1.0}, languages={language: 1.0}, odd_terse=0.0)
    return write_caption(truth, lexicon, config, rng)


@pytest.mark.parametrize(("voice", "language"), list(itertools.product((*VOICES, "description"), ("en", "zh"))))
def test_the_worlds_own_words_tell_all_and_invent_nothing(scenes, lexicon, reader, voice, language):
    for seed, truth in enumerate(scenes):
        text = in_voice(truth, lexicon, voice, language, seed)
        mark = mark_caption(truth, reader.read(text), lexicon)
        assert [skill for skill, told in mark.skills.items() if not told] == [], text
        assert [claim for claim in mark.claims if not claim.is_true] == [], text
        assert all(mark.named)


def test_captions_of_other_scenes_score_at_chance(world, lexicon, reader):
    """Chance is counted on the truths themselves: how often two scenes of a kind happen to agree."""
    truths = scenes_of(world, 60, held_out=False)
    texts = [description(truth, lexicon, "en", np.random.default_rng(seed)) for seed, truth in enumerate(truths)]
    scored = tally(marks_of(truths, shuffled(truths, texts), reader, lexicon))

    def chance(agree, of):
        by_kind = {}
        for truth in truths:
            by_kind.setdefault(truth.kind, []).append(truth)
        pairs = [
            agree(one, other)
            for own in by_kind.values()
            for one, other in zip(own, [*own[1:], own[0]], strict=True)
            if of(one)
        ]
        return sum(pairs) / len(pairs)

    agreed = {
        "count": chance(lambda one, other: one.count == other.count, lambda one: one.kind == "count"),
        "words": chance(
            lambda one, other: one.things[-1].word == other.things[-1].word,
            lambda one: one.things[-1].word is not None,
        ),
        "background": chance(lambda one, other: one.background == other.background, lambda one: one.background),
    }
    for skill, expected in agreed.items():
        assert scored[skill].value == pytest.approx(expected, abs=1e-9), skill
        assert expected < 0.5
    assert scored["relation"].value < 0.2  # 12 pairs of things, four places
    assert scored["colours"].value < 0.2


WORDS = {  # key: English, Chinese, search words, kind
    "1F34E": ("red apple", "红苹果", "fruit gala", "food-fruit"),
    "1F34F": ("green apple", "青苹果", "fruit", "food-fruit"),
    "1F95A": ("egg", "蛋", "breakfast", "food-prepared"),
    "1F424": ("baby chick", "小鸡", "bird animal chickling", "animal-bird"),
    "1F427": ("penguin", "企鹅", "bird animal", "animal-bird"),
    "1F426": ("bird", "鸟", "animal", "animal-bird"),
    "26AA": ("white circle", "白色圆", "geometric", "geometric"),
    "1F495": ("two hearts", "两颗心", "love", "heart"),
    "2764": ("red heart", "红心", "love", "heart"),
    "1F436": ("dog face", "狗脸", "animal face", "animal-mammal"),
}


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """A world of words alone."""
    folder = tmp_path_factory.mktemp("words")
    records = [
        {
            "hexcode": key,
            "family": key,
            "names": {"en": en, "zh": zh},
            "keywords": {"en": keywords.split(), "zh": []},
            "group": "g",
            "subgroup": subgroup,
            "rows": {"flat": 0},
            "colours": {"flat": ["black", "white"]},
            "held_out": False,
            "held_out_styles": [],
        }
        for key, (en, zh, keywords, subgroup) in WORDS.items()
    ]
    (folder / "concepts.json").write_text(json.dumps(records))
    np.save(folder / "sprites-64.npy", np.zeros((1, 64, 64, 4), dtype=np.uint8))
    (folder / "manifest.json").write_text(json.dumps({"format": 1, "styles": ["flat"], "stamp": "words"}))
    return Lexicon(World(folder))


def said_of(said, key):
    return [(one.count, one.colour, one.size) for mention in said.mentions for one in mention.of([key])]


def test_phrases_are_read_in_every_way_that_they_can_be(spoken):
    reader = ClaimReader(spoken)
    assert said_of(reader.read("a green apple"), "1F34F") == [(1, None, None)]
    assert said_of(reader.read("a green apple"), "1F34E") == [(1, "green", None)]
    assert said_of(reader.read("two hearts"), "1F495") == [(None, None, None)]
    assert said_of(reader.read("two hearts"), "2764") == [(2, None, None)]
    assert said_of(reader.read("一个小鸡蛋"), "1F95A") == [(1, None, "small")]  # not a chick and an egg
    assert said_of(reader.read("一个小鸡蛋"), "1F424") == []
    assert said_of(reader.read("一个白色圆锥"), "cone") == [(1, "white", None)]  # not a white circle and something
    three = said_of(reader.read("THREE BIG RED APPLES | flat | on white"), "1F34E")
    assert set(three) == {(3, "red", "big"), (3, None, "big")}  # `red apple` is its name, too
    assert said_of(reader.read("pineapples and eggplants"), "1F34E") == []


def test_places_backgrounds_and_words(spoken):
    reader = ClaimReader(spoken)
    for text in (
        "a penguin to the left of an egg",
        "an egg right of a penguin",
        "penguin on the left and egg on the right",
        "企鹅在鸡蛋的左边",
        "鸡蛋左边有一只企鹅",
        "左边是一只企鹅，右边是一个鸡蛋",
    ):
        said = reader.read(text)
        keys = [one.readings[0].key for one in said.mentions]
        found = {(keys[one], side, keys[other]) for one, side, other in said.relations}
        assert found & {("1F427", "left", "1F95A"), ("1F95A", "right", "1F427")}, text
    on_blue = ("a penguin on a blue background", "penguin, blue bg", "PENGUIN ON BLUE", "蓝色背景上的企鹅")
    for text in (*on_blue, "企鹅、蓝色底", "a penguin. the background is plain blue.", "企鹅。背景是纯蓝色。"):
        said = reader.read(text)
        assert (said.background, said.colours) == ("blue", ()), text
        assert said_of(said, "1F427")
    said = reader.read("a penguin on a blue dog face")
    assert (said.background, said_of(said, "1F436")) == (None, [(1, "blue", None)])
    assert reader.read('sign with “Hello” and "OK"').words == ("hello", "ok")
    assert reader.read("a penguin on a transparent background, flat design").is_clear
    assert reader.read("扁平风格的企鹅").styles == {"flat"}
    assert reader.read("").mentions == ()


def truth_of(*things, **fields):
    fields = {"kind": "pair", "style": "flat"} | fields
    boxes = ((2, 18, 28), (34, 18, 28))
    return Truth(things=tuple(Thing(key=key, box=box) for key, box in zip(things, boxes, strict=False)), **fields)


@pytest.mark.parametrize(
    ("text", "invented"),
    [
        ("a penguin and an egg", []),
        ("a bird and an egg", []),  # its kind
        ("a penguin and a heart", ["thing"]),
        ("a penguin left of an egg", []),
        ("a penguin above an egg", ["relation"]),
        ("a green penguin and an egg", ["colour"]),
        ("a black penguin and an egg", []),  # the drawing's own colour
        ("two penguins and an egg", ["count"]),
        ("a big penguin and an egg", ["size"]),
        ('a penguin saying "hi" and an egg', ["word"]),
        ("a penguin and an egg on a red background", ["background"]),
        ("a penguin and an egg on a white background", []),
        ("a glossy 3d penguin and an egg", ["style"]),
        ("企鹅在鸡蛋的右边", ["relation"]),
    ],
)
def test_each_kind_of_invention_is_caught(spoken, text, invented):
    mark = mark_caption(truth_of("1F427", "1F95A"), ClaimReader(spoken).read(text), spoken)
    assert [claim.kind for claim in mark.claims if not claim.is_true] == invented


def test_scores_of_scenes_say_what_was_told_beside_chance(scenes, lexicon, reader):
    texts = [description(truth, lexicon, "zh", np.random.default_rng(seed)) for seed, truth in enumerate(scenes)]
    half = [text if row % 2 else "一只猫" for row, text in enumerate(texts)]
    marks = marks_of(scenes, half, reader, lexicon)
    scores = {
        one.name: one for one in truth_scores("s", marks, marks_of(scenes, shuffled(scenes, half), reader, lexicon))
    }
    assert 0.4 < scores["s/objects"].value < 0.6
    assert scores["s/objects"].low < scores["s/objects"].value < scores["s/objects"].high
    assert scores["s/objects-of-others"].value < scores["s/objects"].value
    assert 0 < scores["s/invented"].value < 0.2
    assert scores["s/invented-thing"].value > 0
    assert scores["s/invented-background"].value == 0
    weak = {one.name: one.value for one in weakness_scores("w", marks)}
    assert weak["w/space-if-told"] == 1.0
    assert 0.3 < weak["w/space"] == weak["w/space-told"] < 0.7
    assert 0.3 < weak["w/text"] < 0.7


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("a flat penguin", "right"),
        ("企鹅", "right"),
        ("a chickling", "wrong"),  # a synonym of another
        ("a bird, flat design", "vaguer"),
        ("an animal", "vaguer"),
        ("a red heart", "wrong"),
        ("a flat picture", "none"),
    ],
)
def test_a_penguin_is_named_vaguely_named_or_taken_for_something_else(spoken, text, answer):
    marker = NameMarker(spoken)
    assert marker.answer(text, ["1F427"]) == answer
    assert marker.answer("a chickling", ["1F424"]) == "right"
    assert not marker.is_named("a chickling", ["1F424"])
    assert marker.answer("a gala", ["1F34E"]) == "right"
    assert marker.answer("a fruit", ["1F34E"]) == "vaguer"  # two things are fruit


def test_shares_of_names_add_up(spoken):
    texts = ["a penguin", "a bird", "a heart", "nothing"] * 3
    scores = {one.name: one for one in name_scores("n", texts, [["1F427"]] * 12, NameMarker(spoken), floor=0.6)}
    assert [scores[f"n/{one}"].value for one in ("named", "vaguer", "wrong", "none")] == [0.25] * 4
    assert scores["n/named"].passed is False


def test_statistics_are_those_of_a_plain_count():
    texts = ["A red cat.", "a dog", "一只猫", "a dog", ""]
    scores = {one.name.split("/")[1]: one.value for one in statistics(texts)}
    words = [["a", "red", "cat"], ["a", "dog"], ["一", "只", "猫"], ["a", "dog"], []]
    flat = [word for one in words for word in one]
    assert scores["words-mean"] == pytest.approx(sum(map(len, words)) / 5)
    assert (scores["words-median"], scores["words-max"]) == (2, 3)
    assert scores["type-token"] == scores["type-token-1000"] == pytest.approx(len(set(flat)) / len(flat))
    assert (scores["distinct"], scores["starts-with-a"], scores["lower-case"]) == (0.8, 0.6, 0.8)
    assert (scores["ends-in-period"], scores["english"], scores["chinese"], scores["empty"]) == (0.2, 0.6, 0.2, 0.2)
    assert [language_of(one) for one in ("猫 cat", "cat", "кот", "ネコ猫", "7")] == [
        "zh",
        "en",
        "other",
        "other",
        "other",
    ]
    with pytest.raises(BadData):
        next(statistics([]))


class Knowing:
    """A captioner that knows every picture of the examination by heart; one that is blind says the same of all."""

    picture_size, picture_channels = 64, 4

    def __init__(self, world, truths, blind=False):
        self.lexicon, self.blind, self.shown = Lexicon(world), blind, 0
        composer = Composer(world, 64)
        self.known = {self.key(composer.draw(truth)): truth for truth in truths}

    @staticmethod
    def key(picture):
        return network_pictures(picture[None], 4)[0].tobytes()

    def caption_many(self, pictures, *, kind="short", language="en", decoding=None, seeds=None):
        assert isinstance(pictures, torch.Tensor)
        assert len(seeds) == len(pictures)
        self.shown += len(pictures)
        truths = [self.known[one.numpy().tobytes()] for one in pictures]
        write = subject if kind == "short" else description
        texts = [
            write(one, self.lexicon, language, np.random.default_rng(seed))
            for one, seed in zip(truths, seeds, strict=True)
        ]
        return [Written("a house" if self.blind else text) for text in texts]


class Written:
    log_likelihood = -1.0

    def __init__(self, text):
        self.text = text


def all_truths(world, num):
    cells = held_out_cells(world, num)
    alone = [Truth(kind="single", style=one.style, things=(Thing(key=one.keys[0], box=(0, 0, GRID)),)) for one in cells]
    return [*scenes_of(world, num, held_out=False), *scenes_of(world, num, held_out=True), *alone]


def test_who_knows_everything_passes_and_who_is_blind_does_not(world, tmp_path):
    config = CaptionExamConfig(num_names=4, num_scenes=4, batch=7, languages=("en",))
    truths = all_truths(world, 4)
    knowing = Knowing(world, truths)
    scores = {one.name: one for one in examine_captioner(knowing, world=world, config=config, out=tmp_path / "report")}
    for name, score in scores.items():
        if name.startswith(("scenes/en/", "new-scenes/", "reader/")) and "others" not in name:
            assert score.value == (0.0 if "invented" in name else 1.0), name
    assert scores["names/en/short/named"].value == scores["names/en/descriptive/named"].value == 1.0
    assert scores["weakness/en/space-if-told"].value == scores["weakness/en/text"].value == 1.0
    kept = [json.loads(line) for line in (tmp_path / "report/scenes-en.jsonl").read_text("utf-8").splitlines()]
    assert [one["truth"]["kind"] for one in kept] == [truth.kind for truth in scenes_of(world, 4, held_out=False)]
    assert len(json.loads((tmp_path / "report/results.json").read_text("utf-8"))["scores"]) == len(scores)
    blind = {
        one.name: one.value for one in examine_captioner(Knowing(world, truths, blind=True), world=world, config=config)
    }
    assert blind["scenes/en/relation"] == blind["scenes/en/words"] == blind["scenes/en/background"] == 0
    assert blind["scenes/en/invented-thing"] > 0.3
