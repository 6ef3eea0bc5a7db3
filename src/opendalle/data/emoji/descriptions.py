"""What an attentive writer says of a picture: the main subject alone, or everything there is to see.

These are the two kinds of caption that a captioner is fine-tuned on.  `subject` names what the picture shows and stops.
`description` tells style, things, numbers, places, colours, what is written, and what lies behind; it says nothing that
is not true, and leaves out nothing that the truth holds.  Sizes and colours of paint are told where they are what the
scene is about, colours of drawings where they fill it.

Source: Betker et al., "Improving Image Generation with Better Captions", 2023, section 2.1: short and descriptive
    synthetic captions.
"""

from collections.abc import Callable, Mapping

import numpy as np

from opendalle.base.errors import BadRequest
from opendalle.data.emoji.colours import COLOUR_OF_NAME
from opendalle.data.emoji.draws import coin, pick
from opendalle.data.emoji.lexicon import NUMBERS_EN, NUMBERS_ZH, STYLE_WORDS, Lexicon, article
from opendalle.data.emoji.truth import Thing, Truth

_NEITHER = "neither"  # a place that is in the middle
_PICTURES_EN, _PICTURES_ZH = ("picture", "drawing", "illustration"), ("图片", "插画", "图画")
_CORNERS_EN = {("upper", "left"): "at the upper left", ("upper", "right"): "at the upper right"} | {
    ("lower", "left"): "at the lower left",
    ("lower", "right"): "at the lower right",
}
_PLACES_EN: Mapping[tuple[str, str], str] = _CORNERS_EN | {
    (_NEITHER, "left"): "on the left",
    (_NEITHER, "right"): "on the right",
    ("upper", _NEITHER): "at the top",
    ("lower", _NEITHER): "at the bottom",
}
_PLACES_ZH: Mapping[tuple[str, str], str] = {
    ("upper", "left"): "左上方",
    ("upper", "right"): "右上方",
    ("lower", "left"): "左下方",
    ("lower", "right"): "右下方",
    (_NEITHER, "left"): "左边",
    (_NEITHER, "right"): "右边",
    ("upper", _NEITHER): "上面",
    ("lower", _NEITHER): "下面",
}
_ARRANGED_EN = {2: "side by side", 3: "one at the top and two at the bottom", 4: "two at the top and two at the bottom"}
_ARRANGED_ZH = {2: "并排在左右两边", 3: "上面一{m}，下面两{m}", 4: "上面两{m}，下面两{m}"}


def subject(truth: Truth, lexicon: Lexicon, language: str, rng: np.random.Generator) -> str:
    """Name the main subject of a picture, and nothing else.

    Args:
        truth: what the picture shows.
        lexicon: the words of its world.
        language: en or zh.
        rng: chooses among a thing's names.

    Raises:
        BadRequest: when the language is another.
    """
    return _writer(language, _subject_english, _subject_chinese)(truth, lexicon, rng)


def description(truth: Truth, lexicon: Lexicon, language: str, rng: np.random.Generator) -> str:
    """Tell all that is true of a picture; arguments and errors are those of `subject`."""
    return _writer(language, _description_english, _description_chinese)(truth, lexicon, rng)


Write = Callable[[Truth, Lexicon, np.random.Generator], str]


def _writer(language: str, english: Write, chinese: Write) -> Write:
    if language not in ("en", "zh"):
        raise BadRequest(f"captions in {language!r}", "en or zh")
    return english if language == "en" else chinese


def _place(thing: Thing, things: tuple[Thing, ...]) -> tuple[str, str]:
    """Say in which half of the picture a thing stands, seen from the others."""
    x, y, side = thing.box
    others = [one.box for one in things if one is not thing]
    across = np.mean([a + s / 2 for a, _, s in others]) - (x + side / 2)
    down = np.mean([b + s / 2 for _, b, s in others]) - (y + side / 2)
    vertical = "upper" if down > 4 else "lower" if down < -4 else _NEITHER
    return vertical, "left" if across > 4 else "right" if across < -4 else _NEITHER


def _name(thing: Thing, lexicon: Lexicon, language: str, rng: np.random.Generator) -> str:
    """Return a thing's usual name, now and then another one that it has."""
    noun = lexicon.noun(thing.key)
    usual = noun.en if language == "en" else noun.zh
    if thing.word is not None or thing.colour is not None or coin(rng, 0.85):
        return usual.lower()
    return pick(rng, lexicon.names(thing.key, language) or (usual,)).lower()


def _subject_english(truth: Truth, lexicon: Lexicon, rng: np.random.Generator) -> str:
    if truth.kind == "count" and len(truth.things) > 1:
        return f"{NUMBERS_EN[len(truth.things)]} {lexicon.noun(truth.things[0].key).plural}".lower()
    shown = truth.things[:1] if truth.kind in ("speech", "count") else truth.things
    return " and ".join(article(_name(thing, lexicon, "en", rng)) for thing in shown)


def _subject_chinese(truth: Truth, lexicon: Lexicon, rng: np.random.Generator) -> str:
    noun = lexicon.noun(truth.things[0].key)
    if truth.kind == "count" and len(truth.things) > 1:
        return f"{NUMBERS_ZH[len(truth.things)]}{noun.measure}{noun.zh}".lower()
    shown = truth.things[:1] if truth.kind in ("speech", "count") else truth.things
    return "和".join(_counted(thing, _name(thing, lexicon, "zh", rng), lexicon) for thing in shown)


def _counted(thing: Thing, name: str, lexicon: Lexicon) -> str:
    """Put a number and a measure word before a Chinese name; names of signs and people take none."""
    is_noun = thing.key in lexicon.objects or thing.colour is not None or thing.word is not None
    return f"一{lexicon.noun(thing.key).measure}{name}" if is_noun else name


def _description_english(truth: Truth, lexicon: Lexicon, rng: np.random.Generator) -> str:
    style = STYLE_WORDS[truth.style]
    kind = article(f"{pick(rng, style.adjectives)} {pick(rng, _PICTURES_EN)}")
    things, main = truth.things, truth.things[0]
    told: list[str] = []
    if truth.kind == "sign":
        board = article(f"{main.colour} sign")
        head = f'{board} on a brown post, with the word "{main.word}" written on it in capital letters'
    elif truth.kind == "speech":
        speaker = article(_name(main, lexicon, "en", rng))
        head = f'{speaker} at the lower left with a white speech bubble at the upper right that says "{things[1].word}"'
    elif truth.kind == "count" and len(things) > 1:
        noun = lexicon.noun(main.key)
        head = f"{NUMBERS_EN[len(things)]} {noun.plural}, {_ARRANGED_EN[len(things)]}"
        told += _colours_english(main, lexicon, truth.style, "they are", rng)
    elif len(things) > 1:
        phrases = [_phrase_english(thing, _name(thing, lexicon, "en", rng)) for thing in things]
        first, second = (_PLACES_EN[_place(thing, things)] for thing in things)
        head = f"{article(phrases[0])} {first} and {article(phrases[1])} {second}"
        for thing, phrase in zip(things, phrases, strict=True):
            told += _colours_english(thing, lexicon, truth.style, f"the {phrase} is", rng)
    else:
        name = _name(main, lexicon, "en", rng)
        head = f"{article(_phrase_english(main, name))} that fills the {'whole ' if coin(rng, 0.5) else ''}picture"
        category = None if main.colour else lexicon.category(main.key)
        told += [f"it is {category[0]}"] if category and category[0] != article(name) else []
        told += _colours_english(main, lexicon, truth.style, "its main colour is", rng)
    behind = f"the background is plain {truth.background}" if truth.background else "the background is transparent"
    return ". ".join([f"{kind} of {head}", *told, behind]).lower() + "."


def _phrase_english(thing: Thing, name: str) -> str:
    return " ".join(word for word in (thing.size, thing.colour, name) if word)


def _colours_english(thing: Thing, lexicon: Lexicon, style: str, begin: str, rng: np.random.Generator) -> list[str]:
    """Tell the colours that fill a drawing; those of paint are told beside the name."""
    colours = [] if thing.colour else list(lexicon.colours(thing.key, style))
    if not colours:
        return []
    if begin.startswith("its"):
        begin = begin if len(colours) == 1 else "its main colours are"
        return [f"{begin} {_joined(colours)}"]
    return [f"{begin} {'mostly ' if coin(rng, 0.5) else ''}{_joined(colours[:2])}"]


def _joined(words: list[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def _description_chinese(truth: Truth, lexicon: Lexicon, rng: np.random.Generator) -> str:
    style = pick(rng, STYLE_WORDS[truth.style].zh)
    kind = f"一张{style}的{pick(rng, _PICTURES_ZH)}"
    things, main = truth.things, truth.things[0]
    told: list[str] = []
    if truth.kind == "sign":
        colour = COLOUR_OF_NAME[main.colour or "white"].zh
        head = f"一块{colour}的牌子立在棕色的柱子上，牌子上用大写字母写着“{main.word}”"
    elif truth.kind == "speech":
        speaker = _counted(main, _name(main, lexicon, "zh", rng), lexicon)
        head = f"左下方是{speaker}，右上方的白色气泡里写着“{things[1].word}”"
    elif truth.kind == "count" and len(things) > 1:
        noun = lexicon.noun(main.key)
        arranged = _ARRANGED_ZH[len(things)].format(m=noun.measure)
        head = f"{NUMBERS_ZH[len(things)]}{noun.measure}{noun.zh}，{arranged}"
        told += _colours_chinese(main, lexicon, truth.style, "它们", rng)
    elif len(things) > 1:
        names = [_name(thing, lexicon, "zh", rng) for thing in things]
        phrases = [_counted(one, _phrase_chinese(one, name), lexicon) for one, name in zip(things, names, strict=True)]
        first, second = (_PLACES_ZH[_place(thing, things)] for thing in things)
        head = f"{first}是{phrases[0]}，{second}是{phrases[1]}"
        for thing, name in zip(things, names, strict=True):
            told += _colours_chinese(thing, lexicon, truth.style, name, rng)
    else:
        name = _name(main, lexicon, "zh", rng)
        phrase = _counted(main, _phrase_chinese(main, name), lexicon)
        head = f"{phrase}占满了{'整个' if coin(rng, 0.5) else ''}画面"
        category = None if main.colour else lexicon.category(main.key)
        told += [f"属于{category[1]}"] if category and category[1] != name else []
        told += _colours_chinese(main, lexicon, truth.style, "", rng)
    behind = f"背景是纯{COLOUR_OF_NAME[truth.background].zh}" if truth.background else "背景是透明的"
    return f"{kind}，{head}。".lower() + "，".join([*told, behind]) + "。"


def _phrase_chinese(thing: Thing, name: str) -> str:
    size = {"big": "很大的", "small": "很小的", None: ""}[thing.size]
    colour = f"{COLOUR_OF_NAME[thing.colour].zh}的" if thing.colour else ""
    return f"{size}{colour}{name}"


def _colours_chinese(thing: Thing, lexicon: Lexicon, style: str, begin: str, rng: np.random.Generator) -> list[str]:
    colours = [] if thing.colour else [COLOUR_OF_NAME[name].zh for name in lexicon.colours(thing.key, style)]
    if not colours:
        return []
    most = colours if not begin else colours[:2]
    return [f"{begin}{'主要' if coin(rng, 0.5) else ''}是{'和'.join(most)}"]
