"""`caption`, `data caption` and `evaluate captions`, with a captioner that only sees how bright a picture is."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

SOURCE = str(Path(__file__).parents[2] / "src")


class Grey:
    picture_size, picture_channels = 64, 4

    def __init__(self):
        self.batches = []

    def caption_many(self, pictures, *, kind="short", language="en", decoding=None, seeds=None):
        self.batches.append((len(pictures), kind, language, seeds))
        lights = [float(one[:3].mean()) for one in pictures]
        return [SimpleNamespace(text=f"a {kind} {language} {light:.1f}", log_likelihood=-1.5) for light in lights]


@pytest.fixture
def captioner(one_model, monkeypatch):
    from opendalle import pretrained

    grey = Grey()
    monkeypatch.setattr(pretrained, "load_captioner", lambda name: pretrained.find_model(name) and grey, raising=False)
    return grey


@pytest.fixture
def pictures(here):
    (here / "set/deep").mkdir(parents=True)
    for number, name in enumerate(["b", "a", "deep/c"]):
        Image.new("RGB", (64, 64), (number * 127,) * 3).save(here / f"set/{name}.png")
        (here / f"set/{name}.txt").write_text(f"own {name}")
    return here / "set"


def test_one_picture_is_one_line(opendalle, captioner, pictures):
    assert opendalle("caption", "set/a.png", "--model", "toy") == (0, ["a descriptive en -0.0"], [])
    line = ["caption", "set/a.png", "--model", "toy", "--kind", "short", "--language", "zh", "--seed", "7"]
    assert opendalle(*line) == (0, ["a short zh -0.0"], [])
    assert captioner.batches[-1] == (1, "short", "zh", [7])


def test_a_folder_is_a_line_a_picture_in_batches(opendalle, captioner, pictures):
    code, out, err = opendalle("caption", "set", "--model", "toy", "--batch", "2")
    assert (code, err) == (0, [])
    assert out == [
        "set/a.png\ta descriptive en -0.0",
        "set/b.png\ta descriptive en -1.0",
        "set/deep/c.png\ta descriptive en 1.0",
    ]
    assert captioner.batches == [(2, "descriptive", "en", [0, 1]), (1, "descriptive", "en", [2])]


def test_json_lines_and_files(opendalle, captioner, pictures, here):
    code, out, _ = opendalle("caption", "set/a.png", "set/b.png", "--model", "toy", "--json")
    told = {
        "name": "set/a.png",
        "kind": "descriptive",
        "language": "en",
        "text": "a descriptive en -0.0",
        "score": -1.5,
    }
    assert (code, json.loads(out[0]), len(out)) == (0, told, 2)
    assert opendalle("caption", "set", "--model", "toy", "--out", "all.jsonl") == (0, ["all.jsonl"], [])
    assert json.loads((here / "all.jsonl").read_text().splitlines()[0]) == told
    assert opendalle("caption", "set", "--model", "toy", "--out", "all.txt")[0] == 0
    assert (here / "all.txt").read_text().startswith("set/a.png\ta descriptive")
    assert opendalle("caption", "set", "--model", "toy", "--out", "all.txt")[0] == 2


def test_bad_files_are_told_of_and_left_out(opendalle, captioner, pictures):
    (pictures / "bad.png").write_bytes(b"no picture")
    code, out, err = opendalle("caption", "set", "nowhere.png", "--model", "toy")
    assert (code, len(out), len(err)) == (1, 3, 2)
    assert "bad.png" in err[0]
    assert "nowhere.png" in err[1]
    code, out, err = opendalle("caption", "set/bad.png", "--model", "toy")
    assert (code, out, len(err)) == (2, [], 1)


def test_a_picture_comes_from_standard_input(opendalle, captioner, here, monkeypatch):
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, format="PNG")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(file.getvalue())))
    assert opendalle("caption", "-", "--model", "toy") == (0, ["a descriptive en -1.0"], [])


@pytest.mark.parametrize(
    "line",
    [
        [],
        ["set", "--model", "missing"],
        ["empty"],
        ["set", "--kind", "long"],
        ["set", "--batch", "0"],
        ["set", "--clip", "toy"],
        ["set", "--out", "captions.csv"],
        ["set", "--out", "set"],
    ],
)
def test_wrong_use_is_one_line_and_writes_nothing(opendalle, captioner, pictures, here, line):
    (here / "empty").mkdir()
    before = sorted(here.rglob("*"))
    more = [] if "--model" in line else ["--model", "toy"]
    code, out, err = opendalle("caption", *line, *more)
    assert (code, out, len(err), captioner.batches) == (2, [], 1, [])
    assert sorted(here.rglob("*")) == before


def test_a_report_follows_the_captions(opendalle, captioner, pictures):
    code, out, err = opendalle("caption", "set", "--model", "toy", "--report")
    assert (code, err) == (0, [])
    lines = dict(" ".join(line.split()).split(" ")[:2] for line in out[3:])
    assert (lines["captions/words-median"], lines["captions/starts-with-a"]) == ("5.0000", "1.0000")
    _, out, _ = opendalle("caption", "set", "--model", "toy", "--report", "--json")
    assert json.loads(out[3])["name"] == "captions/words-mean"


def shelf_lines(folder):
    return [
        json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text("utf-8").splitlines()
    ]


def test_a_set_is_captioned_beside_its_own_words(opendalle, captioner, pictures):
    before = {path: path.read_bytes() for path in pictures.rglob("*.*")}
    assert opendalle("data", "caption", "set", "--model", "toy", "--piece", "2") == (0, ["set/captions"], [])
    assert [one["name"] for one in shelf_lines(pictures / "captions")[::2]] == ["a.png", "b.png", "deep/c.png"]
    about = json.loads((pictures / "captions/about.json").read_text())
    assert about["writer"]["captioner"]["name"] == "toy-emoji"
    assert len(about["writer"]["captioner"]["sha256"]) == 64
    assert all(path.read_bytes() == data for path, data in before.items())
    captioner.batches.clear()
    code, out, err = opendalle("data", "caption", "set", "--model", "toy", "--piece", "2", "--report")
    assert (code, err, captioner.batches) == (0, [], [])  # nothing is written twice
    assert out[0] == "set/captions"
    assert [line.split("/")[0] + "/" + line.split("/")[1] for line in out[1:]] == ["en/short"] * 12 + [
        "en/descriptive"
    ] * 12


def test_shards_go_to_one_folder(opendalle, captioner, pictures):
    line = ["data", "caption", "set", "--model", "toy", "--piece", "1", "--out", "new"]
    code, out, err = opendalle(*line, "--shard", "2/2")
    assert (code, out) == (0, ["new"])
    assert "2 of 3 pieces are still to be written" in err[0]
    assert opendalle(*line, "--shard", "1/2") == (0, ["new"], [])


def test_unreadable_pictures_are_exit_1(opendalle, captioner, pictures):
    (pictures / "bad.png").write_bytes(b"no picture")
    code, out, err = opendalle("data", "caption", "set", "--model", "toy")
    assert (code, out, len(err)) == (1, ["set/captions"], 1)
    assert "no caption of bad.png" in err[0]


@pytest.mark.parametrize(
    "line",
    [
        ["nowhere"],
        ["set", "--shard", "3/2"],
        ["set", "--shard", "one"],
        ["set", "--kinds", "long"],
        ["set", "--count", "5"],
        ["set", "--model", "missing"],
        ["set", "--piece", "0"],
    ],
)
def test_a_set_that_cannot_be_captioned_is_left_alone(opendalle, captioner, pictures, here, line):
    more = [] if "--model" in line else ["--model", "toy"]
    code, out, err = opendalle("data", "caption", *line, *more)
    assert (code, out, len(err)) == (2, [], 1)
    assert not list(here.rglob("captions"))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    from opendalle.data.emoji.fixture import build_fixture

    folder = tmp_path_factory.mktemp("worlds") / "emoji"
    for _ in build_fixture(folder):
        pass
    return folder


def test_draws_of_a_world_are_captioned_and_blended(opendalle, captioner, here, world):
    from opendalle.data.blending import BlendingConfig
    from opendalle.recipes.captioned import ORACLE, open_blended

    line = ["data", "caption", str(world), "--model", "toy", "--out", "new", "--count", "30", "--languages", "zh"]
    code, out, err = opendalle(*line, "--styles", "flat,3d", "--seed", "4")
    assert (code, out, err) == (0, ["new"], [])
    pictures = open_blended(world, 128, captions=here / "new", blending=BlendingConfig(share=1.0))
    assert len(pictures) == 30
    example = pictures.read(3, np.random.default_rng(0))
    assert (example.caption.split()[:3], example.voice) == (["a", "descriptive", "zh"], "descriptive")
    assert example.truth is not None
    assert example.truth["style"] in ("flat", "3d")
    assert open_blended(world, 64, captions=ORACLE).read(0, np.random.default_rng(1)).truth is not None


def test_a_captioner_is_examined(opendalle, captioner, here, world):
    line = ["evaluate", "captions", "--data", str(world), "--model", "toy", "--num", "2", "--out", "report"]
    code, out, _ = opendalle(*line)  # on a slow machine its errors tell how far it is
    assert (code, out[-1]) == (0, "report")
    names = [line.split()[0] for line in out[:-1]]
    assert {"scenes/en/relation", "weakness/zh/text", "names/en/short/named", "reader/en/count"} <= set(names)
    assert (here / "report/results.txt").is_file()
    assert opendalle("evaluate", "captions", "--data", "nowhere", "--model", "toy")[0] == 2
    assert opendalle("evaluate", "captions", "--help")[1][0].startswith("Usage: opendalle evaluate captions")


PROGRAM = """
import sys, time
from types import SimpleNamespace
import opendalle.pretrained as room
import opendalle.checkpoint.folder as folder
class Slow:
    picture_size, picture_channels = 64, 4
    def caption_many(self, pictures, *, seeds, **more):
        time.sleep(0.02)
        return [SimpleNamespace(text=f"number {seed}", log_likelihood=0.0) for seed in seeds]
room.load_captioner, room.find_model = lambda name: Slow(), lambda name: name
folder.read_model = lambda name: SimpleNamespace(reference={"name": name, "sha256": "0" * 64})
from opendalle.cli.app import main
main()
"""


def test_a_killed_process_loses_a_piece_at_most(here):
    (here / "set").mkdir()
    for number in range(40):
        Image.new("RGB", (4, 4)).save(here / f"set/{number:02d}.png")
    line = [sys.executable, "-c", PROGRAM, "data", "caption", "set", "--model", "m", "--piece", "4", "--batch", "2"]
    environment = {**os.environ, "PYTHONPATH": SOURCE}
    process = subprocess.Popen(line, cwd=here, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until = time.monotonic() + 240
    while len(list((here / "set/captions").glob("*.jsonl"))) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    left = {path: path.read_bytes() for path in (here / "set/captions").glob("*.jsonl")}
    assert 2 <= len(left) < 10
    done = subprocess.run(line, cwd=here, env=environment, capture_output=True, text=True, timeout=280, check=True)
    assert done.stdout == "set/captions\n"
    assert all(path.read_bytes() == data for path, data in left.items())
    texts = [one["text"] for one in shelf_lines(here / "set/captions")]
    assert texts == [f"number {number}" for number in range(40) for _ in range(2)]
