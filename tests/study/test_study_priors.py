"""The study of priors on a tiny model: what a cell holds is what the pipeline draws, and a stopped study goes on."""

import dataclasses
import json
from itertools import combinations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from opendalle.base.errors import BadConfig, BadModel
from opendalle.base.protocols import Hooks, PriorProbe, TextEncoder
from opendalle.base.request import PRIORS
from opendalle.evaluation.detect import Detection
from opendalle.evaluation.drawing import tensor_of
from opendalle.pictures import composite
from opendalle.study.cells import Measured
from opendalle.study.findings import verdict
from opendalle.study.notebook import Notebook
from opendalle.study.page import page
from opendalle.study.priors.claims import CLAIMS
from opendalle.study.priors.measures import APART, Examiner
from opendalle.study.priors.plan import PriorsConfig, priors_study
from opendalle.study.priors.readings import OF_RIGHT, OWN, Readings, draw_cell, embed_cell
from opendalle.study.questions import SKILLS, in_turns, questions_of, true_pictures
from opendalle.study.running import carry_out

SMALL = PriorsConfig(num=4, seeds=2, guidances=(1.0, 2.0))


def test_a_dalle_2_has_the_probes(dalle):
    assert isinstance(dalle, PriorProbe)
    assert isinstance(dalle, TextEncoder)


def test_the_probes_say_what_the_decoder_is_given(dalle):
    assert dalle.priors == tuple(name for name in PRIORS if name in ("diffusion", "linear", "none", "caption"))
    captions, seeds = ["a red apple", "a blue car", "a red apple"], [3, 4, 5]
    texts = dalle.encode_text(captions)
    torch.testing.assert_close(texts[1:2], dalle.embed("a blue car"))
    assert dalle.prior(captions, seeds, prior="caption") is None
    drawn = dalle.prior(captions, seeds, prior=OWN, prior_guidance=2.0)
    assert not torch.equal(drawn[0], drawn[2])  # one caption, two seeds
    alone = dalle.prior(captions[2:], seeds[2:], prior_guidance=2.0)
    torch.testing.assert_close(drawn[2:], alone)
    # A picture's own chance has gone further where the prior drew from it, so the decoder's noise is given.
    hooks = Hooks(initial_noise=lambda generators, shape: torch.ones(len(generators), *shape))
    small = {"width": 16, "height": 16, "seed": 5, "hooks": hooks}
    (own,) = dalle.generate("a red apple", prior_guidance=2.0, **small)
    (given,) = dalle.generate("a red apple", embedding=alone, **small)
    (other,) = dalle.generate("a red apple", embedding=drawn[:1], **small)
    assert own.picture.tobytes() == given.picture.tobytes() != other.picture.tobytes()


def test_questions_are_the_beginning_of_more_questions(world):
    few, many = questions_of(world, 2), questions_of(world, 4)
    for group, questions in few.items():
        assert list(questions) == list(many[group])[: len(questions)], group
    assert [question.skill for question in few["scenes"][:6]] == [*SKILLS, *SKILLS]
    names = [[question.prompt for question in few[group]] for group in ("cells", "seen")]
    turns = [question.prompt for question in in_turns(few["cells"][:1], few["seen"])]
    assert turns == [names[0][0], *names[1]]
    for questions in few.values():
        assert {picture.size for picture in true_pictures(questions, world)} == {(64, 64)}


def test_embeddings_are_compared_one_by_one(dalle, world, judge):
    questions = questions_of(world, 4)
    examiner = Examiner(questions, world, judge, seeds=1)
    asked = questions["seen"]
    true = torch.cat([dalle.embed(picture) for picture in true_pictures(asked, world)])
    for prior in ("diffusion", "linear", "none"):
        found = examiner.embeddings(dalle, "seen", prior, len(asked)).values
        for row, question in enumerate(asked):
            z = F.normalize(dalle.prior([question.prompt], [row], prior=prior), dim=-1)[0]
            assert found["cosine"][row] == pytest.approx(float(z @ F.normalize(true[row], dim=0)), abs=1e-4)
            nearer = sum(float(z @ other) >= float(z @ true[row]) for other in F.normalize(true, dim=-1))
            assert found["rank"][row] == pytest.approx(nearer, abs=1)
            assert found["first"][row] == float(found["rank"][row] == 1)
            assert found["five"][row] == float((found["rank"][row] or 0) <= 5)
    assert examiner.embeddings(dalle, "seen", "none", 2).values["nearness"] == pytest.approx([1.0, 1.0], abs=1e-5)


def test_pictures_are_drawn_from_the_same_seeds_for_every_prior(dalle, world, judge):
    questions = questions_of(world, 3)
    examiner, asked = Examiner(questions, world, judge, seeds=3), questions["cells"]
    measured = examiner.pictures(dalle, "cells", "sheet", 2, prior="linear", guidance=2.0)
    features, right = [], []
    for row, question in enumerate(asked[:2]):
        drawn = []
        for k in range(3):
            (sample,) = dalle.generate(
                question.prompt, seed=row + APART * k, width=64, height=64, prior="linear", guidance=2.0
            )
            drawn.append(sample.picture)
        verdict = judge.look(tensor_of(drawn, judge.config.size))
        known = {judge.config.concepts.index(key) for key in question.keys}
        right.append(np.mean([int(best) in known for best in verdict.concept.argmax(dim=1)]))
        features.append(verdict.features.numpy())
        own = measured.sheets["sheet"].crop((4 + 68 * row, 4, 68 + 68 * row, 68))
        away = np.abs(np.asarray(own, dtype=float) - np.asarray(composite(drawn[0]), dtype=float))
        assert (away <= 1).mean() > 0.99  # a picture in a batch is the picture alone
    slow = [np.mean([np.linalg.norm(a - b) for a, b in combinations(some, 2)]) for some in features]
    assert measured.values["diversity"] == pytest.approx(slow, rel=1e-2)
    assert measured.values["top1"] == pytest.approx(right)
    assert measured.sheets["sheet"].size == (4 + 2 * 68, 4 + 3 * 68)
    assert measured.seconds["picture"] > 0


def without_seconds(folder):
    kept = {path.name: json.loads(path.read_text())["values"] for path in sorted((folder / "cells").glob("*.json"))}
    return kept | {path.name: path.read_bytes() for path in sorted((folder / "pictures").glob("*.png"))}


@pytest.fixture
def nothing_found(monkeypatch):
    """Detectors that find nothing, at once: what they find is the evaluation room's to test."""

    def blind(pictures, judge, vocabulary):
        return [Detection(background=None, plain=0.0, things=()) for _ in pictures]

    monkeypatch.setattr("opendalle.study.priors.measures.scenes.detections", blind)


@pytest.mark.slow
def test_a_stopped_study_of_priors_goes_on_and_every_row_is_on_the_page(bench, plain, nothing_found, tmp_path):
    bench = dataclasses.replace(bench, subject=plain)
    plan = priors_study(bench, SMALL)
    list(carry_out(plan, Notebook(tmp_path / "whole", plan)))
    for count, _ in enumerate(carry_out(plan, Notebook(tmp_path / "parts", plan)), start=1):
        if count == len(plan.cells) // 2:
            break
    assert len(list((tmp_path / "parts/cells").iterdir())) == len(plan.cells) // 2
    again = priors_study(bench, SMALL)  # as another process would make it
    list(carry_out(again, Notebook(tmp_path / "parts", again)))
    assert without_seconds(tmp_path / "whole") == without_seconds(tmp_path / "parts")

    book = Notebook(tmp_path / "whole", plan)
    report = plan.report({cell.name: book.read(cell.name) for cell in plan.cells})
    html, told = page(report), (tmp_path / "whole/results.txt").read_text()
    tables = {table.name: table for table in report.tables}
    assert {row[0] for row in tables["single"].rows} == {"artwork", *bench.subject.priors}
    assert {row[0] for row in tables["against-diffusion"].rows} == {"none", "caption"}
    assert {row[0] for row in tables["curve-guidance"].rows} == {"1", "2"}
    assert "twins" not in tables
    for table in report.tables:
        assert table.title in told
        for row in table.rows:
            assert f'<th scope="row">{row[0]}</th>' in html
    assert len(report.findings) == len(CLAIMS)
    for finding in report.findings:
        assert finding.claim.name in (tmp_path / "whole/results.json").read_text()
    for figure in report.figures:
        for _, file in figure.sheets:
            assert (tmp_path / "whole/pictures" / file).is_file()
    verdicts = {finding.claim.name: finding.verdict for finding in report.findings}
    absent = {name for name, verdict in verdicts.items() if verdict == "not measured"}
    without = {"diffusion-or-ar", "diffusion-or-ar-diversity", "linear", "projection"}  # priors that it lacks
    assert absent == without | {"binding", "twins-diversity"}


def test_a_model_that_lacks_priors_is_compared_by_those_that_it_has(plain, bench):
    plan = priors_study(dataclasses.replace(bench, subject=plain), SMALL)
    names = {cell.name for cell in plan.cells}
    assert {embed_cell("seen", "none"), draw_cell("scenes", "caption")} <= names
    assert not any("linear" in name for name in names)
    assert embed_cell("seen", "caption") not in names  # it gives no embeddings
    early = plan.report({})
    assert {finding.verdict for finding in early.findings} == {"not measured"}
    assert early.tables == early.charts == early.figures == []


def test_what_cannot_be_compared_is_refused(bench):
    class Draws:
        def generate(self, prompt="", *, hooks=None, **asked):
            yield from ()

    with pytest.raises(BadModel, match="without a diffusion prior"):
        priors_study(dataclasses.replace(bench, subject=Draws()), SMALL)
    for wrong in ({"num": 1}, {"num": 1_001}, {"seeds": 0}, {"guidances": (1.0,)}, {"guidances": (1.0, 1.0)}):
        with pytest.raises(BadConfig):
            PriorsConfig(**wrong)


def test_arms_are_compared_over_both_groups_of_single_things():
    def cell(**values):
        return Measured(values=values)

    measured = {
        "truth-cells": cell(apart=[2.0, 2.0]),
        "truth-seen": cell(apart=[2.0, 2.0]),
        draw_cell("cells", "a"): cell(top1=[1.0, 0.0], diversity=[2.0, 1.0]),
        draw_cell("seen", "a"): cell(top1=[1.0, 1.0], diversity=[1.0, 1.0]),
        draw_cell("cells", "b"): cell(top1=[0.0, 0.0], diversity=[1.0, 1.0]),
    }
    readings = Readings(measured)
    assert readings.against("a", "b", "top1") is None  # one group of b is missing
    measured[draw_cell("seen", "b")] = cell(top1=[0.0, 1.0], diversity=[1.0, 1.0])
    found = Readings(measured).against("a", "b", "top1")
    assert (found.value, found.n) == (0.5, 4)
    assert Readings(measured).against("a", "b", "diversity").value == pytest.approx(0.125)  # in units of 2


def test_diversity_where_right_counts_what_both_draw_recognisably():
    measured = {f"truth-{group}": Measured(values={"apart": [2.0, 2.0]}) for group in ("cells", "seen")}
    for arm, hits, apart in (("a", [1.0, 1.0, 0.5], [2.0, 1.0, 9.0]), ("b", [1.0, 0.5, 1.0], [1.0, 9.0, 9.0])):
        for group in ("cells", "seen"):
            measured[draw_cell(group, arm)] = Measured(values={"top5": hits, "diversity": apart})
    found = Readings(measured).against("a", "b", OF_RIGHT)
    assert (found.value, found.n) == (0.5, 2)  # the first prompt of each group, in units of 2
    for group in ("cells", "seen"):
        measured[draw_cell(group, "b")] = Measured(values={"top5": [0.0] * 3, "diversity": [1.0] * 3})
    nothing = Readings(measured).against("a", "b", OF_RIGHT)
    assert verdict(1, nothing) == "cannot be told"
    assert Readings(measured).against("a", "c", OF_RIGHT) is None
