"""Protocols about lone things: is what was drawn what was asked, beside real artwork and beside retrieval?"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor

from opendalle.data.emoji.prompts import Prompt
from opendalle.data.emoji.world import World
from opendalle.evaluation.distribution import copying, density_coverage, kid, random_features
from opendalle.evaluation.drawing import tensor_of
from opendalle.evaluation.judge import Judge, Verdict
from opendalle.evaluation.metrics import bootstrap_mean, paired_difference, paired_ratio, top_k_hits, wilson
from opendalle.evaluation.pixels import gradient_energy
from opendalle.evaluation.score import Score, score_of

_SEED = 20_260  # of every resample: a report repeats itself


@dataclass(frozen=True)
class Answers:
    """How the judge saw the pictures drawn for a list of questions."""

    questions: Sequence[Prompt]
    pictures: Sequence[Image.Image]
    verdict: Verdict
    judge: Judge

    def hits(self, k: int) -> Float[np.ndarray, " b"]:
        """Return 1 where any right concept is among the judge's k likeliest, else 0."""
        index_of = {key: index for index, key in enumerate(self.judge.config.concepts)}
        scores = self.verdict.concept.numpy()
        most = max(len(question.keys) for question in self.questions)
        hit = np.zeros(len(self.questions), dtype=bool)
        for place in range(most):
            rows = np.array([row for row, question in enumerate(self.questions) if place < len(question.keys)])
            labels: Int[np.ndarray, " b"] = np.array([index_of[self.questions[row].keys[place]] for row in rows])
            hit[rows] |= top_k_hits(scores[rows], labels, k)
        return hit.astype(np.float64)

    def style_hits(self) -> Float[np.ndarray, " b"]:
        """Return 1 where the judge's likeliest style is the asked one, else 0; NaN where none was asked."""
        best = self.verdict.style.argmax(dim=1).tolist()
        styles = self.judge.config.styles
        return np.array(
            [
                np.nan if question.style is None else float(styles[index] == question.style)
                for index, question in zip(best, self.questions, strict=True)
            ]
        )


def judged(questions: Sequence[Prompt], pictures: Sequence[Image.Image], judge: Judge) -> Answers:
    """Show pictures to the judge.

    Args:
        questions: what was asked.
        pictures: one a question.
        judge: of any size; pictures are brought to it.
    """
    return Answers(questions, pictures, judge.look(tensor_of(pictures, judge.config.size)), judge)


def real_pictures(questions: Sequence[Prompt], world: World, size: int = 64) -> list[Image.Image]:
    """Return the artwork of each question's first concept, in the asked style or the first that has it."""
    pictures = []
    for question in questions:
        rows = world.concept_of[question.keys[0]].rows
        style = question.style if question.style is not None and question.style in rows else next(iter(rows))
        pictures.append(Image.fromarray(world.sprite(question.keys[0], style, size)))
    return pictures


def seen_names(drawn: Answers, real: Answers) -> Iterator[Score]:
    """Score pictures of names that training has shown, beside artwork of the same names."""
    rng = np.random.default_rng(_SEED)
    for k, floor in ((5, 0.95), (1, 0.80)):
        ours, theirs = drawn.hits(k), real.hits(k)
        yield score_of(f"seen/top{k}", wilson(int(ours.sum()), len(ours)))
        yield score_of(f"seen/top{k}-of-real", wilson(int(theirs.sum()), len(theirs)), note="artwork, same names")
        yield score_of(f"seen/top{k}-share", paired_ratio(ours, theirs, rng), floor=floor, note="drawn over real")
    yield from _styles("seen", drawn)
    features, reference = drawn.verdict.features.numpy(), real.verdict.features.numpy()
    yield score_of("seen/KID-judge", kid(features, reference, rng), note="0 is alike; artwork of the same names")
    if len(features) > 5:
        spread = density_coverage(features, reference)
        yield Score(name="seen/density-judge", value=spread.density, n=len(features), note="k = 5; 1 is alike")
        yield Score(name="seen/coverage-judge", value=spread.coverage, n=len(features), note="k = 5; 1 is best")


def held_out_cells(drawn: Answers, real: Answers, world: World) -> Iterator[Score]:
    """Score (concept, style) cells that training never showed, beside the best a retriever could do.

    The retriever is given the right concept and shows its training picture in another style.  It names well and
    styles badly, so the contest is about both at once: concept in the top five and style right.
    """
    rng = np.random.default_rng(_SEED)
    ours, theirs = drawn.hits(5), real.hits(5)
    yield score_of("cells/top5", wilson(int(ours.sum()), len(ours)))
    yield score_of("cells/top5-of-real", wilson(int(theirs.sum()), len(theirs)), note="the held-out artwork")
    yield score_of("cells/top5-share", paired_ratio(ours, theirs, rng), floor=0.80, note="drawn over real")
    yield from _styles("cells", drawn)
    retrieved = judged(drawn.questions, _retrieved(drawn.questions, world), drawn.judge)
    both = ours * np.nan_to_num(drawn.style_hits())
    rival = retrieved.hits(5) * np.nan_to_num(retrieved.style_hits())
    yield score_of("cells/top5-and-style", wilson(int(both.sum()), len(both)))
    yield score_of(
        "cells/top5-and-style-of-retrieval", wilson(int(rival.sum()), len(rival)), note="same concept, another style"
    )
    yield score_of(
        "cells/beyond-retrieval",
        paired_difference(both, rival, rng),
        floor=0.0,
        note="top 5 and style; drawn - retrieved",
    )


def _retrieved(questions: Sequence[Prompt], world: World) -> list[Image.Image]:
    pictures = []
    for question in questions:
        concept = world.concept_of[question.keys[0]]
        trained = [style for style in concept.rows if style != question.style and style not in concept.held_out_styles]
        pictures.append(Image.fromarray(world.sprite(concept.hexcode, (trained or list(concept.rows))[0])))
    return pictures


def chinese_twins(drawn: Answers, twins: Answers) -> Iterator[Score]:
    """Score Chinese sentences against their English twins, drawn from the same seeds."""
    rng = np.random.default_rng(_SEED)
    ours, theirs = drawn.hits(5), twins.hits(5)
    yield score_of("chinese/top5", wilson(int(ours.sum()), len(ours)))
    yield score_of("chinese/top5-of-english", wilson(int(theirs.sum()), len(theirs)))
    yield score_of(
        "chinese/behind-english",
        paired_difference(ours, theirs, rng),
        floor=-0.05,
        note="Chinese - English, same seeds",
    )


def paraphrased(drawn: Answers) -> Iterator[Score]:
    """Score prompts in words that no caption contains."""
    hits = drawn.hits(10)
    yield score_of("paraphrases/top10", wilson(int(hits.sum()), len(hits)), floor=0.60)
    chance = np.mean([10 * len(question.keys) / len(drawn.judge.config.concepts) for question in drawn.questions])
    yield Score(name="paraphrases/top10-of-chance", value=float(min(1.0, chance)), n=len(hits))


def memorisation(drawn: Answers, world: World) -> Iterator[Score]:
    """Tell drawing from copying: are drawn pictures nearer to training pictures than to ones never trained on?"""
    rng = np.random.default_rng(_SEED)
    trained, unseen = split_pictures(world)
    if min(len(trained), len(unseen)) < 2:
        return  # nothing to compare with
    for name, look in (("judge", _judge_features(drawn.judge)), ("random", random_features)):
        result = copying(look(tensor_of(drawn.pictures, 64)), look(trained), look(unseen), rng)
        note = "nearest training over nearest held-out distance, equal set sizes; 1 is drawing, 0 copying"
        yield score_of(f"copying/ratio-{name}", result.ratio, note=note)
        yield Score(
            name=f"copying/share-{name}",
            value=result.copies,
            n=len(drawn.pictures),
            note="nearer to a training picture than 1 % of training pictures are to each other",
        )


def split_pictures(world: World) -> tuple[Float[Tensor, "n 3 h w"], Float[Tensor, "m 3 h w"]]:
    """Return all training artwork and all held-out artwork on white, at 64 px in [-1, 1]."""
    rows: dict[bool, list[int]] = {True: [], False: []}
    for concept in world.concepts:
        for style, row in concept.rows.items():
            rows[concept.held_out or style in concept.held_out_styles].append(row)

    def load(which: list[int]) -> Float[Tensor, "_ 3 h w"]:
        return tensor_of([Image.fromarray(np.asarray(world.sprites[row])) for row in which])

    return load(rows[False]), load(rows[True])


def _judge_features(judge: Judge) -> Callable[[Float[Tensor, "b 3 h w"]], Float[np.ndarray, "b d"]]:
    return lambda pictures: judge.look(pictures).features.numpy()


def _styles(protocol: str, drawn: Answers) -> Iterator[Score]:
    hits = drawn.style_hits()
    asked: Bool[np.ndarray, " b"] = ~np.isnan(hits)
    if asked.any():
        yield score_of(f"{protocol}/style", wilson(int(hits[asked].sum()), int(asked.sum())), note="the asked style")


def sharpness(
    drawn: Sequence[Image.Image], enlarged: Sequence[Image.Image], questions: Sequence[Prompt], judge: Judge | None
) -> Iterator[Score]:
    """Compare 256 px pictures with a bicubic enlargement of the same drawings.

    Args:
        drawn: by the upsampler.
        enlarged: by a plain filter, from the same 64 px pictures.
        questions: what was asked.
        judge: at 256 px, taught without soft pictures; None leaves its rows out.
    """
    rng = np.random.default_rng(_SEED)
    ours, theirs = gradient_energy(tensor_of(drawn)).numpy(), gradient_energy(tensor_of(enlarged)).numpy()
    yield score_of("sharp/gradient-energy", bootstrap_mean(ours, rng))
    yield score_of("sharp/gradient-energy-of-bicubic", bootstrap_mean(theirs, rng))
    note = "paired, upsampled - bicubic"
    yield score_of("sharp/gradient-gain", paired_difference(ours, theirs, rng), floor=0.0, of_low=True, note=note)
    if judge is None:
        return
    first, second = judged(questions, drawn, judge), judged(questions, enlarged, judge)
    yield score_of("sharp/judge256-top1", wilson(int(first.hits(1).sum()), len(drawn)))
    yield score_of("sharp/judge256-top1-of-bicubic", wilson(int(second.hits(1).sum()), len(drawn)))
    gain = paired_difference(_surety(first), _surety(second), rng)
    yield score_of("sharp/judge256-gain", gain, floor=0.0, of_low=True, note=f"log probability of the name; {note}")


def _surety(answers: Answers) -> Float[np.ndarray, " b"]:
    """Return the log probability of each question's first concept."""
    index_of = {key: index for index, key in enumerate(answers.judge.config.concepts)}
    labels = torch.tensor([index_of[question.keys[0]] for question in answers.questions])
    return answers.verdict.concept.log_softmax(1).gather(1, labels[:, None])[:, 0].numpy().astype(np.float64)
