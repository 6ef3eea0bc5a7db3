"""Captions in voices: from what is exactly true of a picture to what people would write beside it.

`terse` is alt-text as the web has it: keywords, odd order, odd case.  `short` is a noun phrase.  `descriptive` says
more, and only what is true: style, kind of thing, colours, background.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from opendalle.base.errors import require
from opendalle.data.emoji.catalogue import LANGUAGES
from opendalle.data.emoji.colours import COLOUR_OF_NAME
from opendalle.data.emoji.draws import coin, pick, weighted
from opendalle.data.emoji.lexicon import STYLE_WORDS, Lexicon, article
from opendalle.data.emoji.phrases import scene_chinese, scene_english
from opendalle.data.emoji.truth import Truth

VOICES = ("terse", "short", "descriptive")
_PICTURES_EN = ("picture", "drawing", "emoji", "illustration", "image", "icon")
_PICTURES_ZH = ("图片", "图标", "插画", "表情", "图画")


def _even_voices() -> dict[str, float]:
    return {"terse": 0.2, "short": 0.45, "descriptive": 0.35}


def _english_and_chinese_first() -> dict[str, float]:
    return {"en": 0.6, "zh": 0.32} | {language: 0.01 for language in LANGUAGES if language not in ("en", "zh")}


@dataclass(frozen=True, kw_only=True)
class CaptionConfig:
    """How captions are spoken."""

    voices: Mapping[str, float] = field(default_factory=_even_voices)  # voice -> weight
    languages: Mapping[str, float] = field(default_factory=_english_and_chinese_first)  # language -> weight
    style_named: float = 0.5  # share of captions that name the style
    transparent_named: float = 0.2  # share of captions of transparent pictures that say so
    odd_terse: float = 0.1  # share of terse captions that leave the name itself out

    def __post_init__(self) -> None:
        for name, weights, known in (("voices", self.voices, VOICES), ("languages", self.languages, LANGUAGES)):
            require(set(weights) <= set(known), f"{name} {sorted(weights)}", "some of " + ", ".join(known))
            require(sum(weights.values()) > 0, f"{name} without weight", "at least one weight above 0")
            require(all(weight >= 0 for weight in weights.values()), f"{name} {dict(weights)}", "weights of at least 0")
        for name in ("style_named", "transparent_named", "odd_terse"):
            require(0.0 <= getattr(self, name) <= 1.0, f"{name}={getattr(self, name)}", "a share from 0 to 1")


def write_caption(truth: Truth, lexicon: Lexicon, config: CaptionConfig, rng: np.random.Generator) -> str:
    """Write one caption.

    Args:
        truth: what the picture shows.
        lexicon: the words of its world.
        config: voices and languages.
        rng: all chance comes from it.
    """
    language, voice = weighted(rng, config.languages), weighted(rng, config.voices)
    single = truth.kind in ("single", "plain")
    if language not in ("en", "zh") and not (truth.kind == "single" and lexicon.names(truth.things[0].key, language)):
        language = "en"  # only names are at hand in the other languages: enough for a lone object, not for a scene
    says = Says(
        style=truth.style if coin(rng, config.style_named) else None,
        background=truth.background,
        transparent=truth.background is None and coin(rng, config.transparent_named),
    )
    if language == "en":
        if voice == "terse":
            return _terse_english(truth, lexicon, says, config, rng, single)
        core = (
            _single_english(truth, lexicon, voice, rng) if single else Core(phrase=scene_english(truth, lexicon, rng))
        )
        return _dress_english(core, says, voice, rng)
    if language == "zh":
        if voice == "terse":
            return _terse_chinese(truth, lexicon, says, config, rng, single)
        core = (
            _single_chinese(truth, lexicon, voice, rng) if single else Core(phrase=scene_chinese(truth, lexicon, rng))
        )
        return _dress_chinese(core, says, voice, rng)
    name = pick(rng, lexicon.names(truth.things[0].key, language))
    return f"{name}, {STYLE_WORDS[says.style].adjectives[0]}" if says.style else name


@dataclass(frozen=True, kw_only=True)
class Says:
    """What a caption mentions beside the things."""

    style: str | None
    background: str | None
    transparent: bool


@dataclass(frozen=True, kw_only=True)
class Core:
    """The things of a caption: a phrase, and true remarks that may follow it."""

    phrase: str  # a lone name without its article, or a whole scene
    bare: bool = False  # a lone name: an article, a style or a background may still be put before it
    remarks: tuple[str, ...] = ()


def _single_english(truth: Truth, lexicon: Lexicon, voice: str, rng: np.random.Generator) -> Core:
    thing = truth.things[0]
    names = lexicon.names(thing.key, "en")
    remarks: list[str] = []
    if voice == "descriptive":
        category = lexicon.category(thing.key)
        if category and coin(rng, 0.4):
            remarks.append(category[0])
        colours = list(lexicon.colours(thing.key, truth.style))
        if colours and coin(rng, 0.55):
            remarks.append(f"{colours[0]} and {colours[1]}" if len(colours) > 1 else f"mostly {colours[0]}")
    return Core(phrase=pick(rng, names), bare=True, remarks=tuple(remarks))


def _single_chinese(truth: Truth, lexicon: Lexicon, voice: str, rng: np.random.Generator) -> Core:
    thing = truth.things[0]
    names = lexicon.names(thing.key, "zh") or lexicon.names(thing.key, "en")
    remarks: list[str] = []
    if voice == "descriptive":
        category = lexicon.category(thing.key)
        if category and coin(rng, 0.4):
            remarks.append(category[1])
        colours = [COLOUR_OF_NAME[name].zh for name in lexicon.colours(thing.key, truth.style)]
        if colours and coin(rng, 0.55):
            remarks.append(f"{colours[0]}和{colours[1]}" if len(colours) > 1 else f"主要是{colours[0]}")
    name = pick(rng, names)
    if voice == "short" and coin(rng, 0.15):
        name = f"一{lexicon.noun(thing.key).measure}{name}" if thing.key in lexicon.objects else name
    return Core(phrase=name, bare=True, remarks=tuple(remarks))


def _dress_english(core: Core, says: Says, voice: str, rng: np.random.Generator) -> str:
    """Put style, wrapping and background around the things."""
    words = STYLE_WORDS[says.style] if says.style else None
    whole = article(core.phrase) if core.bare else core.phrase
    if core.bare and voice == "short" and coin(rng, 0.25):
        whole = core.phrase
    tail = ""
    if says.transparent and voice == "short" and coin(rng, 0.4):
        sticker = pick(
            rng, (f"a sticker of {whole}", f"{whole} sticker" if whole == core.phrase else f"{whole} as a sticker")
        )
        return f"{sticker}, {pick(rng, words.adjectives)}" if words else sticker
    if voice == "descriptive" or (not core.bare and coin(rng, 0.25)):
        kind = "sticker" if says.transparent and coin(rng, 0.4) else pick(rng, _PICTURES_EN)
        if words and coin(rng, 0.7):
            text = f"{article(f'{pick(rng, words.adjectives)} {kind}')} of {whole}"
        else:
            text = f"{article(kind)} of {whole}"
            tail = f" {pick(rng, words.phrases)}" if words else ""
    elif words and core.bare and coin(rng, 0.6):
        adjective = pick(rng, words.adjectives)
        text = f"{adjective} {core.phrase}" if whole == core.phrase else _styled(adjective, core.phrase)
    else:
        text = whole
        tail = f", {pick(rng, words.adjectives)}" if words and coin(rng, 0.4) else ""
        tail = tail or (f" {pick(rng, words.phrases)}" if words else "")
    if core.remarks:
        text += ", " + ", ".join(core.remarks)
        tail = f",{tail}" if tail.startswith(" ") else tail
    if says.background:
        behind = f"{says.background} background"
        return f"{text}{tail}" + pick(rng, (f" on {article(behind)}", f" with {article(behind)}", f", {behind}"))
    if says.transparent:
        return f"{text}{tail}" + pick(
            rng, (" on a transparent background", ", transparent background", " with transparent background")
        )
    return f"{text}{tail}"


def _styled(adjective: str, phrase: str) -> str:
    """Put a style adjective between the article and the noun; nouns without article keep none."""
    return article(f"{adjective} {phrase}") if article(phrase) != phrase else f"{adjective} {phrase}"


def _dress_chinese(core: Core, says: Says, voice: str, rng: np.random.Generator) -> str:
    style = pick(rng, STYLE_WORDS[says.style].zh) if says.style else ""
    behind = (
        f"{COLOUR_OF_NAME[says.background].zh}背景" if says.background else ("透明背景" if says.transparent else "")
    )
    after: list[str] = list(core.remarks)
    text = core.phrase
    if core.bare:
        if behind and says.background and coin(rng, 0.5):
            text, behind = f"{behind}上的{text}", ""
        if voice == "descriptive":
            kind = "贴纸" if says.transparent and coin(rng, 0.4) else pick(rng, _PICTURES_ZH)
            text = f"一张{f'{style}的' if style else ''}{text}{kind}"
        elif style and coin(rng, 0.65):
            text = f"{style}的{text}"
        elif style:
            after.append(style)
    else:
        if behind and says.background and coin(rng, 0.4):
            text, behind = f"{behind}上，{text}", ""
        if style and voice == "descriptive" and coin(rng, 0.5):
            text = f"一张{style}的{pick(rng, _PICTURES_ZH)}：{text}"
        elif style:
            after.append(style)
    if behind:
        after.append(behind)
    return "，".join([text, *after])


def _terse_english(
    truth: Truth, lexicon: Lexicon, says: Says, config: CaptionConfig, rng: np.random.Generator, single: bool
) -> str:
    words = [pick(rng, STYLE_WORDS[says.style].adjectives)] if says.style else []
    if single:
        key = truth.things[0].key
        keywords = _some(lexicon.keywords(key, "en"), rng, most=4)
        nameless = len(keywords) > 1 and coin(rng, config.odd_terse)
        words += keywords if nameless else [pick(rng, lexicon.names(key, "en")), *keywords]
        if not says.background and coin(rng, 0.15):
            words.append(pick(rng, ("png", "emoji", "clipart", "icon", "sticker")))
    else:
        core = scene_english(truth, lexicon, rng)
        words.insert(0, " ".join(word for word in core.split() if word not in ("a", "an", "the")))
    if says.background:
        words.append(pick(rng, (f"{says.background} background", f"{says.background} bg", f"on {says.background}")))
    elif says.transparent:
        words.append(pick(rng, ("transparent", "transparent background", "sticker")))
    if single:
        words = [words[int(place)] for place in rng.permutation(len(words))]
    text = pick(rng, (" ", ", ", " ", " - ", " | ")).join(words)
    return pick(rng, (text, text, text.lower(), text.upper(), text.title()))


def _terse_chinese(
    truth: Truth, lexicon: Lexicon, says: Says, config: CaptionConfig, rng: np.random.Generator, single: bool
) -> str:
    words = [pick(rng, STYLE_WORDS[says.style].zh)] if says.style else []
    if single:
        key = truth.things[0].key
        keywords = _some(lexicon.keywords(key, "zh"), rng, most=3)
        nameless = len(keywords) > 1 and coin(rng, config.odd_terse)
        names = lexicon.names(key, "zh") or lexicon.names(key, "en")
        words += keywords if nameless else [pick(rng, names), *keywords]
        words = [words[int(place)] for place in rng.permutation(len(words))]
    else:
        words.insert(0, scene_chinese(truth, lexicon, rng))
    if says.background:
        words.append(
            pick(rng, (f"{COLOUR_OF_NAME[says.background].zh}背景", COLOUR_OF_NAME[says.background].zh + "底"))
        )
    elif says.transparent:
        words.append(pick(rng, ("透明背景", "贴纸", "透明底")))
    return pick(rng, (" ", "，", "、")).join(words)


def _some(words: Sequence[str], rng: np.random.Generator, most: int) -> list[str]:
    """Return 0 to `most` different words in a random order."""
    count = min(len(words), int(rng.random() * (most + 1)))
    return [words[int(place)] for place in rng.permutation(len(words))[:count]]
