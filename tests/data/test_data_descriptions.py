"""Captions by an attentive writer: the subject and nothing else, or all that is true and nothing that is not."""

import re

import numpy as np
import pytest

from opendalle.base.errors import BadRequest
from opendalle.data.emoji.colours import COLOUR_NAMES, COLOUR_OF_NAME
from opendalle.data.emoji.descriptions import description, subject
from opendalle.data.emoji.lexicon import NUMBERS_EN, NUMBERS_ZH, STYLE_WORDS, Lexicon
from opendalle.data.emoji.scenes import SceneMaker
from opendalle.data.emoji.sources import STYLES
from opendalle.data.emoji.truth import GRID, SCENE_KINDS, Thing, Truth

LANGUAGES = ("en", "zh")


@pytest.fixture(scope="module")
def lexicon(world) -> Lexicon:
    return Lexicon(world)


def scenes(world, lexicon: Lexicon, kind: str, count: int = 25) -> list[Truth]:
    maker = SceneMaker(world, lexicon, styles=STYLES)
    return [maker.make(kind, np.random.default_rng(number)) for number in range(count)]


def names(lexicon: Lexicon, thing: Thing, language: str) -> list[str]:
    noun = lexicon.noun(thing.key)
    own = [noun.en, noun.plural] if language == "en" else [noun.zh]
    other = () if thing.key not in lexicon.objects else lexicon.names(thing.key, language)
    return [one.lower() for one in (*own, *other)]


@pytest.mark.parametrize("kind", SCENE_KINDS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_description_tells_all_of_the_truth(world, lexicon: Lexicon, kind: str, language: str) -> None:
    for number, truth in enumerate(scenes(world, lexicon, kind)):
        text = description(truth, lexicon, language, np.random.default_rng(number))
        assert text == text.lower()
        style = STYLE_WORDS[truth.style]
        assert any(one.lower() in text for one in (style.adjectives if language == "en" else style.zh))
        for thing in truth.things:
            if thing.word is not None:
                assert thing.word in re.findall('"(.*?)"' if language == "en" else "“(.*?)”", text)
            else:
                assert any(name in text for name in names(lexicon, thing, language))
            if thing.colour is not None:
                assert (thing.colour if language == "en" else COLOUR_OF_NAME[thing.colour].zh) in text
        if kind == "count" and truth.count > 1:
            assert (f" {NUMBERS_EN[truth.count]} " if language == "en" else NUMBERS_ZH[truth.count]) in text
        behind = truth.background
        if language == "en":
            assert text.endswith(f"the background is plain {behind}." if behind else "the background is transparent.")
        else:
            assert text.endswith(f"背景是纯{COLOUR_OF_NAME[behind].zh}。" if behind else "背景是透明的。")


@pytest.mark.parametrize("kind", ["pair", "relation", "colours", "size"])
def test_each_thing_is_said_to_be_where_it_is(world, lexicon: Lexicon, kind: str) -> None:
    words = {"on the left": (0, -1), "on the right": (0, 1), "at the top": (1, -1), "at the bottom": (1, 1)}
    for number, truth in enumerate(scenes(world, lexicon, kind)):
        text = description(truth, lexicon, "en", np.random.default_rng(number))
        told = re.findall("|".join(words), text)
        assert len(told) == 2
        centres = np.array([(x + side / 2, y + side / 2) for x, y, side in (one.box for one in truth.things)])
        for own, other, where in zip(centres, centres[::-1], told, strict=True):
            axis, sign = words[where]
            assert sign * (own[axis] - other[axis]) > 0


def test_colours_that_are_told_are_those_of_the_drawing(world, lexicon: Lexicon) -> None:
    for key in lexicon.objects:
        for style in world.concept_of[key].rows:
            truth = Truth(kind="single", style=style, things=(Thing(key=key, box=(0, 0, GRID)),))
            text = description(truth, lexicon, "en", np.random.default_rng(0))
            (said,) = re.findall(r"colours? (?:is|are) (.*?)\.", text) or [""]
            assert re.findall("|".join(COLOUR_NAMES), said) == list(lexicon.colours(key, style))


def test_a_subject_is_named_and_nothing_else(world, lexicon: Lexicon) -> None:
    styles = {word.lower() for words in STYLE_WORDS.values() for word in (*words.adjectives, *words.phrases)}
    for kind in SCENE_KINDS:
        for number, truth in enumerate(scenes(world, lexicon, kind)):
            text = subject(truth, lexicon, "en", np.random.default_rng(number))
            assert any(name in text for name in names(lexicon, truth.things[0], "en"))
            assert len(text.split()) <= 12
            assert not set(re.split(r"\W+", text)) & {"background", "transparent", "left", "right", "above", "below"}
            assert not any(f" {style} " in f" {text} " for style in styles)
            if kind == "count" and truth.count > 1:
                assert text.startswith(NUMBERS_EN[truth.count])
            if kind in ("colour", "colours"):
                assert not any(f" {thing.colour} " in f" {text} " for thing in truth.things)


def test_what_is_written_depends_on_truth_and_generator_alone(world, lexicon: Lexicon) -> None:
    (truth, *_) = scenes(world, lexicon, "pair")
    for write in (subject, description):
        for language in LANGUAGES:
            one, two = (write(truth, lexicon, language, np.random.default_rng(5)) for _ in range(2))
            assert one == two
        with pytest.raises(BadRequest, match="en or zh"):
            write(truth, lexicon, "de", np.random.default_rng(5))
