"""The changing verbs at the front door: what reaches the pipeline, what is written, and what makes it again."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from opendalle.base.request import Request
from opendalle.pictures import read_picture, read_recipe, write_png


@pytest.fixture
def cat(here):
    return write_png(Image.new("RGBA", (12, 8), (200, 40, 40, 120)), here / "cat.png")


def test_a_variation_reaches_the_pipeline(opendalle, pipeline, here, cat):
    line = "--count 2 --seed 9 --eta 0.5 --renew 0.25 --steps 3 --guidance 2 --refinements 1 --batch 2 --exact"
    code, out, _ = opendalle("vary", "cat.png", "a cat", *line.split())
    assert (code, out) == (0, ["out/0001.png", "out/0002.png"])
    assert pipeline.asked[0] == Request(
        prompt="a cat", count=2, seed=9, eta=0.5, renew=0.25, steps=3, guidance=2.0, refinements=1, batch=2, exact=True
    )
    recipe = read_recipe(here / "out/0002.png")
    assert (recipe["verb"], recipe["index"], recipe["inputs"][0]["name"]) == ("vary", 1, "cat.png")


def test_frames_become_pictures_or_one_animation(opendalle, pipeline, here, cat):
    assert opendalle("blend", "cat.png", "a rocket", "--frames", "3")[1] == [f"out/000{k}.png" for k in (1, 2, 3)]
    assert read_recipe(here / "out/0003.png")["inputs"][1] == {"text": "a rocket"}
    for ending in ("gif", "mp4"):
        name = f"way.{ending}"
        assert opendalle("morph", "cat.png", "--to", "a dog", "--from", "a cat", "--frames", "3", "--out", name)[0] == 0
    assert (pipeline.asked[-1].from_text, pipeline.asked[-1].to_text) == ("a cat", "a dog")
    with Image.open(here / "way.gif") as gif:
        assert getattr(gif, "n_frames", 1) == 3
    import av

    with av.open(str(here / "way.mp4")) as film:
        assert len(list(film.decode(video=0))) == 3


def test_weights_and_components_are_numbers_with_commas(opendalle, pipeline, here, cat):
    assert opendalle("blend", "cat.png", "a rocket", "--weights", "1,0.5")[0] == 0
    assert pipeline.asked[-1].weights == (1.0, 0.5)
    assert opendalle("ladder", "cat.png", "--components", "3,5,7", "--out", "row.png")[0] == 0
    assert pipeline.asked[-1].components == (3, 5, 7)
    row = read_picture(here / "row.png")
    assert row.width > 2 * row.height  # three rungs side by side
    code, _, said = opendalle("ladder", "cat.png", "--components", "3,many")
    assert code == 2
    assert "commas" in said[0]


def test_a_picture_comes_from_standard_input(opendalle, pipeline, here, cat, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(cat.read_bytes())))
    assert opendalle("vary", "-")[0] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("vary", "cat.png", "--count", "2"),
        ("blend", "cat.png", "a rocket", "--frames", "3"),
        ("morph", "cat.png", "--to", "a dog"),
        ("ladder", "cat.png", "--components", "3,5"),
    ],
)
def test_again_makes_the_same_bytes_of_the_same_inputs(opendalle, pipeline, here, cat, arguments):
    last = opendalle(*arguments)[1][-1]
    assert opendalle("generate", "--again", last, "--input", "cat.png", "--out", "again.png")[0] == 0
    assert (here / "again.png").read_bytes() == (here / last).read_bytes()
    cat.rename(here / "out" / "cat.png")
    assert opendalle("generate", "--again", last, "--out", "beside.png")[0] == 0


def test_again_refuses_other_inputs(opendalle, pipeline, here, cat):
    opendalle("vary", "cat.png")
    write_png(Image.new("RGB", (4, 4)), here / "dog.png")
    code, _, said = opendalle("generate", "--again", "out/0001.png", "--out", "1.png")
    assert code == 2
    assert "cat.png" in said[0]
    extra = ("--input", "cat.png", "--input", "dog.png")
    assert opendalle("generate", "--again", "out/0001.png", *extra, "--out", "2.png")[0] == 2
    assert not (here / "1.png").exists()
    assert not (here / "2.png").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("vary",),
        ("vary", "missing.png"),
        ("vary", "torn.png"),
        ("vary", "words.png"),
        ("vary", "cat.png", "--eta", "2"),
        ("vary", "cat.png", "--out", "cat.png"),
        ("blend", "cat.png", "missing.png"),
        ("blend", "cat.png", "a rocket", "--frames", "0"),
        ("blend", "cat.png", "a rocket", "--frames", "3", "--out", "one.png"),
        ("blend", "cat.png", "a rocket", "--frames", "3", "--out", "one.webm.jpg"),
        ("blend", "cat.png", "a rocket", "--weights", "-1,2"),
        ("morph", "cat.png"),
        ("ladder", "cat.png", "--components", "0"),
        ("embed", "missing.png"),
    ],
)
def test_wrong_use_is_one_line_exit_2_and_nothing_written(opendalle, pipeline, here, cat, arguments):
    (here / "torn.png").write_bytes(cat.read_bytes()[:40])
    (here / "words.png").write_text("no picture")
    before = sorted(here.rglob("*"))
    code, out, said = opendalle(*arguments)
    assert (code, out, len(said)) == (2, [], 1)
    assert sorted(here.rglob("*")) == before
    assert pipeline.drawn == 0


def test_an_odd_size_loses_its_last_row_in_a_film(here):
    from opendalle.pictures import write_animation

    frames = [Image.fromarray(np.full((7, 9, 3), k * 60, np.uint8)) for k in range(3)]
    import av

    with av.open(str(write_animation(frames, here / "odd.mp4"))) as film:
        assert {(one.width, one.height) for one in film.decode(video=0)} == {(8, 6)}
