"""A study that was stopped and goes on leaves the same folder as one that was not; nothing is measured twice."""

import json

import numpy as np
import pytest
from PIL import Image

from opendalle.base.errors import BadModel, BadRequest
from opendalle.evaluation.metrics import Interval
from opendalle.study.cells import Cell, Measured, Study
from opendalle.study.charts import doublings, svg, ticks
from opendalle.study.findings import Claim, Finding
from opendalle.study.notebook import Notebook, check_folder
from opendalle.study.page import page
from opendalle.study.pairing import mean
from opendalle.study.report import Chart, Figure, Line, Report, Table, results, text
from opendalle.study.running import carry_out, estimate

NAMES = ("one", "two", "three")


class Worker:
    """Counts what it measures, and may be stopped before a cell."""

    def __init__(self, stop_at=None):
        self.asked, self.stop_at = [], stop_at

    def study(self, **settings):
        cells = [
            Cell(name=name, kind="both" if name != "three" else "other", size=10 * place, measure=self.measure(name))
            for place, name in enumerate(NAMES, start=1)
        ]
        return Study(name="trial", settings={"num": 10, **settings}, cells=cells, report=report)

    def measure(self, name):
        def measure(num):
            if name == self.stop_at:
                raise KeyboardInterrupt
            self.asked.append((name, num))
            rng = np.random.default_rng(len(name))
            numbers = [float(one) for one in rng.random(num)]
            sheet = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            return Measured(values={"right": numbers, "wrong": [None] * num}, sheets={name: sheet})

        return measure


def report(measured):
    rows = [[name, mean(measured[name].values["right"])] for name in measured]
    table = Table(name="right", title="Right & wrong", columns=("cell", "right"), rows=rows)
    return Report(title="A trial", about=["Of nothing."], measured={"num": "10"}, tables=[table])


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_study_that_was_stopped_goes_on_where_it_was(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    straight = Worker()
    steps = list(carry_out(straight.study(), Notebook(whole, straight.study())))
    assert [(step.name, step.done, step.total) for step in steps] == [(one, k, 3) for k, one in enumerate(NAMES, 1)]
    stopped = Worker(stop_at="three")
    with pytest.raises(KeyboardInterrupt):
        list(carry_out(stopped.study(), Notebook(parts, stopped.study())))
    assert "three" not in json.loads((parts / "results.json").read_text())["tables"]["right"][-1]["cell"]
    resumed = Worker()
    list(carry_out(resumed.study(), Notebook(parts, resumed.study())))
    assert [name for name, _ in stopped.asked + resumed.asked] == list(NAMES)
    assert files(whole) == files(parts)
    assert {"study.json", "index.html", "results.txt", "results.json", "cells/one.json", "pictures/one.png"} <= set(
        files(whole)
    )


def test_other_settings_and_other_folders_are_refused(tmp_path):
    worker = Worker()
    Notebook(tmp_path / "out", worker.study(seeds=3))
    Notebook(tmp_path / "out", worker.study(seeds=3))
    with pytest.raises(BadRequest, match=r"seeds 4.*wanted 3, as it was begun with.*same command"):
        Notebook(tmp_path / "out", worker.study(seeds=4))
    with pytest.raises(BadRequest, match=r"seeds null"):
        Notebook(tmp_path / "out", worker.study())
    other = Study(name="rerank", settings={}, cells=[], report=report)
    with pytest.raises(BadRequest, match="a study of trial has begun"):
        Notebook(tmp_path / "out", other)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/letter.txt").write_text("dear")
    (tmp_path / "file").write_text("x")
    for place in ("full", "file"):
        with pytest.raises(BadRequest, match="exists"):
            check_folder(tmp_path / place)
    assert not list((tmp_path / "full").glob("study.json"))


def test_a_damaged_cell_is_named(tmp_path):
    worker = Worker()
    book = Notebook(tmp_path / "out", worker.study())
    list(carry_out(worker.study(), book))
    (tmp_path / "out/cells/two.json").write_text('{"values": 3, "seconds": {}}')
    with pytest.raises(BadModel, match=r"two\.json"):
        list(carry_out(worker.study(), book))


def test_the_estimate_tries_one_cell_of_each_kind_and_keeps_nothing(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("opendalle.study.running.time.perf_counter", lambda: now[0])
    worker = Worker()
    plan = worker.study()

    def measure(num):
        now[0] += 2.0 * num
        return Measured(values={})

    known = Cell(name="known", kind="both", size=1, measure=measure, seconds=100.0)
    shy = Cell(name="shy", kind="shy", size=5, measure=worker.measure("three"), trial=9, instead=measure)
    cells = [Cell(name=one.name, kind=one.kind, size=one.size, measure=measure) for one in plan.cells]
    plan = Study(name="trial", settings=plan.settings, cells=[*cells, known, shy], report=report)
    book = Notebook(tmp_path / "out", plan)
    assert estimate(plan, book) == {"one": 20, "two": 40, "three": 60, "known": 100, "shy": 10}
    assert not any(book.has(cell.name) for cell in plan.cells)
    book.write("two", Measured(values={}))
    assert estimate(plan, book) == {"one": 20, "three": 60, "known": 100, "shy": 10}
    assert worker.asked == []


def full_report():
    claim = Claim(name="c", says="A < B & C", theirs="3 %", where="there", measured="B - A", expected=1, note="mind")
    rows = [["first", Interval(0.5, 0.25, 0.75, 12), "word"], ["second", None, None], ["third <i>", None, "0.123"]]
    line = Line(name="up", points=[(0.0, 1.0, "p"), (1.0, 2.0, "q")])
    return Report(
        title="Of <tags>",
        about=["One.", "Two."],
        measured={"model": "m", "num": "3"},
        findings=[Finding(claim=claim, difference=one) for one in (Interval(0.125, 0.0625, 0.25, 12), None)],
        tables=[Table(name="t", title="Numbers", note="In rows.", columns=("name", "value", "more"), rows=rows)],
        charts=[Chart(title="Lines", x="ex", y="why", lines=[line])],
        figures=[Figure(title="Sheets", sheets=[("a sheet", "a.png"), ("b sheet", "b.png")])],
        limits=["No more."],
    )


def test_page_text_and_json_say_the_same():
    told = full_report()
    html, plain, data = page(told), text(told), results(told)
    for words in ("first", "second", "0.500", "0.250 .. 0.750", "word", "0.123", "Numbers", "In rows.", "No more."):
        assert words in html, words
        assert words.replace("0.250 .. 0.750", "(0.250 .. 0.750)") in plain, words
    assert "third &lt;i&gt;" in html
    assert "third <i>" in plain
    assert html.count("<tr>") == 4
    assert html.count("<article>") == 2
    assert html.count("not measured") == 1
    assert "A &lt; B &amp; C" in html
    assert "+0.125 (0.062 .. 0.250)" in plain
    assert [row["name"] for row in data["tables"]["t"]] == ["first", "second", "third <i>"]
    assert data["tables"]["t"][0]["value"] == {"value": 0.5, "low": 0.25, "high": 0.75, "n": 12}
    assert [one["verdict"] for one in data["findings"]] == ["holds", "not measured"]
    json.dumps(data, allow_nan=False)


def test_the_page_stands_alone():
    html = page(full_report())
    for stranger in ("<script", "http:", "https:", "//", "@import", "url("):
        assert stranger not in html, stranger
    assert 'src="pictures/a.png"' in html
    assert "prefers-color-scheme: dark" in html
    assert 'name="viewport"' in html


def test_a_chart_holds_every_point_inside_its_frame():
    import re

    drawn = svg(full_report().charts[0])
    places = [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', drawn)]
    assert len(places) == 2
    assert all(60 <= x <= 540 and 15 <= y <= 310 for x, y in places)
    assert places[0][0] < places[1][0]
    assert places[0][1] > places[1][1]  # up is more
    assert svg(Chart(title="", x="", y="", lines=[])) == ""


def test_a_chart_of_doublings_gives_each_the_same_room():
    import re

    line = Line(name="up", points=[(float(2**power), 0.1 * power, "") for power in range(6)])
    drawn = svg(Chart(title="Lines", x="ex", y="why", doubles=True, lines=[line]))
    places = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', drawn)]
    assert np.allclose(np.diff(places), places[1] - places[0], atol=0.2)
    assert doublings(1, 32) == [1, 2, 4, 8, 16, 32]
    assert doublings(3, 20) == [2, 4, 8, 16, 32]
    assert doublings(8, 8) == [8, 16]
    assert ">32</text>" in drawn


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.13, 0.17), (-3.0, 90.0), (0.5, 0.5), (1.0 - 1e-15, 1.0)])
def test_ticks_are_few_round_and_cover_the_range(low, high):
    found = ticks(low, high)
    assert found[0] <= low
    assert found[-1] >= high
    assert 3 <= len(found) <= 8
    assert np.allclose(np.diff(found), found[1] - found[0])


def test_a_row_has_an_entry_for_each_column():
    from opendalle.base.errors import BadConfig

    with pytest.raises(BadConfig, match=r"rows of \[1\] entries"):
        Table(name="t", title="", columns=("a", "b"), rows=[["x"]])
    with pytest.raises(BadConfig, match="one number a question"):
        Measured(values={"a": [1.0], "b": [1.0, 2.0]})
