"""What a trained model is asked: names, held-out cells, Chinese twins, paraphrases and scenes, each with its truth.

Every list is a pure function of the world and a seed, and its first n are the first n of any longer list, so a quick
look asks an unchosen part of the whole examination.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np

from opendalle.base.errors import BadData, require
from opendalle.data.emoji.captions import CaptionConfig, write_caption
from opendalle.data.emoji.colours import COLOUR_NAMES
from opendalle.data.emoji.dataset import Cell, cells_of_split
from opendalle.data.emoji.draws import coin, pick
from opendalle.data.emoji.lexicon import STYLE_WORDS, Lexicon, article
from opendalle.data.emoji.scenes import SceneMaker
from opendalle.data.emoji.truth import GRID, Thing, Truth
from opendalle.data.emoji.world import World

# What an examination calls a skill -> the kind of scene that asks for it.
KIND_OF_SKILL: Mapping[str, str] = {
    "background": "plain",
    "objects": "pair",
    "relation": "relation",
    "binding": "colours",
    "count": "count",
    "size": "size",
}
SKILLS = tuple(KIND_OF_SKILL)
COMBINED_SKILLS = ("relation", "binding", "count")  # those with combinations that are held out
_PLAIN = CaptionConfig(voices={"short": 1.0}, languages={"en": 1.0}, style_named=0.5, transparent_named=0.0)


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One thing to ask, and what a right answer shows."""

    prompt: str
    keys: tuple[str, ...]  # hexcodes that count as right, the asked one first; of a scene, its things
    style: str | None = None  # asked style; None: any
    truth: Truth | None = None
    twin: str | None = None  # the same in English, of a Chinese prompt
    skill: str | None = None  # of a scene


def seen_names(world: World, count: int = 300, seed: int = 0) -> list[Prompt]:
    """Return names in a style that training has shown, each concept at most once.

    Args:
        world: an open world folder.
        count: how many at most.
        seed: another seed is another list.
    """
    cells = _shuffled(cells_of_split(world, "train", world.styles), seed)
    once = {cell.concept.family: cell for cell in reversed(cells)}  # the first cell of each family stays
    chosen = [cell for cell in cells if once[cell.concept.family] is cell]
    return _names(world, chosen[:count])


def held_out_cells(world: World, count: int = 300, seed: int = 0) -> list[Prompt]:
    """Return names in a style in which training has not shown them, though in others it has."""
    return _names(world, _shuffled(cells_of_split(world, "heldout-cells", world.styles), seed)[:count])


def held_out_concepts(world: World, count: int = 100, seed: int = 0) -> list[Prompt]:
    """Return names that training has never shown in any style."""
    return _names(world, _shuffled(cells_of_split(world, "heldout-concepts", world.styles), seed)[:count])


def chinese_twins(world: World) -> list[Prompt]:
    """Return natural Chinese phrases with their English twins; those the world does not hold are left out."""
    return [
        Prompt(prompt=zh, keys=_twins_of(world, hexcode), twin=en)
        for zh, en, hexcode, _ in _written("chinese.json")
        if hexcode in world.concept_of
    ]


def paraphrases(world: World) -> list[Prompt]:
    """Return prompts in words that no caption has.

    Raises:
        BadData: when a caption of this world could say one of them after all.
    """
    rows = [row for row in _written("paraphrases.json") if row[1] in world.concept_of]
    said, lexicon = spoken_words(world), Lexicon(world)
    for prompt, hexcode, _ in rows:
        names = {name.lower() for name in lexicon.names(hexcode, "en")}
        if prompt.lower() in said or any(re.search(rf"\b{re.escape(name)}\b", prompt.lower()) for name in names):
            raise BadData(f"the paraphrase {prompt!r}", "words that no caption has", "Write it anew.")
    return [Prompt(prompt=prompt, keys=_twins_of(world, hexcode)) for prompt, hexcode, _ in rows]


def spoken_words(world: World) -> frozenset[str]:
    """Return every name and keyword of a world, lower case: all that captions say of lone things."""
    lexicon = Lexicon(world)
    words: set[str] = set()
    for concept in world.concepts:
        words.update(name for language in concept.names for name in lexicon.names(concept.hexcode, language))
        words.update(word for language in concept.keywords for word in concept.keywords[language])
    return frozenset(word.lower() for word in words)


def scene_prompts(world: World, skill: str, count: int = 100, *, held_out: bool = False, seed: int = 0) -> list[Prompt]:
    """Return scenes that ask for one skill, each with an English prompt and the truth.

    Args:
        world: an open world folder.
        skill: one of SKILLS.
        count: how many.
        held_out: only combinations that training never showed (COMBINED_SKILLS have them).
        seed: another seed is another list.

    Raises:
        BadConfig: when the skill is unknown or has no held-out combinations.
    """
    require(skill in SKILLS, f"skill {skill!r}", "one of " + ", ".join(SKILLS))
    if held_out:
        require(skill in COMBINED_SKILLS, f"held-out scenes of {skill!r}", "one of " + ", ".join(COMBINED_SKILLS))
    lexicon = Lexicon(world)
    maker = SceneMaker(world, lexicon, styles=world.styles, combinations="heldout" if held_out else "seen")
    cells = [cell for cell in cells_of_split(world, "train", world.styles) if cell.concept.hexcode in lexicon.objects]
    prompts = []
    for number in range(count):
        rng = np.random.default_rng([seed, SKILLS.index(skill), int(held_out), number])
        truth = _on_plain(pick(rng, cells), rng) if skill == "background" else maker.make(KIND_OF_SKILL[skill], rng)
        prompts.append(_scene(truth, lexicon, skill, rng))
    return prompts


def chinese_scene(truth: Truth, world: World, seed: int = 0) -> str:
    """Say a scene in Chinese, in one short phrase that names style and background."""
    config = CaptionConfig(voices={"short": 1.0}, languages={"zh": 1.0}, style_named=1.0, transparent_named=0.0)
    return write_caption(truth, Lexicon(world), config, np.random.default_rng(seed))


def _scene(truth: Truth, lexicon: Lexicon, skill: str, rng: np.random.Generator) -> Prompt:
    named = coin(rng, 0.5)
    config = CaptionConfig(
        voices=_PLAIN.voices, languages=_PLAIN.languages, style_named=float(named), transparent_named=0.0
    )
    return Prompt(
        prompt=write_caption(truth, lexicon, config, rng),
        keys=tuple(dict.fromkeys(thing.key for thing in truth.things)),
        style=truth.style if named else None,
        truth=truth,
        skill=skill,
    )


def _on_plain(cell: Cell, rng: np.random.Generator) -> Truth:
    """Put one thing before a colour that is not its own, so that a judge can tell the two apart."""
    own = cell.concept.colours.get(cell.style, ())
    background = pick(rng, [name for name in COLOUR_NAMES if name not in own])
    thing = Thing(key=cell.concept.hexcode, box=(0, 0, GRID))
    return Truth(kind="plain", style=cell.style, things=(thing,), background=background)


def _names(world: World, cells: Sequence[Cell]) -> list[Prompt]:
    lexicon = Lexicon(world)
    return [_name(world, cell, lexicon.names(cell.concept.hexcode, "en")[0]) for cell in cells]


def _name(world: World, cell: Cell, name: str) -> Prompt:
    styled = f"{STYLE_WORDS[cell.style].adjectives[0]} {name}"
    return Prompt(
        prompt=article(styled) if article(name) != name else styled,
        keys=_twins_of(world, cell.concept.hexcode),
        style=cell.style,
    )


def _twins_of(world: World, hexcode: str) -> tuple[str, ...]:
    """Return a concept and those that nobody could tell from it by name or family."""
    own = world.concept_of[hexcode]
    twins = [other.hexcode for other in world.concepts if other.family == own.family or other.names == own.names]
    return (hexcode, *(other for other in twins if other != hexcode))


def _shuffled(cells: Sequence[Cell], seed: int) -> list[Cell]:
    order = np.random.default_rng([seed, len(cells)]).permutation(len(cells))
    return [cells[int(place)] for place in order]


def _written(name: str) -> list[list[str]]:
    text = resources.files("opendalle.data.emoji").joinpath(name).read_text(encoding="utf-8")
    return json.loads(text)["prompts"]
