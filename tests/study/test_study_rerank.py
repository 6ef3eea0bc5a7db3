"""The study of candidates: best of k is the mean over all subsets, and a cell holds what the pipeline drew and said."""

import dataclasses
import json
from itertools import combinations
from math import comb

import numpy as np
import pytest
import torch

from opendalle.base.errors import BadConfig, BadModel
from opendalle.data.emoji.prompts import Prompt
from opendalle.evaluation.detect import Detection
from opendalle.evaluation.drawing import tensor_of
from opendalle.pictures import composite
from opendalle.study.cells import Measured
from opendalle.study.notebook import Notebook
from opendalle.study.page import page
from opendalle.study.questions import GROUPS, questions_of
from opendalle.study.report import said
from opendalle.study.rerank.claims import CLAIMS
from opendalle.study.rerank.expectation import best_of
from opendalle.study.rerank.measures import APART, Examiner, chosen, other_question
from opendalle.study.rerank.plan import RerankConfig, rerank_study
from opendalle.study.rerank.readings import Readings, cell_of
from opendalle.study.rerank.tables import TOLD
from opendalle.study.running import carry_out

SMALL = RerankConfig(num=2, candidates=4)


def slow_best_of(scores, marks, k):
    """Walk every subset; among equals of the highest score each is kept as often as the others."""
    kept = []
    for some in combinations(range(len(scores)), k):
        highest = max(scores[place] for place in some)
        kept.append(np.mean([marks[place] for place in some if scores[place] == highest]))
    return np.mean(kept)


@pytest.mark.parametrize("levels", [1, 2, 4, 1000])
def test_best_of_k_is_the_mean_over_all_subsets(levels):
    rng = np.random.default_rng(levels)
    for n in (1, 2, 5, 8):
        scores, marks = rng.integers(0, levels, n).astype(float), rng.random(n)
        found = best_of(scores, marks)
        assert found == pytest.approx([slow_best_of(scores, marks, k) for k in range(1, n + 1)], abs=1e-12)
        shuffle = rng.permutation(n)
        assert best_of(scores[shuffle], marks[shuffle]) == pytest.approx(found, abs=1e-12)  # order says nothing


def test_a_rank_weighs_what_the_formula_says():
    n = 32
    for rank in (1, 2, 17, 32):
        marks = np.zeros(n)
        marks[rank - 1] = 1.0
        weights = [comb(n - rank, k - 1) / comb(n, k) for k in range(1, n + 1)]
        assert best_of(-np.arange(n, dtype=float), marks) == pytest.approx(weights, abs=1e-12)


def test_controls_are_what_they_must_be():
    marks = np.array([0.0, 1.0, 0.0, 0.0, 1.0, 0.0])
    assert best_of(np.zeros(6), marks) == pytest.approx([1 / 3] * 6)  # by lot
    missed = [comb(4, k) / comb(6, k) for k in range(1, 7)]
    assert best_of(marks, marks) == pytest.approx([1 - one for one in missed])  # the oracle: any right one will do
    assert best_of(-marks, marks)[-1] == 0
    assert best_of(np.arange(400.0), np.arange(400.0))[-1] == pytest.approx(399.0)  # many candidates stay exact
    for wrong in ([1.0], [1.0, float("nan")]):
        with pytest.raises(BadConfig):
            best_of(np.array(wrong), np.ones(2))
    with pytest.raises(BadConfig):
        best_of(np.array([]), np.array([]))


def test_another_caption_is_about_other_things():
    asked = [Prompt(prompt=name, keys=tuple(keys)) for name, keys in (("a", "x"), ("b", "xy"), ("c", "z"), ("d", "z"))]
    assert [other_question(asked, place).prompt for place in range(4)] == ["c", "c", "b", "b"]
    assert other_question(asked[:1], 0).prompt == "a"  # there is no other


def test_a_cell_holds_what_was_drawn_and_said(dalle1, world, judge):
    questions = questions_of(world, 2)
    examiner, asked = Examiner(dalle1, questions, world, judge), questions["seen"]
    found = examiner.candidates("seen", 1, "sheet", 3)
    side = {"width": 64, "height": 64, "background": "transparent"}
    seeds = [APART + k for k in range(3)]
    pictures = [
        next(dalle1.generate(asked[1].prompt, seed=seed, candidates=1, batch=16, **side)).picture for seed in seeds
    ]
    scored = list(dalle1.generate_scored([asked[1].prompt] * 3, seeds, batch=16, **side))
    for name in ("likelihood", "gain"):
        assert found.values[name] == pytest.approx([one.scores[name] for one in scored], rel=1e-4)
    own, other = dalle1.encode_text([asked[1].prompt, asked[0].prompt])
    seen = torch.cat([dalle1.embed(picture) for picture in pictures])
    assert found.values["clip"] == pytest.approx((seen @ own).tolist(), abs=1e-2)
    assert found.values["shuffled"] == pytest.approx((seen @ other).tolist(), abs=1e-2)
    sure = judge.look(tensor_of(pictures, judge.config.size)).concept.softmax(1)
    right = [judge.config.concepts.index(key) for key in asked[1].keys]
    assert found.values["grade"] == pytest.approx(sure[:, right].sum(1).tolist(), abs=1e-3)
    assert found.values["right"] == [float(int(row.argmax()) in right) for row in sure]
    assert set(found.seconds) == {"drawing", "own scores", "clip"}
    places = chosen(found.values)
    assert list(places) == ["first seed", "clip", "likelihood", "gain", "shuffled", "oracle"]
    for column, place in enumerate(places.values()):
        own = found.sheets["sheet"].crop((4 + 68 * column, 4, 68 + 68 * column, 68))
        away = np.abs(np.asarray(own, dtype=float) - np.asarray(composite(pictures[place]), dtype=float))
        assert (away <= 1).mean() > 0.99


@pytest.fixture
def nothing_found(monkeypatch):
    """Detectors that find nothing, at once: what they find is the evaluation room's to test."""

    def blind(pictures, judge, vocabulary):
        return [Detection(background=None, plain=0.0, things=()) for _ in pictures]

    monkeypatch.setattr("opendalle.study.rerank.measures.scenes.detections", blind)


def without_seconds(folder):
    kept = {path.name: json.loads(path.read_text())["values"] for path in sorted((folder / "cells").glob("*.json"))}
    return kept | {path.name: path.read_bytes() for path in sorted((folder / "pictures").glob("*.png"))}


@pytest.mark.slow
def test_a_stopped_study_of_candidates_goes_on_and_every_score_is_on_the_page(bench, dalle1, nothing_found, tmp_path):
    bench = dataclasses.replace(bench, subject=dalle1)
    plan = rerank_study(bench, SMALL)
    assert [cell.name for cell in plan.cells[3:7]] == ["cells-000", "seen-000", "scenes-000", "scenes-001"]
    list(carry_out(plan, Notebook(tmp_path / "whole", plan)))
    for count, _ in enumerate(carry_out(plan, Notebook(tmp_path / "parts", plan)), start=1):
        if count == 5:
            break
    again = rerank_study(bench, SMALL)  # as another process would make it
    list(carry_out(again, Notebook(tmp_path / "parts", again)))
    assert without_seconds(tmp_path / "whole") == without_seconds(tmp_path / "parts")

    book = Notebook(tmp_path / "whole", plan)
    report = plan.report({cell.name: book.read(cell.name) for cell in plan.cells})
    html, told = page(report), (tmp_path / "whole/results.txt").read_text()
    tables = {table.name: table for table in report.tables}
    assert tables["single-right"].columns == ("chosen by", "best of 1", "best of 2", "best of 4")
    assert [row[0] for row in tables["single-right"].rows] == list(TOLD.values())
    assert len({said(row[1]) for row in tables["scenes-grade"].rows}) == 1  # best of one is any one, whoever chooses
    for table in report.tables:
        assert table.title in told
        for row in table.rows:
            assert f'<th scope="row">{row[0]}</th>' in html
    assert html.count("<svg") == len(report.charts) == 4
    assert len(report.findings) == len(CLAIMS)
    absent = {finding.claim.name for finding in report.findings if finding.difference is None}
    assert absent == {"up-to-32", "beyond-32"}  # which need more candidates
    for figure in report.figures:
        for _, file in figure.sheets:
            assert (tmp_path / "whole/pictures" / file).is_file()


def test_a_model_without_likelihood_is_measured_without_it(plain, bench, nothing_found):
    plan = rerank_study(dataclasses.replace(bench, subject=plain), RerankConfig(num=2, candidates=2))
    measured = {cell.name: cell.measure(2) for cell in plan.cells if cell.name in ("truth-seen", "seen-000")}
    assert {"clip", "shuffled"} <= set(measured["seen-000"].values)
    assert not {"likelihood", "gain"} & set(measured["seen-000"].values)
    report = plan.report(measured)
    (table,) = (table for table in report.tables if table.name == "single-right")
    assert [row[0] for row in table.rows] == [TOLD[name] for name in ("clip", "random", "shuffled", "oracle")]
    missing = {one.claim.name for one in report.findings if one.verdict == "not measured"}
    assert {"gain-helps", "gain-or-clip", "likelihood-helps", "likelihood-or-gain", "clip-helps-scenes"} <= missing
    assert "clip-helps" not in missing
    early = plan.report({})
    assert {finding.verdict for finding in early.findings} == {"not measured"}
    assert early.tables == early.charts == early.figures == []


def test_curves_are_paired_prompt_by_prompt():
    def cell(clip, right):
        return Measured(values={"clip": clip, "right": right, "grade": right})

    measured = {
        cell_of("seen", 0): cell([2.0, 1.0], [1.0, 0.0]),
        cell_of("seen", 2): cell([2.0, 1.0], [0.0, 0.0]),
    }
    readings = Readings(measured, dict.fromkeys(GROUPS, 3), 2)
    assert readings.at("clip", 2, "right", ("seen",)) == [1.0, None, 0.0]
    assert readings.at("clip", 1, "right", ("seen",)) == [0.5, None, 0.0]
    assert readings.at("clip", 3, "right", ("seen",)) is None  # nobody drew three
    assert readings.at("gain", 2, "right", ("seen",)) is None
    assert readings.at("clip", 2, "right", ("cells",)) is None
    assert readings.step("clip", 1, 2, "right", ("seen",)) == [0.5, None, 0.0]
    over = readings.over("clip", "random", 2, "right", ("cells", "seen"))
    assert (over.value, over.n) == (0.25, 2)
    assert readings.over("oracle", "clip", 2, "right", ("seen",)).value == 0.0


def test_what_cannot_be_studied_is_refused(bench, dalle1):
    class Draws:
        def generate(self, prompt="", *, hooks=None, **asked):
            yield from ()

    with pytest.raises(BadModel, match="scores no picture"):
        rerank_study(dataclasses.replace(bench, subject=Draws()), SMALL)
    small = type("Small", (type(dalle1),), {"sizes": (32,)})(dalle1.parts, dalle1.config)
    with pytest.raises(BadModel, match="draws 32 px"):
        rerank_study(dataclasses.replace(bench, subject=small), SMALL)
    for wrong in ({"num": 1}, {"num": APART + 1}, {"candidates": 1}, {"candidates": APART + 1}):
        with pytest.raises(BadConfig):
            RerankConfig(**wrong)
