"""The ground floor: errors that teach, a Request that refuses nonsense, and noise that belongs to a picture."""

import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from opendalle.base.errors import BadConfig, BadRequest, MissingExtra, OpenDalleError, require
from opendalle.base.records import Sample
from opendalle.base.request import MAX_PROMPT_CHARACTERS, VERBS, Request
from opendalle.base.rng import normal_like_rows, picture_generator


def test_an_error_says_what_came_what_was_wanted_and_what_to_do() -> None:
    error = OpenDalleError("depth is 0", "at least 1", "Give --depth 4.")
    assert str(error) == "depth is 0; wanted at least 1. Give --depth 4."
    assert isinstance(error, ValueError)
    assert "opendalle[train]" in str(MissingExtra("pyarrow", "train"))


def test_require_raises_only_when_it_must() -> None:
    require(True, "x", "y")
    with pytest.raises(BadConfig, match="x; wanted y"):
        require(False, "x", "y")


@pytest.mark.parametrize(
    "wrong",
    [
        {"count": 0},
        {"count": 1001},
        {"seed": -1},
        {"seed": 2**63},
        {"width": 0},
        {"height": 5000},
        {"steps": 0},
        {"guidance": float("nan")},
        {"guidance": -0.5},
        {"eta": 1.5},
        {"rescale": -1.0},
        {"threshold": 0.2},
        {"sampler": "magic"},
        {"background": "plaid"},
        {"candidates": 65},
        {"batch": 0},
        {"previews": -1},
        {"prompt": "x" * (MAX_PROMPT_CHARACTERS + 1)},
        {"prompt": "half a pair \ud83d"},
    ],
)
def test_nonsense_is_refused(wrong: dict) -> None:
    with pytest.raises(BadRequest):
        Request(**wrong)


@given(
    prompt=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=200),
    count=st.integers(1, 1000),
    seed=st.integers(0, 2**62),
    guidance=st.none() | st.floats(0, 100),
)
def test_a_request_survives_json(prompt: str, count: int, seed: int, guidance: float | None) -> None:
    request = Request(prompt=prompt, count=count, seed=seed, guidance=guidance)
    assert Request.of(**json.loads(json.dumps(request.asked_of("generate")))) == request


def test_every_field_has_words_for_its_flag() -> None:
    assert all(field.metadata["help"] for field in fields(Request))


def test_the_revised_prompt_is_drawn_and_both_are_kept() -> None:
    assert Request(prompt="an owl").caption == "an owl"
    request = Request(prompt="an owl", revised_prompt="a small brown owl")
    assert (request.prompt, request.caption) == ("an owl", "a small brown owl")
    assert Sample(
        picture=Image.new("RGB", (4, 4)), request=request, index=0, seed=0, step=1, num_steps=1
    ).revised_prompt == ("a small brown owl")


def test_what_nobody_rewrote_is_not_drawn_as_it_is() -> None:
    for rewrite in ("own", "http", "local"):
        with pytest.raises(BadRequest, match=f"rewrite is '{rewrite}'.*DALL·E 2 does not do it"):
            Request(prompt="an owl", rewrite=rewrite).refuse_unwritten("DALL·E 2")
        Request(prompt="an owl", rewrite=rewrite, revised_prompt="a brown owl").refuse_unwritten("DALL·E 2")
        Request(prompt="", rewrite=rewrite).refuse_unwritten("DALL·E 2")
    for rewrite in (None, "off"):
        Request(prompt="an owl", rewrite=rewrite).refuse_unwritten("DALL·E 2")
    with pytest.raises(BadRequest, match="'rewrite', which cannot be asked"):
        Request.of("an owl", verb="edit", rewrite="off")  # what a picture shows already is not to be invented


def test_picture_k_uses_seed_plus_k() -> None:
    assert Request(seed=7, count=3).seeds() == (7, 8, 9)


def test_a_pictures_noise_is_its_own() -> None:
    together = normal_like_rows([picture_generator(seed) for seed in (3, 4, 5)], (2, 3))
    alone = normal_like_rows([picture_generator(4)], (2, 3))
    assert torch.equal(together[1], alone[0])
    assert not torch.equal(together[0], together[1])


def test_a_sample_shows_itself_in_a_notebook() -> None:
    sample = Sample(picture=Image.new("RGB", (4, 4), "red"), request=Request(), index=0, seed=0, step=1, num_steps=1)
    assert sample._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"count": 1.5}, "count is 1.5; wanted a whole number"),
        ({"count": "2"}, "count is '2'; wanted a whole number"),
        ({"count": True}, "count is True; wanted a whole number"),
        ({"count": None}, "count is a NoneType; wanted a whole number"),
        ({"seed": 0.5}, "seed is 0.5; wanted a whole number"),
        ({"steps": 2.0}, "steps is 2.0; wanted a whole number"),
        ({"guidance": "3"}, "guidance is '3'; wanted a number"),
        ({"eta": False}, "eta is False; wanted a number"),
        ({"exact": "yes"}, "exact is 'yes'; wanted True or False"),
        ({"exact": 1}, "exact is 1; wanted True or False"),
        ({"prompt": None}, "prompt is a NoneType; wanted text"),
        ({"prompt": b"x"}, "prompt is a bytes; wanted text"),
        ({"prompt": ["a"]}, "prompt is a list; wanted text"),
        ({"sampler": ["ddim"]}, "sampler is a list; wanted text"),
        ({"cuont": 2}, "'cuont', which cannot be asked; wanted one of prompt, count, .* Did you mean count?"),
        ({"prompt": "a \udcff b"}, "bytes that are not UTF-8"),
        ({"prompt": "a \ud800 b"}, "half a surrogate pair"),
    ],
)
def test_what_is_of_another_type_is_named(wrong: dict, says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        Request.of(**wrong)


def test_numpys_numbers_become_pythons_own() -> None:
    request = Request.of("a", count=np.int64(2), seed=np.uint8(7), guidance=np.float32(2.5), eta=1)
    assert request == Request(prompt="a", count=2, seed=7, guidance=2.5, eta=1)
    asked = request.asked_of("generate")
    assert json.loads(json.dumps(asked)) == asked


def test_a_verb_is_asked_what_it_reads_and_nothing_else() -> None:
    assert Request.of(verb="blend", weights=[1, np.float32(2)], frames=3).weights == (1.0, 2.0)
    with pytest.raises(BadRequest, match=r"'frames', which cannot be asked"):
        Request.of(verb="vary", frames=3)
    with pytest.raises(BadRequest, match="several numbers"):
        Request.of(verb="ladder", components="20")
    asked = Request.of(verb="ladder", components=(3, 5)).asked_of("ladder")
    assert Request.of(verb="ladder", **json.loads(json.dumps(asked))).components == (3, 5)
    assert all(set(one.metadata["verbs"]) <= set(VERBS) for one in fields(Request))


UNCHECKED = """
import opendalle
from opendalle.base.errors import BadConfig, BadModel, BadPicture, BadRequest
for error, call in (
    (BadRequest, lambda: opendalle.Request(count=1.5)),
    (BadRequest, lambda: opendalle.Request(prompt=None)),
    (BadModel, lambda: opendalle.load(None)),
    (BadModel, lambda: opendalle.load("no\\0where")),
    (BadConfig, lambda: opendalle.load("codec", device="foo")),
    (BadConfig, lambda: opendalle.load("codec", device=1.5)),
    (BadPicture, lambda: opendalle.read_picture(None)),
    (BadPicture, lambda: opendalle.read_picture("nowhere.png")),
    (BadPicture, lambda: opendalle.read_recipe(5)),
    (BadPicture, lambda: opendalle.write_png(None, "x.png")),
):
    try:
        call()
    except error:
        continue
    raise SystemExit(f"no {error.__name__}")
"""


def test_the_front_names_refuse_strange_types_in_words(tmp_path: Path) -> None:
    """In a process of its own: here a hook checks every argument before the house can."""
    source = str(Path(__file__).parents[2] / "src")
    environment = {**os.environ, "PYTHONPATH": source}
    subprocess.run([sys.executable, "-c", UNCHECKED], check=True, cwd=tmp_path, env=environment, timeout=120)
