"""`opendalle study`: it says what it will take, goes on where it stopped, and refuses what it cannot do at once."""

import pytest

from opendalle.study.cells import Cell, Measured, Study
from opendalle.study.report import Report, Table


@pytest.fixture
def world(here):
    (here / "emoji").mkdir()
    (here / "emoji/manifest.json").write_text("{}")
    return here / "emoji"


@pytest.fixture
def asked(monkeypatch):
    """Stand in for the real study: two cells that cost nothing."""
    calls, measured = [], []

    def open_priors(model, *, data, judge, out, config, twins):
        calls.append((model, config.num, config.seeds, config.guidances, twins, judge))

        def measure(num):
            measured.append(num)
            if config.seeds == 7 and len(measured) == 4:  # after two trials and one cell
                raise KeyboardInterrupt
            return Measured(values={"right": [1.0] * num})

        def report(cells):
            table = Table(name="t", title="All", columns=("cell",), rows=[[name] for name in cells])
            return Report(title="A study", about=[], measured={}, tables=[table])

        cells = [Cell(name=name, kind=name, size=2, measure=measure) for name in ("first", "second")]
        return Study(name="priors", settings={"num": config.num}, cells=cells, report=report)

    monkeypatch.setattr("opendalle.study.priors.opening.open_priors", open_priors)
    return calls


def test_a_study_is_announced_measured_and_printed(opendalle, world, asked, here):
    code, out, err = opendalle("study", "priors", "mine", "--out", "study", "--num", "8", "--twins", "3")
    assert code == 0
    assert asked == [("mine", 8, 3, (1.0, 1.5, 2.0, 3.0, 4.0), 3.0, "judge")]
    assert err[0].startswith("opendalle: 2 of 2 cells to measure, about ")
    assert out[0] == "A study"
    assert "second" in out
    assert out[-1] == "study/index.html"
    assert (here / "study/index.html").is_file()
    code, out, err = opendalle("study", "priors", "mine", "--out", "study", "--num", "8")
    assert (code, err, out[-1]) == (0, [], "study/index.html")  # nothing was left to do
    code, out, err = opendalle("study", "priors", "mine", "--out", "study", "--num", "9")
    assert (code, out, len(err)) == (2, [], 1)
    assert "num 9" in err[0]


def test_the_studies_are_begun_alike(opendalle, world, here, monkeypatch):
    calls = []

    def open_rerank(model, *, data, judge, config):
        calls.append((model, data.name, judge, config.num, config.candidates))

        def report(cells):
            return Report(title="Candidates", about=[], measured={}, tables=[])

        cell = Cell(name="one", kind="one", size=2, measure=lambda num: Measured(values={"right": [1.0] * num}))
        return Study(name="rerank", settings={"num": config.num}, cells=[cell], report=report)

    monkeypatch.setattr("opendalle.study.rerank.plan.open_rerank", open_rerank)
    code, out, err = opendalle("study", "rerank", "mine", "--out", "study", "--num", "8", "--candidates", "5")
    assert calls == [("mine", "emoji", "judge", 8, 5)]
    assert (code, out[0], out[-1]) == (0, "Candidates", "study/index.html")
    assert err[0].startswith("opendalle: 1 of 1 cells to measure, about ")
    wrong = (["--num", "1"], ["--candidates", "1"], ["--candidates", "2.5"], ["--data", "nowhere"])
    for line in wrong:
        code, out, err = opendalle("study", "rerank", "--out", "new", *line)
        assert (code, out, len(err)) == (2, [], 1)
        assert not (here / "new").exists()
    code, _, err = opendalle("study", "priors", "--out", "study")
    assert code == 2  # the folder holds another study
    assert len(calls) == 1


def test_ctrl_c_keeps_what_has_been_measured(opendalle, world, asked, here):
    line = ("study", "priors", "--out", "study", "--seeds", "7")
    code, out, _ = opendalle(*line)
    assert (code, out) == (1, [])
    assert [path.name for path in (here / "study/cells").iterdir()] == ["first.json"]
    assert "first" in (here / "study/results.txt").read_text()
    code, out, err = opendalle(*line)
    assert code == 0
    assert "1 of 2 cells" in err[0]


@pytest.mark.parametrize(
    "line",
    [
        ["--num", "1"],
        ["--num", "1.5"],
        ["--seeds", "0"],
        ["--twins", "0"],
        ["--guidances", "1,x"],
        ["--guidances", "1"],
        ["--data", "nowhere"],
        ["--out", "full"],
    ],
)
def test_what_cannot_be_studied_is_one_line_and_exit_2(opendalle, world, asked, here, line):
    (here / "full").mkdir()
    (here / "full/letter.txt").write_text("dear")
    code, out, err = opendalle("study", "priors", *(["--out", "new"] if "--out" not in line else []), *line)
    assert (code, out, len(err)) == (2, [], 1)
    assert not (here / "new").exists()
    assert asked == []
