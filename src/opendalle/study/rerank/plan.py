"""The cells of this study: one a prompt, with all its candidates, so that little is lost when it is stopped."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from opendalle.base.errors import BadModel, require
from opendalle.base.protocols import ScoredPipeline
from opendalle.evaluation.choosing import Comparer
from opendalle.study.bench import Bench, open_bench
from opendalle.study.cells import Cell, Measured, Study
from opendalle.study.questions import GROUPS, SCENES, SIZE, questions_of
from opendalle.study.report import Report
from opendalle.study.rerank.measures import APART, BATCH, SHOWN, Examiner
from opendalle.study.rerank.readings import cell_of, truth_cell
from opendalle.study.rerank.tables import Pages


@dataclass(frozen=True, kw_only=True)
class RerankConfig:
    """How much is measured."""

    num: int = 64  # single things, half of them in styles held out from training; and half as many scenes a skill
    candidates: int = 32  # of each prompt

    def __post_init__(self) -> None:
        require(2 <= self.num <= APART, f"num is {self.num}", f"2 to {APART}")
        require(2 <= self.candidates <= APART, f"candidates is {self.candidates}", f"2 to {APART}")


def rerank_study(bench: Bench, config: RerankConfig) -> Study:
    """Plan the comparison of what could choose among a model's candidates.

    Args:
        bench: the model, the world and the judge.
        config: how much is measured.

    Raises:
        BadModel: when the model cannot draw at the size of the marks, or nothing about it can choose.
    """
    subject, half = bench.subject, config.num // 2
    if not isinstance(subject, ScoredPipeline | Comparer):
        raise BadModel("a model that scores no picture", "one with CLIP or a likelihood", "See opendalle models list.")
    sizes = getattr(subject, "sizes", (SIZE,))
    if SIZE not in sizes:
        raise BadModel(f"a model that draws {', '.join(map(str, sizes))} px", f"one that draws {SIZE} px, too")
    asked = questions_of(bench.world, half)
    examiner = Examiner(subject, asked, bench.world, bench.judge)
    counts = {group: len(asked[group]) for group in GROUPS}
    cells = [
        Cell(name=truth_cell(group), kind=f"truth {group}", size=counts[group], measure=partial(examiner.truth, group))
        for group in GROUPS
        if counts[group]
    ]
    cells += [
        Cell(
            name=cell_of(group, place),
            kind="scenes" if group == SCENES else "single",
            size=config.candidates,
            measure=partial(examiner.candidates, group, place, cell_of(group, place)),
            trial=BATCH,
        )
        for place in range(max(counts.values()))  # groups take turns, so that a part of the study has some of each
        for group in GROUPS
        if place < counts[group]
    ]
    prompts = {group: [question.prompt for question in asked[group][:SHOWN]] for group in GROUPS}
    told = {**bench.told, "num": config.num, "candidates": config.candidates}

    def report(measured: Mapping[str, Measured]) -> Report:
        return Pages(measured, counts, config.candidates, prompts, told).report()

    return Study(name="rerank", settings=told, cells=cells, report=report)


def open_rerank(model: str | Path, *, data: Path, judge: str | Path, config: RerankConfig) -> Study:
    """Plan the comparison from names.

    Args:
        model: a bundled name, or a folder.
        data: the emoji world.
        judge: a bundled name, or a folder.
        config: how much is measured.

    Raises:
        BadModel: when there is no such model or judge, or the model cannot be studied so.
    """
    return rerank_study(open_bench(model, data=data, judge=judge), config)
