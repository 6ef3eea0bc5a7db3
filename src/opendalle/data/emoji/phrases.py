"""What happens in a scene, said in English and in Chinese."""

import numpy as np

from opendalle.data.emoji.colours import COLOUR_OF_NAME
from opendalle.data.emoji.draws import coin, pick
from opendalle.data.emoji.lexicon import NUMBERS_EN, NUMBERS_ZH, Lexicon, article
from opendalle.data.emoji.truth import Thing, Truth

_OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
_BIG_EN, _SMALL_EN = ("big", "large", "big", "huge"), ("small", "little", "tiny", "small")
_BIG_ZH, _SMALL_ZH = ("大", "巨大的"), ("小", "小小的")
_RELATION_EN = {
    "left": (
        "{a} to the left of {b}",
        "{a} left of {b}",
        "{a} on the left of {b}",
        "{a} on the left and {b} on the right",
    ),
    "right": (
        "{a} to the right of {b}",
        "{a} right of {b}",
        "{a} on the right of {b}",
        "{a} on the right and {b} on the left",
    ),
    "above": ("{a} above {b}", "{a} over {b}", "{a} above {b}", "{a} at the top and {b} at the bottom"),
    "below": ("{a} below {b}", "{a} under {b}", "{a} beneath {b}", "{a} at the bottom and {b} at the top"),
}
_RELATION_ZH = {
    "left": ("{a}在{b}的左边", "{a}在{b}左边", "{b}左边有{one_a}", "左边是{one_a}，右边是{one_b}"),
    "right": ("{a}在{b}的右边", "{a}在{b}右边", "{b}右边有{one_a}", "右边是{one_a}，左边是{one_b}"),
    "above": ("{a}在{b}的上方", "{a}在{b}上面", "{b}上方有{one_a}", "上面是{one_a}，下面是{one_b}"),
    "below": ("{a}在{b}的下方", "{a}在{b}下面", "{b}下方有{one_a}", "下面是{one_a}，上面是{one_b}"),
}


def scene_english(truth: Truth, lexicon: Lexicon, rng: np.random.Generator) -> str:
    """Say what a scene shows, with articles, without style and background.

    Args:
        truth: a scene of any kind but a lone undescribed object.
        lexicon: the words of its world.
        rng: all chance comes from it.
    """
    things = truth.things
    if truth.kind == "count":
        noun = lexicon.noun(things[0].key)
        number = str(len(things)) if coin(rng, 0.2) else NUMBERS_EN[len(things)]
        return f"{number} {noun.en if len(things) == 1 else noun.plural}"
    if truth.kind == "sign":
        board = _phrase_english(things[0], lexicon, rng)
        verb = pick(rng, ("that says", "saying", "with the word", "that reads"))
        return f'{board} {verb} "{things[0].word}"'
    if truth.kind == "speech":
        speaker, word = _phrase_english(things[0], lexicon, rng), things[1].word
        return pick(
            rng, (f'{speaker} saying "{word}"', f'{speaker} says "{word}"', f'{speaker} with a speech bubble "{word}"')
        )
    if truth.kind == "relation":
        assert truth.relation is not None
        return _relation(truth, _RELATION_EN, rng, [_phrase_english(thing, lexicon, rng) for thing in things], ["", ""])
    phrases = [_phrase_english(thing, lexicon, rng) for thing in things]
    return (
        pick(rng, (" and ", " and ", " next to ", " with ")).join(phrases)
        if truth.kind == "pair"
        else " and ".join(phrases)
    )


def scene_chinese(truth: Truth, lexicon: Lexicon, rng: np.random.Generator) -> str:
    """Say what a scene shows in Chinese, without style and background.

    Args:
        truth: a scene of any kind but a lone undescribed object.
        lexicon: the words of its world.
        rng: all chance comes from it.
    """
    things = truth.things
    if truth.kind == "count":
        noun = lexicon.noun(things[0].key)
        number = str(len(things)) if coin(rng, 0.15) else NUMBERS_ZH[len(things)]
        return f"{number}{noun.measure}{noun.zh}"
    if truth.kind == "sign":
        one = _phrase_chinese(things[0], lexicon, rng, counted=False)
        return pick(
            rng,
            (f"写着“{things[0].word}”的{one}", f"一块写着“{things[0].word}”的{one}", f"{one}上写着“{things[0].word}”"),
        )
    if truth.kind == "speech":
        speaker = _phrase_chinese(things[0], lexicon, rng, counted=coin(rng, 0.6))
        return pick(rng, (f"{speaker}说“{things[1].word}”", f"{speaker}在说“{things[1].word}”"))
    if truth.kind == "relation":
        bare = [_phrase_chinese(thing, lexicon, rng, counted=False) for thing in things]
        one = [_phrase_chinese(thing, lexicon, rng, counted=True) for thing in things]
        return _relation(truth, _RELATION_ZH, rng, bare, one)
    counted = len(things) > 1 or coin(rng, 0.6)
    phrases = [_phrase_chinese(thing, lexicon, rng, counted=counted) for thing in things]
    return pick(rng, ("和", "和", "与")).join(phrases)


def _relation(
    truth: Truth, templates: dict[str, tuple[str, ...]], rng: np.random.Generator, bare: list[str], one: list[str]
) -> str:
    """Fill a template, half of the time told from the other thing's side."""
    relation = truth.relation
    assert relation is not None
    first, second = 0, 1
    if coin(rng, 0.35):
        relation, first, second = _OPPOSITE[relation], 1, 0
    text = pick(rng, templates[relation])
    return text.format(a=bare[first], b=bare[second], one_a=one[first], one_b=one[second])


def _phrase_english(thing: Thing, lexicon: Lexicon, rng: np.random.Generator) -> str:
    words = []
    if thing.size:
        words.append(pick(rng, _BIG_EN if thing.size == "big" else _SMALL_EN))
    if thing.colour:
        words.append(thing.colour)
    return article(" ".join([*words, lexicon.noun(thing.key).en]))


def _phrase_chinese(thing: Thing, lexicon: Lexicon, rng: np.random.Generator, counted: bool) -> str:
    noun = lexicon.noun(thing.key)
    text = noun.zh
    if thing.colour:
        colour = COLOUR_OF_NAME[thing.colour].zh
        text = f"{colour}的{text}" if len(text) < 2 or coin(rng, 0.7) else f"{colour}{text}"
    if thing.size:
        text = pick(rng, _BIG_ZH if thing.size == "big" else _SMALL_ZH) + text
    return f"一{noun.measure}{text}" if counted else text
