"""`opendalle generate`: what is printed, what is written, and what is not."""

import io
import json
import os
import sys

import numpy as np
import pytest
from PIL import Image

from opendalle.base.errors import BadRequest
from opendalle.base.request import Request, fields_of
from opendalle.cli.asked import parse_size
from opendalle.pictures import read_picture, read_recipe, write_png


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_sentence_becomes_a_numbered_picture(opendalle, pipeline, here):
    assert opendalle("generate", "a rocket") == (0, ["out/0001.png"], [])
    assert opendalle("generate", "a rocket", "--count", "2", "--seed", "5") == (0, ["out/0002.png", "out/0003.png"], [])
    assert files(here) == ["out/0001.png", "out/0002.png", "out/0003.png"]
    drawn = pipeline.picture(Request(prompt="a rocket", seed=5), 1, 2)
    assert np.array_equal(np.asarray(read_picture(here / "out/0003.png")), np.asarray(drawn))


def test_every_flag_reaches_the_pipeline(opendalle, pipeline, here):
    line = (
        "--count 2 --seed 9 --size 64x32 --background transparent --steps 3 --guidance 2.5 --sampler unipc --eta 0.5 "
        "--rescale 0.25 --threshold 0.9 --prior linear --prior-steps 4 --prior-guidance 1.5 --candidates 3 "
        "--batch 2 --exact --previews 1 --rank likelihood --temperature 0.8 --top-k 50 --top-p 0.9 --lookahead 4 "
        "--rewrite off --revised-prompt 一个又大又红的苹果"
    )
    assert opendalle("generate", "红苹果", *line.split())[0] == 0
    asked = pipeline.asked[0]
    assert asked == Request(
        prompt="红苹果",
        rewrite="off",
        revised_prompt="一个又大又红的苹果",
        count=2,
        seed=9,
        width=64,
        height=32,
        background="transparent",
        steps=3,
        guidance=2.5,
        sampler="unipc",
        eta=0.5,
        rescale=0.25,
        threshold=0.9,
        prior="linear",
        prior_steps=4,
        prior_guidance=1.5,
        candidates=3,
        batch=2,
        exact=True,
        previews=1,
        rank="likelihood",
        temperature=0.8,
        top_k=50,
        top_p=0.9,
        lookahead=4,
    )
    silent = [one.name for one in fields_of("generate") if getattr(asked, one.name) == one.default]
    assert silent == []  # a field that is added to the Request must be added to this line


def test_without_flags_the_request_is_the_default_one(opendalle, pipeline, here):
    opendalle("generate", "a rocket")
    assert pipeline.asked == [Request(prompt="a rocket")]


def test_the_recipe_tells_everything_that_was_asked(opendalle, pipeline, here):
    opendalle("generate", "a rocket", "--count", "3", "--seed", "4", "--guidance", "2")
    recipe = read_recipe(here / "out/0003.png")
    assert Request(**recipe["request"]) == pipeline.asked[0]
    assert (recipe["index"], recipe["model"], recipe["verb"], recipe["weights"]) == (2, "dalle2", "generate", "abc")
    assert str(here) not in json.dumps(recipe)


def test_a_model_folder_is_named_without_its_place(opendalle, pipeline, here):
    opendalle("generate", "a rocket", "--model", str(here / "mine"))
    assert read_recipe(here / "out/0001.png")["model"] == "mine"


def test_one_picture_under_its_own_name(opendalle, pipeline, here):
    assert opendalle("generate", "a rocket", "--out", "new/x.png")[:2] == (0, ["new/x.png"])
    code, out, err = opendalle("generate", "a rocket", "--out", "new/x.png")
    assert (code, out, len(err)) == (2, [], 1)
    assert "exists" in err[0]
    assert len(pipeline.asked) == 1  # refused before drawing, not after


def test_prompts_come_from_a_file_in_its_order(opendalle, pipeline, here):
    (here / "prompts.txt").write_text("\ufeffa rocket\n\n红苹果\r\n  a cat  ", encoding="utf-8")
    code, out, _ = opendalle("generate", "--prompts", "prompts.txt", "--count", "2")
    assert (code, out) == (0, [f"out/{number:04d}.png" for number in range(1, 7)])
    assert [request.prompt for request in pipeline.asked] == ["a rocket", "红苹果", "a cat"]
    recipes = [read_recipe(here / path) for path in out]
    assert [(one["request"]["prompt"], one["index"]) for one in recipes] == [
        (prompt, index) for prompt in ("a rocket", "红苹果", "a cat") for index in (0, 1)
    ]


def test_the_denoising_can_be_watched(opendalle, pipeline, here):
    code, out, _ = opendalle("generate", "a rocket", "--watch", "w.gif", "--previews", "5")
    assert (code, out) == (0, ["out/0001.png", "w.gif"])
    with Image.open(here / "w.gif") as gif:
        assert getattr(gif, "n_frames") == 6  # noqa: B009


def test_watching_asks_for_previews_by_itself(opendalle, pipeline, here):
    assert opendalle("generate", "a rocket", "--watch", "w.gif")[0] == 0
    assert pipeline.asked[0].previews == 24


WRONG = {
    "no prompt": [],
    "empty": [""],
    "spaces": ["  \t\n "],
    "control characters": ["\x00\x07\u200b"],
    "a lone surrogate": ["a \ud800 b"],
    "undecodable bytes": ["a \udcff b"],
    "too long": ["a" * 10_001],
    "two prompts": ["a", "rocket"],
    "unknown flag": ["a", "--nonsense"],
    "seed below 0": ["a", "--seed", "-1"],
    "huge seed": ["a", "--seed", str(2**70)],
    "count 0": ["a", "--count", "0"],
    "count 1.5": ["a", "--count", "1.5"],
    "many pictures, one name": ["a", "--count", "2", "--out", "x.png"],
    "guidance nan": ["a", "--guidance", "nan"],
    "guidance inf": ["a", "--guidance", "inf"],
    "sampler": ["a", "--sampler", "plms"],
    "background": ["a", "--background", "blue"],
    "size words": ["a", "--size", "large"],
    "size 0": ["a", "--size", "0"],
    "size huge": ["a", "--size", "999999x256"],
    "out is a file": ["a", "--out", "taken.txt"],
    "watch many": ["a", "--watch", "w.gif", "--count", "2"],
    "watch no gif": ["a", "--watch", "w.png"],
    "watch taken": ["a", "--watch", "taken.gif"],
    "missing model": ["a", "--model", "missing"],
    "refused by the model": ["refused"],
    "missing prompts": ["--prompts", "nowhere.txt"],
    "prompts are a folder": ["--prompts", "."],
    "prompts without a prompt": ["--prompts", "blank.txt"],
    "prompts not text": ["--prompts", "bytes.txt"],
    "a bad line": ["--prompts", "bad-line.txt"],
    "prompt and prompts": ["a", "--prompts", "blank.txt"],
    "again with a prompt": ["a", "--again", "taken.txt"],
    "again with a flag": ["--again", "taken.txt", "--steps", "3"],
    "again of no picture": ["--again", "taken.txt"],
    "again of nothing": ["--again", "nowhere.png"],
    "terminal escapes": ["a", "--model", "missing", "--sampler", "\x1b[31mred\n\nline"],
}


@pytest.mark.parametrize("arguments", WRONG.values(), ids=WRONG.keys())
def test_wrong_use_is_one_line_exit_2_and_nothing_written(opendalle, pipeline, here, arguments):
    for name, data in {
        "taken.txt": b"",
        "taken.gif": b"",
        "blank.txt": b"\n \n",
        "bytes.txt": b"\xff\xfe\x00",
        "bad-line.txt": b"a rocket\n\x00\x01\n",
    }.items():
        (here / name).write_bytes(data)
    before = files(here)
    pipeline.refuse = "refused"
    code, out, err = opendalle("generate", *arguments)
    assert (code, out) == (2, [])
    assert len(err) == 1
    assert err[0].isprintable()
    assert files(here) == before
    assert pipeline.drawn == 0


def test_a_bad_line_is_named(opendalle, pipeline, here):
    (here / "p.txt").write_text("a rocket\n" + "b" * 10_001)
    assert "line 2 of p.txt" in opendalle("generate", "--prompts", "p.txt")[2][0]


@pytest.mark.parametrize(
    "prompt",
    ["🚀", "👩🏽\u200d🚀", "תפוח אדום", "a\x00b\x1b[31m", "a" * 10_000, "--", "'; rm -rf /; $HOME", "none"],
    ids=["emoji", "joined emoji", "right to left", "control", "10,000", "dashes", "shell", "none"],
)
def test_odd_prompts_are_drawn_and_kept_as_they_are(opendalle, pipeline, here, prompt):
    assert opendalle("generate", "--", prompt) == (0, ["out/0001.png"], [])
    assert read_recipe(here / "out/0001.png")["request"]["prompt"] == prompt
    assert opendalle("generate", "--again", "out/0001.png")[0] == 0


def test_ctrl_c_keeps_what_is_finished_and_nothing_half(opendalle, pipeline, here):
    pipeline.stop_at = 2
    code, out, err = opendalle("generate", "a rocket", "--count", "5")
    assert (code, out, len(err)) == (1, ["out/0001.png", "out/0002.png"], 1)
    assert files(here) == ["out/0001.png", "out/0002.png"]


@pytest.mark.parametrize("exact", [[], ["--exact"]])
@pytest.mark.parametrize("number", [1, 4, 6])
def test_again_makes_the_same_bytes_from_the_batch_alone(opendalle, pipeline, here, number, exact):
    opendalle("generate", "红 rocket", "--count", "6", "--seed", "3", "--guidance", "0.1", *exact)
    first = here / f"out/{number:04d}.png"
    pipeline.asked.clear()
    assert opendalle("generate", "--again", str(first), "--out", "again.png") == (0, ["again.png"], [])
    assert (here / "again.png").read_bytes() == first.read_bytes()
    assert pipeline.asked[0].count == (1 if exact else 4 if number <= 4 else 2)


def test_again_of_a_watched_picture_needs_no_previews(opendalle, pipeline, here):
    opendalle("generate", "a rocket", "--watch", "w.gif")
    assert opendalle("generate", "--again", "out/0001.png") == (0, ["out/0002.png"], [])
    assert (here / "out/0002.png").read_bytes() == (here / "out/0001.png").read_bytes()
    assert pipeline.asked[1].previews == 0


def test_again_says_so_when_the_pixels_differ(opendalle, pipeline, here, monkeypatch):
    opendalle("generate", "a rocket")
    monkeypatch.setattr(pipeline, "picture", lambda *_: Image.new("RGBA", (8, 8)))
    code, out, err = opendalle("generate", "--again", "out/0001.png")
    assert (code, out) == (0, ["out/0002.png"])
    assert "not out/0001.png to the byte" in err[0]


def rewritten(path, **changes):
    recipe = {**read_recipe(path), **changes}
    new = path.with_name("rewritten.png")
    new.unlink(missing_ok=True)
    return write_png(read_picture(path), new, {key: value for key, value in recipe.items() if value is not None})


@pytest.mark.parametrize(
    "changes",
    [
        {"request": None},
        {"request": [1]},
        {"request": {"prompt": "a", "unheard": 1}},
        {"request": {"prompt": "a", "count": "many"}},
        {"request": {"prompt": "a", "sampler": "plms"}},
        {"index": None},
        {"index": 7},
        {"index": -1},
        {"index": True},
        {"model": None},
        {"model": ["x"]},
        {"model": "missing"},
        {"verb": "edit"},
        {"inputs": [{"name": "mask.png", "sha256": "0" * 64}]},
        {"inputs": [{"name": "../../etc/passwd", "sha256": None}]},
        {"inputs": [{"name": "../../etc/passwd", "sha256": "0" * 64}]},
        {"inputs": [{"name": "a" * 300, "sha256": "0" * 64}]},
        {"inputs": [{"name": "mask.png", "sha256": ["0"]}]},
        {"inputs": [{"name": 5, "sha256": "0" * 64}]},
        {"inputs": ["mask.png"]},
        {"inputs": "mask.png"},
        {"inputs": 5},
        {"inputs": {}},
        {"request": {"prompt": "a", "count": 2.5}},
        {"request": {"prompt": "a", "seed": 0.5}},
        {"request": {"prompt": ["a"]}},
        {"request": {"prompt": "a", "exact": "yes"}},
        {"request": {"prompt": "a", "batch": True}},
        {"model": "/somewhere/else"},
        {"model": "../mine"},
        {"model": ".."},
        {"model": ""},
        {"verb": [[[[["a"]]]]]},
    ],
    ids=str,
)
def test_again_refuses_a_recipe_that_is_not_whole(opendalle, pipeline, here, changes):
    opendalle("generate", "a rocket")
    path = rewritten(here / "out/0001.png", **changes)
    drawn = pipeline.drawn
    code, out, err = opendalle("generate", "--again", str(path), "--out", "again.png")
    assert (code, out, len(err), pipeline.drawn) == (2, [], 1, drawn)
    assert not (here / "again.png").exists()


def test_sizes():
    assert parse_size("256") == (256, 256)
    assert parse_size("320x64") == (320, 64)
    assert parse_size("320×64") == (320, 64)


def test_a_kind_that_nobody_knows_draws_nothing(opendalle, here, one_model):
    code, out, err = opendalle("generate", "a rocket", "--model", "toy")
    assert (code, out, len(err)) == (2, [], 1)
    assert "of kind 'toy'" in err[0]


@pytest.mark.parametrize("data", [b"\xef\xbb\xbfa rocket\n\na cat", b"a rocket\r\na cat\r\n"])
def test_prompts_come_from_standard_input(opendalle, pipeline, here, monkeypatch, data):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="ascii"))
    assert opendalle("generate", "--prompts", "-")[:2] == (0, ["out/0001.png", "out/0002.png"])
    assert [request.prompt for request in pipeline.asked] == ["a rocket", "a cat"]


def test_closed_unreadable_and_undecodable_prompts_are_told_apart(opendalle, pipeline, here, monkeypatch):
    (here / "bytes.txt").write_bytes(b"abc\xff")
    monkeypatch.setattr(sys, "stdin", None)
    assert "standard input, which cannot be read (there is none)" in opendalle("generate", "--prompts", "-")[2][0]
    assert "No such file" in opendalle("generate", "--prompts", "nowhere.txt")[2][0]
    assert "byte 4 is not UTF-8" in opendalle("generate", "--prompts", "bytes.txt")[2][0]


def test_again_asks_the_model_of_the_recipe_or_the_one_that_is_given(opendalle, pipeline, here):
    opendalle("generate", "a rocket", "--model", str(here / "mine"))
    opendalle("generate", "--again", "out/0001.png")
    opendalle("generate", "--again", "out/0001.png", "--model", "dalle2")
    assert pipeline.loaded == [str(here / "mine"), "mine", "dalle2"]
    path = rewritten(here / "out/0001.png", model="missing")
    assert "Give --model." in opendalle("generate", "--again", str(path))[2][0]
    assert opendalle("generate", "--again", str(path), "--model", "dalle2")[0] == 0


PLACES = {
    "another picture's ending": ["--out", "rocket.jpg"],
    "an animation's ending": ["--out", "rocket.gif"],
    "out below a file": ["--out", "taken.txt/x.png"],
    "a folder below a file": ["--out", "taken.txt/out"],
    "a name too long": ["--out", "a" * 300 + ".png"],
    "a folder's name too long": ["--out", "a" * 300],
    "watch below a file": ["--watch", "taken.txt/w.gif"],
    "watch below the picture": ["--out", "x.png", "--watch", "x.png/w.gif"],
    "the picture below watch": ["--out", "w.gif/x.png", "--watch", "w.gif"],
    "watch too long": ["--watch", "a" * 300 + ".gif"],
    "prompts too long": ["--prompts", "a" * 300],
}


@pytest.mark.parametrize("arguments", PLACES.values(), ids=PLACES.keys())
def test_a_place_that_cannot_be_is_refused_before_anything_is_drawn(opendalle, pipeline, here, arguments):
    (here / "taken.txt").touch()
    words = [] if "--prompts" in arguments else ["a rocket"]
    code, out, err = opendalle("generate", *words, *arguments)
    assert (code, out, len(err), pipeline.drawn) == (2, [], 1, 0)
    assert files(here) == ["taken.txt"]


def test_a_folder_that_may_not_be_written_to_is_refused_before_anything_is_drawn(
    opendalle, pipeline, here, monkeypatch
):
    monkeypatch.setattr(os, "access", lambda place, mode: False)  # root may write everywhere
    for place in (["--out", "new/deep"], ["--out", "x.png"], ["--watch", "w.gif"]):
        code, _, err = opendalle("generate", "a rocket", *place)
        assert (code, pipeline.drawn) == (2, 0)
        assert "no right to write in" in err[0]


def test_a_name_as_long_as_the_system_allows_is_written(opendalle, pipeline, here):
    name = "红" * 83 + "ab.png"  # 255 bytes
    assert opendalle("generate", "a rocket", "--out", name) == (0, [name], [])


def test_a_disk_that_fills_up_half_way_is_begun_but_not_done(opendalle, pipeline, here, monkeypatch):
    from opendalle.cli import generate as verb

    def write(picture, path, recipe):
        if path.name == "0002.png":
            raise BadRequest("out/0002.png cannot be written (No space left on device)", "room")
        return write_png(picture, path, recipe)

    monkeypatch.setattr(verb, "write_png", write)
    code, out, err = opendalle("generate", "a rocket", "--count", "3")
    assert (code, out, len(err)) == (1, ["out/0001.png"], 1)
    assert "stopped after out/0001.png: out/0002.png cannot be written" in err[0]


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied", "there"), OSError("odd")])
def test_whatever_the_system_refuses_is_one_line(opendalle, here, monkeypatch, error):
    from opendalle.cli import doctor

    def refuse(*_):
        raise error

    monkeypatch.setattr(doctor.platform, "python_version", refuse)
    monkeypatch.setattr(doctor, "OSError", ZeroDivisionError, raising=False)  # the verb itself does not catch it
    code, _, err = opendalle("doctor")
    assert (code, len(err)) == (1, 1)
    assert err[0].startswith("opendalle: the system refused: ")
