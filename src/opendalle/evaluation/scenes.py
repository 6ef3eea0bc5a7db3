"""Protocols about scenes: marked by rules, beside truth renders, with the rules' own errors shown."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float
from PIL import Image

from opendalle.data.emoji.compose import Composer
from opendalle.data.emoji.prompts import Prompt
from opendalle.data.emoji.truth import Truth
from opendalle.data.emoji.world import World
from opendalle.evaluation.detect import DetectConfig, Detection, detect
from opendalle.evaluation.judge import Judge
from opendalle.evaluation.marking import SKILLS, Mark, counterfactuals, mark_scene
from opendalle.evaluation.metrics import Interval, wilson
from opendalle.evaluation.score import Score, score_of

FLOORS = {"background": 0.95, "objects": 0.80, "relation": 0.75, "binding": 0.70, "count": 0.70}
TRUE_FLOOR = 0.98  # of every skill on truth renders: below it the rules, not the model, are being measured
FALSE_ACCEPT = 0.03  # of pictures that differ from what was asked in one skill


def truths_of(questions: Sequence[Prompt]) -> list[Truth]:
    """Return the truths of scene questions, which all have one."""
    return [question.truth for question in questions if question.truth is not None]


def truth_renders(truths: Sequence[Truth], world: World, size: int) -> list[Image.Image]:
    """Compose what was asked out of real artwork."""
    composer = Composer(world, size)
    return [Image.fromarray(composer.draw(truth)) for truth in truths]


def detections(
    pictures: Sequence[Image.Image], judge: Judge, vocabulary: Sequence[str], config: DetectConfig | None = None
) -> list[Detection]:
    """Look for things on every picture."""
    return [detect(picture, judge, vocabulary, config) for picture in pictures]


def marks(truths: Sequence[Truth], found: Sequence[Detection]) -> list[Mark]:
    """Mark every picture against its truth."""
    return [mark_scene(truth, detection) for truth, detection in zip(truths, found, strict=True)]


def tally(marked: Sequence[Mark]) -> Mapping[str, Interval]:
    """Return skill -> share of the pictures that were asked for it and show it."""
    passes = {skill: [mark.asked()[skill] for mark in marked if skill in mark.asked()] for skill in SKILLS}
    return {skill: wilson(sum(seen), len(seen)) for skill, seen in passes.items() if seen}


def scene_scores(ours: Sequence[Mark], real: Sequence[Mark]) -> Iterator[Score]:
    """Score drawn scenes beside truth renders of the same scenes."""
    theirs = tally(real)
    for skill, interval in tally(ours).items():
        yield score_of(f"scenes/{skill}", interval, floor=FLOORS.get(skill))
        yield score_of(f"scenes/{skill}-of-truth", theirs[skill], note="truth renders under the same rules")
    both = [mark for mark in ours if mark.relation is not None and mark.objects]
    if both:
        stands = sum(bool(mark.relation) for mark in both)
        yield score_of("scenes/relation-if-both", wilson(stands, len(both)), note="given that both things are there")
    yield score_of("scenes/all-right", wilson(sum(mark.all_right for mark in ours), len(ours)))


def new_scene_scores(new: Sequence[Mark], seen: Sequence[Mark]) -> Iterator[Score]:
    """Compare scenes of held-out combinations with scenes of seen ones, skill by skill."""
    rng = np.random.default_rng(20_260)
    before = {skill: _passes(seen, skill) for skill in SKILLS}
    for skill, interval in tally(new).items():
        yield score_of(f"new-scenes/{skill}", interval)
        after, reference = _passes(new, skill), before[skill]
        if len(reference):
            behind = _difference(after, reference, rng)
            yield score_of(f"new-scenes/{skill}-behind", behind, floor=-0.10, note="held-out - seen combinations")


def validate_rules(
    truths: Sequence[Truth], world: World, judge: Judge, vocabulary: Sequence[str], size: int = 64
) -> Iterator[Score]:
    """Examine the examiner: truth renders must pass, and must fail what they do not show.

    Args:
        truths: scenes of every kind.
        world: the artwork.
        judge: names the crops.
        vocabulary: concepts that scenes are made of.
        size: side of the renders in pixels.
    """
    found = detections(truth_renders(truths, world, size), judge, vocabulary)
    for skill, interval in tally(marks(truths, found)).items():
        yield score_of(f"rules/{skill}", interval, floor=TRUE_FLOOR, note="truth renders that pass")
    accepted: dict[str, list[bool]] = {}
    for truth, detection in zip(truths, found, strict=True):
        for skill, other in counterfactuals(truth).items():
            accepted.setdefault(skill, []).append(bool(getattr(mark_scene(other, detection), skill)))
    for skill, wrong in accepted.items():
        rejected = wilson(len(wrong) - sum(wrong), len(wrong))
        yield score_of(
            f"rules/{skill}-refused", rejected, floor=1 - FALSE_ACCEPT, note="truth renders refused for another scene"
        )


def _passes(marked: Sequence[Mark], skill: str) -> Float[np.ndarray, " p"]:
    return np.array([float(mark.asked()[skill]) for mark in marked if skill in mark.asked()])


def _difference(
    first: Float[np.ndarray, " p"], second: Float[np.ndarray, " q"], rng: np.random.Generator, num_draws: int = 2_000
) -> Interval:
    """Return mean(first) - mean(second) of two lists of different prompts, each resampled by itself."""
    draws = first[rng.integers(0, len(first), (num_draws, len(first)))].mean(axis=1)
    draws = draws - second[rng.integers(0, len(second), (num_draws, len(second)))].mean(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(float(first.mean() - second.mean()), float(low), float(high), len(first))
