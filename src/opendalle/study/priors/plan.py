"""The cells of this study, in the order in which they are measured."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from opendalle.base.errors import BadModel, require
from opendalle.data.emoji.prompts import Prompt
from opendalle.study.bench import Bench
from opendalle.study.cells import Cell, Measured, Study
from opendalle.study.priors.claims import DECODER, PRIOR, TEXT_TWIN, TWIN
from opendalle.study.priors.measures import APART, SCENES_SHOWN, SHOWN, Examiner, Subject
from opendalle.study.priors.readings import GUIDED, OWN, draw_cell, embed_cell, guide_cell, near_cell, truth_cell
from opendalle.study.priors.tables import Pages
from opendalle.study.questions import GROUPS, SCENES, SINGLE, in_turns, questions_of
from opendalle.study.report import Report

EMBEDDED = 4  # embeddings are cheap: so many times the questions that are drawn
GUIDED_SHARE, GUIDED_LEAST = 3 / 8, 8  # of the single things, for every point of the curves


@dataclass(frozen=True, kw_only=True)
class PriorsConfig:
    """How much is measured."""

    num: int = 64  # single things, half of them in styles held out from training; and half as many scenes a skill
    seeds: int = 3  # drawings of each single thing
    guidances: tuple[float, ...] = (1.0, 1.5, 2.0, 3.0, 4.0)  # of decoder and prior; 1 is off

    def __post_init__(self) -> None:
        require(2 <= self.num <= APART, f"num is {self.num}", f"2 to {APART}")
        require(1 <= self.seeds <= 16, f"seeds is {self.seeds}", "1 to 16")
        require(len(self.guidances) >= 2, f"guidances {self.guidances}", "two or more")
        require(len(set(self.guidances)) == len(self.guidances), f"guidances {self.guidances}", "each once")
        require(min(self.guidances) >= 0, f"guidances {self.guidances}", "0 or more; 1 is off")


@dataclass(frozen=True, kw_only=True)
class Twins:
    """Two decoders that a study trains and compares; what it takes to get them."""

    seconds: float  # of the training, about
    told: Callable[[], Mapping[str, Any]]  # what they depend on, as far as it is known
    train: Callable[[], Measured]  # ends when both are there
    subject: Callable[[str], Subject]  # of TWIN or TEXT_TWIN, once they are


def priors_study(bench: Bench, config: PriorsConfig, twins: Twins | None = None) -> Study:
    """Plan the comparison of a model's priors.

    Args:
        bench: the model, the world and the judge.
        config: how much is measured.
        twins: also these; None: what needs them is not measured.

    Raises:
        BadModel: when the model has no priors to compare.
    """
    subject = bench.subject
    if not isinstance(subject, Subject) or OWN not in subject.priors:
        raise BadModel("a model without a diffusion prior", "a DALL·E 2", "See opendalle models list.")
    arms, half = list(subject.priors), max(1, config.num // 2)
    asked = questions_of(bench.world, EMBEDDED * half)
    some = min(config.num, max(GUIDED_LEAST, round(GUIDED_SHARE * config.num)))
    asked[GUIDED] = in_turns(*(asked[group][:half] for group in SINGLE))[:some]
    examiner = Examiner(asked, bench.world, bench.judge, config.seeds)
    drawn = {group: min(len(asked[group]), half * (3 if group == SCENES else 1)) for group in GROUPS}
    cells = [
        *(_cell(truth_cell(group), f"truth {group}", drawn[group], partial(examiner.truth, group)) for group in GROUPS),
        *_embeddings(subject, examiner, arms),
        *_drawings(subject, examiner, arms, drawn),
        *_curves(subject, examiner, arms, config.guidances),
        *(_twins(subject, examiner, drawn, twins) if twins is not None else ()),
    ]
    shown = {group: _shown(asked[group], drawn[group], group) for group in GROUPS}
    told = {**bench.told, "num": config.num, "seeds": config.seeds, "guidances": list(config.guidances)}

    def report(measured: Mapping[str, Measured]) -> Report:
        more = {"twins": ", ".join(f"{name} {one}" for name, one in twins.told().items())} if twins else {}
        return Pages(measured, arms, config.guidances, shown, told | more).report()

    return Study(name="priors", settings=told | {"priors": arms}, cells=cells, report=report)


def _cell(name: str, kind: str, size: int, measure: Callable[[int], Measured], **more: Any) -> Cell:
    return Cell(name=name, kind=kind, size=size, measure=measure, **more)


def _embeddings(subject: Subject, examiner: Examiner, arms: Sequence[str]) -> list[Cell]:
    cells: list[Cell] = []
    for group in GROUPS:
        count = len(examiner.questions[group])
        near = partial(examiner.true_embeddings, subject, group)
        cells.append(_cell(near_cell(group), "true embeddings", count, near, trial=16))
        cells += [
            _cell(
                embed_cell(group, arm),
                f"embeddings by {arm}",
                count,
                partial(examiner.embeddings, subject, group, arm),
                trial=16,
            )
            for arm in arms
            if arm != "caption"
        ]
    return cells


def _drawings(subject: Subject, examiner: Examiner, arms: Sequence[str], drawn: Mapping[str, int]) -> list[Cell]:
    return [
        _cell(
            draw_cell(group, arm),
            "scenes" if group == SCENES else "pictures",
            drawn[group],
            partial(examiner.pictures, subject, group, f"{group}-{arm}", prior=arm),
            trial=8 if group == SCENES else 4,
        )
        for group in GROUPS
        for arm in arms
    ]


def _curves(subject: Subject, examiner: Examiner, arms: Sequence[str], guidances: Sequence[float]) -> list[Cell]:
    curves = [(arm, DECODER) for arm in (OWN, "caption") if arm in arms] + [(OWN, PRIOR)]
    return [
        _cell(
            guide_cell(arm, knob, scale),
            "pictures",
            len(examiner.questions[GUIDED]),
            partial(
                examiner.pictures, subject, GUIDED, guide_cell(arm, knob, scale), **{"prior": arm, knob: float(scale)}
            ),
        )
        for arm, knob in curves
        for scale in guidances
    ]


def _twins(subject: Subject, examiner: Examiner, drawn: Mapping[str, int], twins: Twins) -> list[Cell]:
    def pictures(arm: str, group: str, num: int) -> Measured:
        prior = OWN if arm == TWIN else "caption"
        return examiner.pictures(twins.subject(arm), group, f"{group}-{arm}", num, prior=prior)

    def train(_: int) -> Measured:
        return twins.train()

    cells = [_cell("twins", "training", 1, train, seconds=twins.seconds)]
    for group in (SINGLE[1], SCENES):
        kind = "scenes" if group == SCENES else "pictures"
        instead = partial(examiner.pictures, subject, group, "trial", prior=OWN)  # until there are twins
        cells += [
            _cell(draw_cell(group, arm), kind, drawn[group], partial(pictures, arm, group), instead=instead)
            for arm in (TWIN, TEXT_TWIN)
        ]
    return cells


def _shown(questions: Sequence[Prompt], drawn: int, group: str) -> list[str]:
    most = SCENES_SHOWN if group == SCENES else SHOWN
    return [question.prompt for question in questions[: min(drawn, most)]]
