"""Pairs of texts: the full one keeps what the short one says, and has the length of a caption."""

import re
from collections import Counter

import numpy as np
import pytest

from opendalle.base.errors import BadConfig
from opendalle.data.emoji.colours import COLOUR_NAMES, COLOUR_OF_NAME
from opendalle.data.emoji.dataset import EmojiSet, EmojiSetConfig
from opendalle.data.emoji.pairs import Pair, PairsConfig, known_pair, strange_pair

ENGLISH, CHINESE = PairsConfig(chinese=0), PairsConfig(chinese=1)
WORDS, CHINESE_WORDS = ("harbour", "thistle", "engine"), ("图书馆", "恐龙")


def known(world, kinds, config, count=60):
    source = EmojiSet(world, EmojiSetConfig(kinds=kinds, scene_background=1.0))
    rng = np.random.default_rng(0)
    for k in range(count):
        truth = source.truth(k % len(source), rng)
        yield truth, known_pair(truth, source.lexicon, config, rng)


def strange(config, count=300, words=WORDS, chinese=CHINESE_WORDS):
    rng = np.random.default_rng(0)
    return [strange_pair(words, chinese, config, rng) for _ in range(count)]


def quoted(text):
    return re.findall('["“](.+?)["”]', text)


@pytest.mark.parametrize("config", [ENGLISH, CHINESE])
def test_written_words_are_kept_letter_by_letter(world, config):
    pairs = [pair for _, pair in known(world, {"sign": 1.0, "speech": 1.0}, config)] + strange(config)
    asked = [pair for pair in pairs if quoted(pair.short)]
    assert len(asked) > 60
    for pair in asked:
        assert set(quoted(pair.short)) <= set(quoted(pair.full)), pair
    cases = Counter(word.islower() for pair in asked for word in quoted(pair.short))
    assert min(cases.values()) > 10  # upper case as well


def test_counts_and_colours_are_kept(world):
    for truth, pair in known(world, {"count": 1.0}, ENGLISH):
        number = re.search(r"\b(one|two|three|four|[1-4]|an?)\b", pair.short.lower())
        if number and len(truth.things) > 1:
            assert ("no", "one", "two", "three", "four")[len(truth.things)] in pair.full, pair
    for truth, pair in known(world, {"colours": 1.0}, CHINESE):
        for thing in truth.things:
            colour = COLOUR_OF_NAME[thing.colour].zh
            assert (colour in pair.short, colour in pair.full) == (True, True), pair


def test_the_background_is_told_even_where_the_prompt_is_silent(world):
    told = [(truth, pair) for truth, pair in known(world, {"plain": 1.0, "pair": 1.0}, ENGLISH, 120)]
    silent = [pair for _, pair in told if "background" not in pair.short.lower() and " bg" not in pair.short.lower()]
    assert 20 < len(silent) < 110
    assert all(f"background is plain {truth.background}" in pair.full for truth, pair in told)


def test_strange_words_are_repeated_as_they_stand():
    for config in (ENGLISH, CHINESE):
        for pair in strange(config):
            assert pair.short in pair.full, pair
            assert any(one in pair.full for one in COLOUR_NAMES) or any(
                COLOUR_OF_NAME[one].zh in pair.full for one in COLOUR_NAMES
            )
    made_up = {word for pair in strange(ENGLISH, words=()) for word in pair.short.split()}
    assert len(made_up) > 300
    assert len({pair.short for pair in strange(CHINESE, chinese=())}) > 250


@pytest.mark.parametrize("config", [ENGLISH, CHINESE])
def test_together_they_are_as_long_as_captions(world, config):
    """15 to 80 words; of Chinese a word and a half a character."""

    def words(pair: Pair) -> float:
        text = f"{pair.short} {pair.full}"
        han = len(re.findall("[一-鿿]", text))
        return len(re.findall(r"[A-Za-z0-9'-]+", text)) + han / 1.5

    kinds = {"plain": 1.0, "relation": 1.0, "count": 1.0, "colours": 1.0}
    lengths = [words(pair) for _, pair in known(world, kinds, config, 100)] + [
        words(one) for one in strange(config, 100)
    ]
    assert np.mean(np.array(lengths) >= 15) > 0.95
    assert max(lengths) <= 80


def test_all_chance_comes_from_the_generator(world):
    assert [pair for _, pair in known(world, {"pair": 1.0}, PairsConfig())] == [
        pair for _, pair in known(world, {"pair": 1.0}, PairsConfig())
    ]
    assert strange(PairsConfig()) == strange(PairsConfig())
    with pytest.raises(BadConfig, match="strange"):
        PairsConfig(strange=1.2)
