"""One prior measured on one group of questions: its embeddings beside the true ones, and the pictures drawn with it.

Question i, drawn for the k-th time, has seed i + 1000 k whatever the prior, so two priors differ in nothing else.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from opendalle.base.records import Sample
from opendalle.data.emoji.prompts import Prompt
from opendalle.data.emoji.world import World
from opendalle.evaluation import names, scenes
from opendalle.evaluation.distribution import distances, random_features
from opendalle.evaluation.drawing import Artist, tensor_of
from opendalle.evaluation.judge import Judge
from opendalle.evaluation.judge_batches import scene_vocabulary
from opendalle.evaluation.metrics import top_k_hits
from opendalle.pictures import composite, contact_sheet
from opendalle.study.cells import Measured
from opendalle.study.questions import SIZE, SKILLS, true_pictures

APART = 1_000  # between the seeds of one question, and so the most questions of a group
BATCH = 16  # pictures drawn at once
SHOWN = 8  # questions on a sheet
SCENES_SHOWN = 16  # scenes on a sheet


@runtime_checkable
class Subject(Protocol):
    """What this study asks of a pipeline: its pictures, and three probes."""

    @property
    def priors(self) -> Sequence[str]:
        """Names of the priors that it has."""
        ...

    def generate(self, prompt: str = "", *, hooks: Any = None, **asked: Any) -> Iterator[Sample]:
        """Draw, as in `base.protocols.Pipeline`."""
        ...

    def encode_text(self, captions: Sequence[str]) -> Float[Tensor, "b e"]:
        """Embed captions."""
        ...

    def embed(self, what: Any) -> Float[Tensor, "b e"]:
        """Embed one picture, one row."""
        ...

    def prior(self, captions: Sequence[str], seeds: Sequence[int], **asked: Any) -> Float[Tensor, "b e"] | None:
        """Draw one embedding a caption."""
        ...


class Examiner:
    """Measures a pipeline's priors.

    Args:
        questions: group -> what is asked.
        world: the artwork.
        judge: names what it sees; it never guided a drawing.
        seeds: drawings of each single thing.
    """

    def __init__(self, questions: Mapping[str, Sequence[Prompt]], world: World, judge: Judge, seeds: int) -> None:
        self.questions, self.world, self.judge, self.seeds = questions, world, judge, seeds
        self.vocabulary = scene_vocabulary(world)
        self._true: dict[str, Float[Tensor, "b e"]] = {}

    def truth(self, group: str, num: int) -> Measured:
        """Have the true pictures judged: the best that a drawing could reach under this judge.

        Args:
            group: of questions.
            num: the first so many.
        """
        asked = self.questions[group][:num]
        pictures = true_pictures(asked, self.world)
        sheets = {f"{group}-truth": sheet_of([pictures], is_scene=asked[0].truth is not None)}
        if asked[0].truth is not None:
            return Measured(values=self._marked(asked, pictures), sheets=sheets)
        values = self._named(asked, [pictures])
        del values["diversity"], values["diversity-random"]  # there is one artwork of each
        for name, features in self._features(pictures).items():
            apart = distances(features, features)
            values[f"apart{name}"] = [float(one) for one in apart.sum(axis=1) / max(1, len(apart) - 1)]
        return Measured(values=values, sheets=sheets)

    def embeddings(self, subject: Subject, group: str, prior: str, num: int) -> Measured:
        """Compare a prior's embeddings with those of the true pictures.

        Args:
            subject: whose prior it is.
            group: of questions.
            prior: its name; one that gives embeddings.
            num: the first so many questions.
        """
        asked = [question.prompt for question in self.questions[group][:num]]
        true = self._true_embeddings(subject, group)[: len(asked)]
        began = time.perf_counter()
        found = subject.prior(asked, list(range(len(asked))), prior=prior)
        seconds = (time.perf_counter() - began) / len(asked)
        assert found is not None, "priors that give no embeddings have no such cell"
        return self._beside(F.normalize(found, dim=-1), true, subject.encode_text(asked), seconds)

    def true_embeddings(self, subject: Subject, group: str, num: int) -> Measured:
        """Compare the true pictures' embeddings with their captions: how near an honest drawing would lie.

        Args:
            subject: whose CLIP it is.
            group: of questions.
            num: the first so many.
        """
        asked = [question.prompt for question in self.questions[group][:num]]
        true = self._true_embeddings(subject, group)[: len(asked)]
        nearness = F.cosine_similarity(true, subject.encode_text(asked))
        return Measured(values={"nearness": nearness.tolist()})

    def pictures(self, subject: Subject, group: str, name: str, num: int, **asked: Any) -> Measured:
        """Have the questions of a group drawn and judged.

        Args:
            subject: who draws.
            group: of questions.
            name: of the sheet.
            num: the first so many questions.
            **asked: fields of `Request`, the prior among them.
        """
        some = self.questions[group][:num]
        is_scene = some[0].truth is not None
        artist, prompts = Artist(subject, batch=BATCH, **asked), [question.prompt for question in some]
        began = time.perf_counter()
        drawn = [list(artist.draw(prompts, SIZE, APART * k)) for k in range(1 if is_scene else self.seeds)]
        seconds = {"picture": (time.perf_counter() - began) / (len(drawn) * len(prompts))}
        values = self._marked(some, drawn[0]) if is_scene else self._named(some, drawn)
        return Measured(values=values, seconds=seconds, sheets={name: sheet_of(drawn, is_scene=is_scene)})

    def _beside(
        self, found: Float[Tensor, "b e"], true: Float[Tensor, "b e"], captions: Float[Tensor, "b e"], seconds: float
    ) -> Measured:
        similarity, own = (found @ F.normalize(true, dim=-1).T).numpy(), np.arange(len(found))
        values: dict[str, Sequence[float]] = {
            "cosine": F.cosine_similarity(found, true).tolist(),
            "nearness": F.cosine_similarity(found, captions).tolist(),
            "first": [float(hit) for hit in top_k_hits(similarity, own, 1)],
            "five": [float(hit) for hit in top_k_hits(similarity, own, 5)],
            "rank": [float(rank) for rank in (similarity >= similarity[own, own][:, None]).sum(axis=1)],
        }
        return Measured(values=values, seconds={"embedding": seconds})

    def _true_embeddings(self, subject: Subject, group: str) -> Float[Tensor, "b e"]:
        """Embed the true pictures of a group once."""
        if group not in self._true:
            pictures = true_pictures(self.questions[group], self.world)
            self._true[group] = torch.cat([subject.embed(picture) for picture in pictures])
        return self._true[group]

    def _named(
        self, questions: Sequence[Prompt], drawn: Sequence[Sequence[Image.Image]]
    ) -> dict[str, list[float | None]]:
        """Judge single things, each drawn several times; one number a question, the mean of its drawings."""
        answers = [names.judged(questions, pictures, self.judge) for pictures in drawn]
        values = {f"top{k}": _means([one.hits(k) for one in answers]) for k in (1, 5)}
        values["style"] = _means([one.style_hits() for one in answers])
        features = [self._features(pictures) for pictures in drawn]
        for name in features[0]:
            apart = [np.linalg.norm(a[name] - b[name], axis=1) for a, b in combinations(features, 2)]
            values[f"diversity{name}"] = _means(apart) if apart else [None] * len(questions)
        return values

    def _marked(self, questions: Sequence[Prompt], pictures: Sequence[Image.Image]) -> dict[str, list[float | None]]:
        """Mark scenes by rules."""
        found = scenes.detections(pictures, self.judge, self.vocabulary)
        marks = [mark.asked() for mark in scenes.marks(scenes.truths_of(questions), found)]
        return {skill: [float(mark[skill]) if skill in mark else None for mark in marks] for skill in SKILLS}

    def _features(self, pictures: Sequence[Image.Image]) -> dict[str, Float[np.ndarray, "b d"]]:
        """Return features that guided no drawing: the judge's, and those of a network with random weights."""
        seen = tensor_of(pictures, SIZE)
        judged = self.judge.look(tensor_of(pictures, self.judge.config.size)).features.numpy()
        return {"": judged.astype(np.float64), "-random": random_features(seen).astype(np.float64)}


def _means(rows: Sequence[Float[np.ndarray, " b"]]) -> list[float | None]:
    """Return the mean of each question over its drawings; None where it was not asked."""
    return [None if np.isnan(one) else float(one) for one in np.stack(rows).mean(axis=0)]


def sheet_of(drawn: Sequence[Sequence[Image.Image]], *, is_scene: bool) -> Image.Image:
    """Lay out the first questions: a column a question and a row a seed; scenes in rows of eight.

    Args:
        drawn: for each seed a picture a question.
        is_scene: whether each question was drawn once.
    """
    first = drawn[0][:SCENES_SHOWN] if is_scene else [one for pictures in drawn for one in pictures[:SHOWN]]
    columns = min(SHOWN, len(first)) if is_scene else len(drawn[0][:SHOWN])
    return contact_sheet([composite(one) for one in first], columns=columns, gap=4)
