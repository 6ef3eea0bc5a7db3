"""Marking captions of composed scenes, of which everything is known: what was told, and what was made up.

Each skill is marked by itself and only where the scene has it.  A claim is whatever a caption says that could be false:
a thing, a colour of it, a number, a place, a size, a word on a sign, a background, a style.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from opendalle.data.emoji.lexicon import Lexicon
from opendalle.data.emoji.truth import Thing, Truth
from opendalle.evaluation.caption_reading import KIND_OF, OPPOSITE, ClaimReader, Mention, Reading, Said
from opendalle.evaluation.metrics import Interval, bootstrap_mean, wilson
from opendalle.evaluation.score import Score, score_of

SKILLS = ("objects", "colours", "count", "relation", "size", "words", "background")
CLAIMS = ("thing", "colour", "count", "relation", "size", "word", "background", "style")
_SURFACES = ("bubble",)  # what words stand on and nobody mentions
_SEED = 20_260  # of every resample: a report repeats itself


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Something that a caption says of a picture."""

    kind: str  # one of CLAIMS
    is_true: bool


@dataclass(frozen=True, kw_only=True)
class CaptionMark:
    """How a caption tells a scene."""

    skills: Mapping[str, bool]  # skill -> whether all of it was told, of the skills that the scene has
    named: tuple[bool, ...]  # of each kind of thing, whether it was named
    claims: tuple[Claim, ...]  # in no order
    says_relation: bool  # whether it says where two of the scene's things are to each other


def mark_caption(truth: Truth, said: Said, lexicon: Lexicon) -> CaptionMark:
    """Mark one caption.

    Args:
        truth: of the picture.
        said: what was read in the caption.
        lexicon: the words of the world.
    """
    things = [thing for thing in truth.things if thing.key not in _SURFACES]
    named = tuple(any(one.of([key]) for one in said.mentions) for key in dict.fromkeys(thing.key for thing in things))
    skills = {"objects": all(named)}
    for skill, field in (("colours", "colour"), ("size", "size")):
        asked = [thing for thing in things if getattr(thing, field) is not None]
        if asked:
            skills[skill] = all(_has(said, thing, field) for thing in asked)
    if truth.kind == "count":
        skills["count"] = _counted(said, things)
    if truth.relation is not None:
        skills["relation"] = _stands(said, things, truth.relation)
    if words := [thing.word for thing in truth.things if thing.word is not None]:
        skills["words"] = all(word.casefold() in said.words for word in words)
    if truth.background is not None:
        skills["background"] = said.background == truth.background
    claims = (*_claims_of_things(truth, said, lexicon), *_other_claims(truth, said, lexicon))
    told = any(_pair(said.mentions[one], said.mentions[other], things) for one, _, other in said.relations)
    return CaptionMark(skills=skills, named=named, claims=claims, says_relation=told)


def _has(said: Said, thing: Thing, field: str) -> bool:
    readings = [reading for mention in said.mentions for reading in mention.of([thing.key])]
    return any(getattr(reading, field) == getattr(thing, field) for reading in readings)


def _counted(said: Said, things: Sequence[Thing]) -> bool:
    """Whether the number was told; of a thing that was called something else it is still the number."""
    own = [reading for mention in said.mentions for reading in mention.of([things[0].key])]
    spoken = own or [reading for mention in said.mentions for reading in mention.readings]
    return any(reading.count == len(things) for reading in spoken)


def _stands(said: Said, things: Sequence[Thing], relation: str) -> bool:
    first, second = things[0].key, things[1].key
    for one, told, other in said.relations:
        this, that = said.mentions[one], said.mentions[other]
        if told == relation and this.of([first]) and that.of([second]):
            return True
        if told == OPPOSITE[relation] and this.of([second]) and that.of([first]):
            return True
    return False


def _pair(one: Mention, other: Mention, things: Sequence[Thing]) -> tuple[Thing, Thing] | None:
    """Return two different things that two mentions name."""
    for this in things:
        for that in things:
            if this.key != that.key and one.of([this.key]) and other.of([that.key]):
                return this, that
    return None


def where(first: Thing, second: Thing) -> str:
    """Return how one thing really lies to another: along the axis on which their middles are farther apart.

    Args:
        first: the one that is left, right, above or below.
        second: of which.
    """
    (x, y), (u, v) = ((thing.box[0] + thing.box[2] / 2, thing.box[1] + thing.box[2] / 2) for thing in (first, second))
    if abs(x - u) >= abs(y - v):
        return "left" if x < u else "right"
    return "above" if y < v else "below"


def _claims_of_things(truth: Truth, said: Said, lexicon: Lexicon) -> Iterator[Claim]:
    things = [thing for thing in truth.things if thing.key not in _SURFACES]
    for mention in said.mentions:
        meant = [(thing, reading) for thing in things for reading in mention.of(_aliases(thing, lexicon))]
        if not meant:
            yield Claim(kind="thing", is_true=_is_search_word(mention.phrase, things, lexicon))
            continue
        yield Claim(kind="thing", is_true=True)
        told = [tuple(_attributes(reading, thing, truth, lexicon)) for thing, reading in meant]
        yield from min(told, key=lambda claims: (sum(not one.is_true for one in claims), -len(claims)))


def _aliases(thing: Thing, lexicon: Lexicon) -> tuple[str, ...]:
    category = lexicon.category(thing.key) if thing.key in lexicon.keys else None
    return (thing.key, KIND_OF + category[0]) if category else (thing.key,)


def _is_search_word(phrase: str, things: Sequence[Thing], lexicon: Lexicon) -> bool:
    """Whether a phrase is among what people type to find one of the things, though it names another."""
    keys = [thing.key for thing in things if thing.key in lexicon.keys]
    words = [word for key in keys for language in ("en", "zh") for word in lexicon.keywords(key, language)]
    return phrase.replace(" ", "") in {word.casefold().replace(" ", "") for word in words}


def _attributes(reading: Reading, thing: Thing, truth: Truth, lexicon: Lexicon) -> Iterator[Claim]:
    """Yield what a reading says of the thing that it means."""
    if reading.colour is not None:
        yield Claim(kind="colour", is_true=reading.colour in _colours(thing, truth, lexicon))
    if reading.size is not None:
        yield Claim(kind="size", is_true=reading.size == thing.size)
    if reading.count is not None and reading.is_told:
        number = sum(one.key == thing.key for one in truth.things)
        yield Claim(kind="count", is_true=reading.count == number)


def _colours(thing: Thing, truth: Truth, lexicon: Lexicon) -> tuple[str, ...]:
    """Return the colours that may be said of a thing: its paint, or those that fill its drawing."""
    if thing.colour is not None:
        return (thing.colour,)
    return lexicon.colours(thing.key, truth.style) if thing.key in lexicon.keys else ()


def _other_claims(truth: Truth, said: Said, lexicon: Lexicon) -> Iterator[Claim]:
    things = [thing for thing in truth.things if thing.key not in _SURFACES]
    on_things = {colour for thing in things for colour in _colours(thing, truth, lexicon)}
    for colour in said.colours:
        yield Claim(kind="colour", is_true=colour in on_things)
    for one, told, other in said.relations:
        if (pair := _pair(said.mentions[one], said.mentions[other], things)) is not None:
            yield Claim(kind="relation", is_true=told == where(*pair))
    written = {thing.word.casefold() for thing in truth.things if thing.word is not None}
    for word in said.words:
        yield Claim(kind="word", is_true=word in written)
    if said.background is not None:  # nothing is shown on white
        yield Claim(kind="background", is_true=said.background == (truth.background or "white"))
    if said.is_clear:
        yield Claim(kind="background", is_true=truth.background is None)
    for style in said.styles:
        yield Claim(kind="style", is_true=style == truth.style)


def marks_of(
    truths: Sequence[Truth], captions: Sequence[str], reader: ClaimReader, lexicon: Lexicon
) -> list[CaptionMark]:
    """Read and mark captions, one a scene."""
    return [mark_caption(truth, reader.read(text), lexicon) for truth, text in zip(truths, captions, strict=True)]


def tally(marked: Sequence[CaptionMark]) -> dict[str, Interval]:
    """Return skill -> share of the scenes with it of which it was told."""
    passes = {skill: [mark.skills[skill] for mark in marked if skill in mark.skills] for skill in SKILLS}
    return {skill: wilson(sum(seen), len(seen)) for skill, seen in passes.items() if seen}


def shuffled(truths: Sequence[Truth], captions: Sequence[str]) -> list[str]:
    """Give each scene the caption of the next one of its kind: what a captioner that sees nothing would score."""
    places: dict[str, list[int]] = {}
    for place, truth in enumerate(truths):
        places.setdefault(truth.kind, []).append(place)
    moved = list(captions)
    for own in places.values():
        for one, following in pairwise([*own, own[0]]):
            moved[one] = captions[following]
    return moved


def truth_scores(prefix: str, ours: Sequence[CaptionMark], others: Sequence[CaptionMark]) -> Iterator[Score]:
    """Score captions of scenes beside captions of other scenes.

    Args:
        prefix: of the scores' names.
        ours: marks.
        others: marks of the same captions against other scenes of the same kinds.
    """
    chance = tally(others)
    for skill, interval in tally(ours).items():
        yield score_of(f"{prefix}/{skill}", interval)
        yield score_of(f"{prefix}/{skill}-of-others", chance[skill], note="captions of other scenes of the same kind")
    named = [(float(one), row) for row, mark in enumerate(ours) for one in mark.named]
    yield score_of(f"{prefix}/things-named", _clustered(named), note="each kind of thing for itself")
    claims = [(float(not claim.is_true), row) for row, mark in enumerate(ours) for claim in mark.claims]
    if claims:
        yield score_of(f"{prefix}/invented", _clustered(claims), note="share of all claims that are false")
    for kind in CLAIMS:
        own = [
            (float(not claim.is_true), row)
            for row, mark in enumerate(ours)
            for claim in mark.claims
            if claim.kind == kind
        ]
        if own:
            yield score_of(f"{prefix}/invented-{kind}", _clustered(own), note=f"of {len(own)} claims")


def weakness_scores(prefix: str, ours: Sequence[CaptionMark]) -> Iterator[Score]:
    """Score two of the three weaknesses that the paper finds in its captioner: space and text.

    Source: Betker et al., "Improving Image Generation with Better Captions", 2023, section 5.
    """
    spatial = [mark for mark in ours if "relation" in mark.skills]
    if spatial:
        told = [mark for mark in spatial if mark.says_relation]
        right = sum(mark.skills["relation"] for mark in spatial)
        yield score_of(f"{prefix}/space", wilson(right, len(spatial)), note="the right relation of the right things")
        yield score_of(f"{prefix}/space-told", wilson(len(told), len(spatial)), note="any relation of the right things")
        among = sum(mark.skills["relation"] for mark in told)
        yield score_of(
            f"{prefix}/space-if-told", wilson(among, len(told)), note="given that one was told; a guess: 0.25"
        )
    written = [mark.skills["words"] for mark in ours if "words" in mark.skills]
    if written:
        yield score_of(f"{prefix}/text", wilson(sum(written), len(written)), note="the word on a sign, to the letter")


def _clustered(values: Sequence[tuple[float, int]]) -> Interval:
    """Return a mean whose interval resamples pictures."""
    numbers, rows = np.array([one for one, _ in values]), np.array([row for _, row in values])
    return bootstrap_mean(numbers, np.random.default_rng(_SEED), prompts=rows)
