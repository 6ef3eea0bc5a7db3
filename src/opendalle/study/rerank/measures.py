"""The candidates of one caption, drawn once: each with its scores, and marked by a judge that chooses nothing.

Candidate k of question i has seed k + 1000 i.  None of them has been chosen: a model that picks the best of several by
itself draws one at a time here.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from opendalle.base.protocols import Pipeline, ScoredPipeline
from opendalle.base.records import Sample
from opendalle.data.emoji.prompts import Prompt
from opendalle.data.emoji.world import World
from opendalle.evaluation import names, scenes
from opendalle.evaluation.choosing import Comparer
from opendalle.evaluation.drawing import Artist
from opendalle.evaluation.judge import Judge
from opendalle.evaluation.judge_batches import scene_vocabulary
from opendalle.pictures import composite, contact_sheet
from opendalle.study.cells import Measured
from opendalle.study.questions import SIZE, true_pictures

APART = 1_000  # between the seeds of two questions, and so the most candidates of one
BATCH = 16  # pictures drawn at once
SHOWN = 6  # questions of each group whose choices are shown

CLIP, LIKELIHOOD, GAIN = "clip", "likelihood", "gain"  # scores, under the names of Request.rank
SHUFFLED = "shuffled"  # CLIP against another question's caption
RIGHT, GRADE = "right", "grade"  # marks: all or nothing, and in between
CHOOSERS = (CLIP, LIKELIHOOD, GAIN, SHUFFLED)


@dataclass(frozen=True)
class _Drawn:
    pictures: list[Image.Image]
    own: dict[str, list[float]]  # the model's own scores, if it tells them
    seconds: dict[str, float]  # a candidate


class Examiner:
    """Draws, scores and marks candidates.

    Args:
        subject: who draws.
        questions: group -> what is asked.
        world: the artwork.
        judge: names what it sees; it never chose a candidate.
    """

    def __init__(
        self, subject: Pipeline, questions: Mapping[str, Sequence[Prompt]], world: World, judge: Judge
    ) -> None:
        self.subject, self.questions, self.world, self.judge = subject, questions, world, judge
        self.vocabulary = scene_vocabulary(world)

    def truth(self, group: str, num: int) -> Measured:
        """Mark the true pictures of a group.

        Args:
            group: of questions.
            num: the first so many.
        """
        asked = self.questions[group][:num]
        return Measured(values=self._marked(asked, true_pictures(asked, self.world)))

    def candidates(self, group: str, place: int, name: str, num: int) -> Measured:
        """Draw candidates of one question, score and mark each.

        Args:
            group: of questions.
            place: of the question in its group.
            name: of the sheet, which the first questions have.
            num: the first so many candidates.
        """
        question = self.questions[group][place]
        drawn = self._drawn([question.prompt] * num, range(APART * place, APART * place + num))
        values, seconds = self._marked([question] * num, drawn.pictures) | drawn.own, dict(drawn.seconds)
        if isinstance(self.subject, Comparer):
            began = time.perf_counter()
            captions = [question.prompt, other_question(self.questions[group], place).prompt]
            seen = torch.cat([self.subject.embed(picture) for picture in drawn.pictures])
            own, other = (seen @ self.subject.encode_text(captions).T).double().T
            values |= {CLIP: own.tolist(), SHUFFLED: other.tolist()}
            seconds[CLIP] = (time.perf_counter() - began) / num
        sheets = {name: _choices(values, drawn.pictures)} if place < SHOWN else {}
        return Measured(values=values, seconds=seconds, sheets=sheets)

    def _drawn(self, prompts: Sequence[str], seeds: Sequence[int]) -> _Drawn:
        asked: dict[str, Any] = {"background": "transparent", "batch": BATCH}  # as the model drew it, laid on nothing
        began = time.perf_counter()
        if not isinstance(self.subject, ScoredPipeline):
            pictures = list(Artist(self.subject, candidates=1, **asked).draw(prompts, SIZE, seeds[0]))
            return _Drawn(pictures, {}, {"drawing": (time.perf_counter() - began) / len(prompts)})
        samples = list(_finished(self.subject.generate_scored(prompts, seeds, width=SIZE, height=SIZE, **asked)))
        whole = time.perf_counter() - began
        ranking = sum(sample.seconds.get("rank", 0.0) for sample in samples[::BATCH])  # told once a batch
        own = {name: [sample.scores[name] for sample in samples] for name in (LIKELIHOOD, GAIN)}
        seconds = {"drawing": (whole - ranking) / len(prompts), "own scores": ranking / len(prompts)}
        return _Drawn([sample.picture for sample in samples], own, seconds)

    def _marked(self, questions: Sequence[Prompt], pictures: Sequence[Image.Image]) -> dict[str, list[float]]:
        """Mark one picture a question: single things by the judge, scenes by rules."""
        if questions[0].truth is not None:
            found = scenes.detections(pictures, self.judge, self.vocabulary)
            marks = scenes.marks(scenes.truths_of(questions), found)
            grades = [float(np.mean(list(mark.asked().values()))) for mark in marks]
            return {RIGHT: [float(mark.all_right) for mark in marks], GRADE: grades}
        answers = names.judged(questions, pictures, self.judge)
        sure, index = answers.verdict.concept.double().softmax(dim=1), self.judge.config.concepts.index
        grades = [float(row[[index(key) for key in one.keys]].sum()) for row, one in zip(sure, questions, strict=True)]
        return {RIGHT: answers.hits(1).tolist(), GRADE: grades}


def other_question(questions: Sequence[Prompt], place: int) -> Prompt:
    """Return another question about other things: the nearest before it, or else behind it.

    Args:
        questions: of one group.
        place: of the question.
    """
    own = set(questions[place].keys)
    others = [*reversed(questions[:place]), *questions[place + 1 :]]
    return next((one for one in others if not own & set(one.keys)), questions[place])


def chosen(values: Mapping[str, Sequence[float | None]]) -> dict[str, int]:
    """Return who chooses -> the candidate that it would keep; of equals the first.

    Args:
        values: of a cell of candidates.
    """
    places = {"first seed": 0}
    for name in CHOOSERS:
        if name in values:
            places[name] = int(np.argmax(np.array(values[name], dtype=np.float64)))
    return places | {"oracle": int(np.argmax(np.array(values[GRADE], dtype=np.float64)))}


def _choices(values: Mapping[str, Sequence[float]], pictures: Sequence[Image.Image]) -> Image.Image:
    places = chosen(values).values()
    return contact_sheet([composite(pictures[place]) for place in places], columns=len(places), gap=4)


def _finished(samples: Iterator[Sample]) -> Iterator[Sample]:
    return (sample for sample in samples if not sample.is_preview)
