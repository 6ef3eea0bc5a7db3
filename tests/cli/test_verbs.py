"""The other verbs, with the rooms below them played by fakes where those need hours."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from opendalle.base.records import TrainStep
from opendalle.cli.app import VERBS
from opendalle.cli.console import duration, one_line, progress

SOURCE = str(Path(__file__).parents[2] / "src")


def test_help_of_every_verb_shows_an_example(opendalle):
    for verb in [[one.name] for one in VERBS] + [
        ["data", "emoji"],
        ["study", "priors"],
        ["models", "list"],
        ["models", "verify"],
    ]:
        code, out, _ = opendalle(*verb, "--help")
        assert code == 0
        assert any(line.startswith(f"Example: opendalle {verb[0]}") for line in out), verb


@pytest.mark.parametrize("line", [["nonsense"], ["generate", "--x"], ["models", "nonsense"], ["train"], ["\x1b[31m"]])
def test_wrong_words_are_one_line_and_exit_2(opendalle, here, line):
    code, out, err = opendalle(*line)
    assert (code, out, len(err)) == (2, [], 1)
    assert err[0].isprintable()


def test_models_are_listed_shown_and_verified(opendalle, one_model):
    assert opendalle("models", "list")[1][0].startswith("toy-emoji")
    card = json.loads("\n".join(opendalle("models", "show", "toy")[1]))
    assert (card["kind"], card["parts"], card["licence"]) == ("toy", ["net"], "MIT")
    assert opendalle("models", "verify")[0] == 0
    assert opendalle("models", "verify", str(one_model))[0] == 0


def test_a_damaged_model_is_named(opendalle, one_model):
    weights = one_model / "net/weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    code, out, err = opendalle("models", "verify")
    assert (code, out, len(err)) == (1, [], 1)
    assert "weights.safetensors" in err[0]


@pytest.mark.parametrize("name", ["nope", "", "..", "../toy-emoji", "/"])
def test_a_model_that_is_not_there_is_exit_2(opendalle, one_model, here, name):
    assert opendalle("models", "show", name)[0] == 2


def test_doctor_finds_a_ready_machine(opendalle, one_model, here):
    code, out, err = opendalle("doctor")
    assert (code, err) == (0, [])
    assert [line.split()[1] for line in out] == ["ok"] * 7


def test_doctor_names_what_is_amiss(opendalle, one_model, here):
    (one_model / "net/config.json").unlink()
    code, out, _ = opendalle("doctor")
    assert code == 1
    assert out[-1].split()[:2] == ["models", "AMISS"]


@pytest.fixture
def fake_training(monkeypatch):
    import opendalle.recipes

    calls = []

    def run(name, **options):
        calls.append((name, options))
        if options["max_minutes"] == 1:
            (options["out"].parent / "model.runs/prior").mkdir(parents=True)
            (options["out"].parent / "model.runs/prior/run.json").write_text("{}")
            return
        for step in (1, 2):
            yield TrainStep(
                step=step,
                pictures=step * 8,
                losses={"prior": 0.5},
                learning_rate=1e-3,
                gradient_norm=1.0,
                pictures_per_second=9.0,
                seconds_left=4.0,
            )
        options["out"].mkdir()

    monkeypatch.setattr(opendalle.recipes, "run", run, raising=False)
    return calls


def test_train_hands_everything_on(opendalle, fake_training, here):
    (here / "set").mkdir()
    line = [
        "train",
        "dalle2",
        "--data",
        "set",
        "--out",
        "model",
        "--from",
        "dalle2",
        "--max-minutes",
        "2",
        "--show-every",
        "9",
    ]
    assert opendalle(*line) == (0, ["model"], [])
    asked = {"data": Path("set"), "out": Path("model"), "warm_start": "dalle2", "resume": None, "max_minutes": 2.0}
    asked |= {"show_every": 9, "tensorboard": False}
    assert fake_training == [("dalle2", asked)]


def test_a_training_that_stops_early_says_how_to_go_on(opendalle, fake_training, here):
    (here / "set").mkdir()
    code, out, err = opendalle("train", "dalle2", "--data", "set", "--out", "model", "--max-minutes", "1")
    assert (code, out, len(err)) == (0, [], 1)
    assert err[0].endswith("--resume model.runs")


@pytest.mark.parametrize(
    "more",
    [
        ["--data", "nowhere", "--out", "model"],
        ["--data", "set", "--out", "set"],
        ["--data", "set", "--out", "model", "--from", "a", "--resume", "b"],
        ["--data", "set", "--out", "model", "--max-minutes", "0"],
        ["--data", "set", "--out", "model", "--max-minutes", "nan"],
        ["--data", "set", "--out", "model", "--show-every", "-1"],
        ["--data", "set", "--out", "model", "--show-every", "1.5"],
        ["--data", "set"],
    ],
)
def test_train_refuses_before_it_begins(opendalle, fake_training, here, more):
    (here / "set").mkdir()
    code, out, err = opendalle("train", "dalle2", *more)
    assert (code, out, len(err), fake_training) == (2, [], 1, [])


@pytest.fixture
def scored(monkeypatch, pipeline):
    from opendalle.evaluation import runner
    from opendalle.evaluation.score import Score

    calls = []

    def evaluate_set(pipeline, pictures, *, num, out):
        calls.append((len(pictures), num, out))
        yield Score(name="set/one", value=0.5, low=0.25, high=0.75, floor=0.6, note="a note")
        yield Score(name="set/two", value=2.0)

    monkeypatch.setattr(runner, "evaluate_set", evaluate_set)
    return calls


def test_evaluate_prints_each_score(opendalle, scored, here):
    from PIL import Image

    (here / "set").mkdir()
    for name in "abcde":
        Image.new("RGB", (64, 64)).save(here / f"set/{name}.png")
        (here / f"set/{name}.txt").write_text("a black square")
    code, out, err = opendalle("evaluate", "--data", "set", "--num", "4")
    assert (code, err, scored) == (0, [], [(5, 4, None)])
    assert [" ".join(line.split()) for line in out] == [
        "set/one 0.5000 0.2500 .. 0.7500 floor 0.6000 MISSED a note",
        "set/two 2.0000",
    ]
    scored.clear()
    assert opendalle("evaluate", "--data", "set", "--num", "3")[0] == 2
    (here / "set/a.png").unlink()
    (here / "set/b.png").unlink()
    code, out, err = opendalle("evaluate", "--data", "set")
    assert (code, out, scored) == (2, [], [])
    assert "3 pictures to compare with; wanted 4 or more" in err[0]


def test_a_world_without_a_judge_says_how_to_train_one(opendalle, pipeline, here, monkeypatch):
    import opendalle as package
    from opendalle.data.emoji.fixture import build_fixture

    for _ in build_fixture(here / "emoji"):
        pass
    monkeypatch.setattr(package.pretrained, "bundled_models", list, raising=False)
    code, out, err = opendalle("evaluate", "--data", "emoji")
    assert (code, out, pipeline.drawn) == (2, [], 0)
    assert "opendalle train judge --data emoji --out judge-emoji" in err[0]
    code, out, err = opendalle("evaluate", "--data", "emoji", "--judge", "a-drawer")
    assert (code, out, pipeline.drawn) == (2, [], 0)
    assert "judges nothing" in err[0]


@pytest.mark.parametrize("limit", ["-1", "0", "1.5", "many"])
def test_a_world_of_no_concepts_is_not_built(opendalle, here, limit):
    code, out, err = opendalle("data", "emoji", "--out", "world", "--packages", ".", "--limit", limit)
    assert (code, out, len(err), list(here.iterdir())) == (2, [], 1, [])


@pytest.mark.parametrize(
    "more", [["--num", "0"], ["--num", "1.5"], ["--data", "nowhere"], ["--data", "set", "--out", "set"]]
)
def test_evaluate_refuses_before_it_begins(opendalle, scored, here, more):
    (here / "set").mkdir()
    code, out, err = opendalle("evaluate", "dalle2", *more)
    assert (code, out, len(err), scored) == (2, [], 1, [])


def test_one_line_is_safe_for_a_terminal():
    assert one_line("a\n b\x1b[31m\ud800 红") == r"a b\x1b[31m\ud800 红"


@pytest.mark.parametrize(("seconds", "words"), [(0.2, "0 s"), (59.4, "59 s"), (200, "3 min 20 s"), (7300, "2 h 1 min")])
def test_durations(seconds, words):
    assert duration(seconds) == words


def test_a_log_gets_plain_lines_seldom(capfd, monkeypatch):
    clock = iter([0.0, 3.0, 10.0, 12.0, 21.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with progress("drawing", 8) as advance:
        for done in (1, 2, 3, 4):
            advance(done, "\x1b[31m")
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [r"drawing 2/8, 30 s left \x1b[31m", r"drawing 4/8, 21 s left \x1b[31m"]


def test_a_terminal_gets_a_bar_that_leaves_nothing_behind():
    pty = pytest.importorskip("pty")
    program = "from opendalle.cli.console import progress\nwith progress('drawing', 2) as advance: advance(1, '[red]')"
    leader, follower = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": SOURCE, "TERM": "xterm"}
    ran = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=follower, env=environment)
    ran.communicate(timeout=30)
    os.close(follower)
    said = os.read(leader, 65536).decode()
    os.close(leader)
    assert ran.returncode == 0
    assert "drawing" in said
    assert "1/2" in said


PROGRAM = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell hands on an ignored one
import sys, time
from types import ModuleType
import opendalle
from opendalle.base.records import Sample
from opendalle.base.request import Request
from PIL import Image
PICTURE = Image.new("RGB", (64, 64))
class Slow:
    def generate(self, prompt="", **asked):
        request = Request(prompt=prompt, **asked)
        for index in range(request.count):
            yield Sample(picture=PICTURE, request=request, index=index, seed=index, step=1, num_steps=1)
            time.sleep(0.02)
opendalle.pretrained = sys.modules["opendalle.pretrained"] = ModuleType("opendalle.pretrained")
opendalle.pretrained.load = opendalle.pretrained.load_pipeline = lambda name: Slow()
from opendalle.cli.app import main
main()
"""


def start(here, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=here,
        env={**os.environ, "PYTHONPATH": SOURCE},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_only_whole_pictures(here, kind):
    from opendalle.pictures import read_picture

    process = start(here, "generate", "a rocket", "--count", "999")
    assert process.stdout is not None
    first = process.stdout.readline().strip()
    process.send_signal(kind)
    rest, errors = process.communicate(timeout=30)
    named = [first, *rest.split()]
    assert process.returncode == 1
    assert errors.count("\n") == 1
    assert sorted(str(path.relative_to(here)) for path in (here / "out").iterdir()) == named
    for path in named:
        read_picture(here / path)


def test_a_reader_that_leaves_early_is_no_traceback(here):
    process = start(here, "generate", "a rocket", "--count", "50")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    process.wait(timeout=30)
    with process.stderr:
        assert (process.returncode, process.stderr.read()) == (1, "")
