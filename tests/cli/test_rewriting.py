"""Rewriting at the front door: the text that is drawn, shown, stored, and drawn again without any rewriter."""

import json
import socket
import sys
from pathlib import Path

import pytest

from opendalle.cli.rewriting import KEY
from opendalle.pictures import read_recipe, write_png

sys.path.append(str(Path(__file__).parents[1] / "dalle3"))  # importlib mode leaves the folder out

from chat_server import CAPTION, serving  # pyright: ignore[reportMissingImports] - it lies in another room

OWLS = CAPTION.format("three owls")


@pytest.fixture
def chat():
    with serving() as one:
        yield one


@pytest.fixture
def door(chat):
    """The flags of a chat address."""
    return ("--rewrite", "http", "--chat-url", chat.url, "--chat-model", "tiny")


def test_a_rewritten_prompt_is_drawn_shown_and_stored(opendalle, pipeline, here, chat, door):
    code, out, said = opendalle("generate", "three owls", "--count", "2", *door)
    assert (code, out) == (0, ["out/0001.png", "out/0002.png"])
    assert said == [f"opendalle: drawn as: {OWLS}"]
    (asked,) = pipeline.asked
    assert (asked.prompt, asked.revised_prompt, asked.caption, asked.rewrite) == ("three owls", OWLS, OWLS, "http")
    recipe = read_recipe(here / "out/0002.png")
    assert (recipe["request"]["prompt"], recipe["request"]["revised_prompt"]) == ("three owls", OWLS)
    assert recipe["rewriting"] == {"by": "http:tiny", "attempts": 1}
    assert len(chat.questions) == 1


def test_neither_key_nor_address_is_told_or_stored(opendalle, pipeline, here, chat, door, monkeypatch):
    monkeypatch.setenv(KEY, "sk-secret")
    code, out, said = opendalle("generate", "three owls", *door)
    assert (code, chat.headers[0]["Authorization"]) == (0, "Bearer sk-secret")
    stored = (here / "out/0001.png").read_bytes()
    for secret in ("sk-secret", "127.0.0.1", chat.url):
        assert secret.encode() not in stored
        assert secret not in " ".join([*out, *said])
    chat.play = ["closed"]
    code, out, said = opendalle("generate", "three owls", *door)
    assert (code, out, len(said)) == (2, [], 1)
    assert "OPENDALLE_CHAT_KEY" in said[0]
    assert "sk-secret" not in said[0]


def test_again_asks_nobody(opendalle, pipeline, here, chat, door, monkeypatch):
    opendalle("generate", "three owls", "--count", "3", *door)

    def no_network(*_):
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    code, _, said = opendalle("generate", "--again", "out/0003.png", "--out", "again.png")
    assert (code, said) == (0, [])
    assert (here / "again.png").read_bytes() == (here / "out/0003.png").read_bytes()
    assert (pipeline.asked[-1].rewrite, pipeline.asked[-1].caption) == ("off", OWLS)


def test_a_strangers_recipe_makes_nobody_rewrite(opendalle, pipeline, here):
    opendalle("generate", "three owls")
    recipe = read_recipe(here / "out/0001.png")
    recipe["request"] |= {"rewrite": "http", "revised_prompt": ""}
    write_png(pipeline.picture(pipeline.asked[0], 0, 1), here / "strange.png", recipe)
    assert opendalle("generate", "--again", "strange.png", "--out", "again.png")[0] == 0
    assert (pipeline.asked[-1].rewrite, pipeline.asked[-1].caption) == ("off", "three owls")


def test_own_words_are_kept_and_that_is_told(opendalle, pipeline, here, chat, door):
    chat.play = ["forgetful"]
    code, out, said = opendalle("generate", "three owls", *door)
    assert (code, out) == (0, ["out/0001.png"])
    assert said[0].startswith("opendalle: note: your own words are drawn; http:tiny: counts (3 owls)")
    assert pipeline.asked[0].caption == "three owls"
    recipe = read_recipe(here / "out/0001.png")
    assert recipe["request"]["revised_prompt"] == "three owls"
    assert "3 owls" in recipe["rewriting"]["kept"]
    assert len(chat.questions) == 3


def test_a_long_prompt_is_left_alone(opendalle, pipeline, here, chat, door):
    long = "three owls on a branch in a forest under a pale sky with a thin moon and stars"
    assert opendalle("generate", long, *door)[0] == 0
    assert (pipeline.asked[0].caption, chat.questions) == (long, [])


def test_each_line_of_a_file_is_rewritten_when_its_turn_comes(opendalle, pipeline, here, chat, door):
    (here / "lines.txt").write_text("three owls\n三只猫\ntwo dogs\n", encoding="utf-8")
    chat.play = ["good", "forgetful", "forgetful", "forgetful", "missing"]
    code, out, said = opendalle("generate", "--prompts", "lines.txt", *door)
    assert (code, out) == (1, ["out/0001.png", "out/0002.png"])  # begun, and not done
    assert [request.caption for request in pipeline.asked] == [OWLS, "三只猫"]
    assert "404" in said[-1]


def test_a_text_of_ones_own_is_drawn_instead_of_the_prompt(opendalle, pipeline, here):
    assert opendalle("generate", "an owl", "--revised-prompt", "a small brown owl") == (0, ["out/0001.png"], [])
    assert pipeline.asked[0].caption == "a small brown owl"


def test_a_pipelines_own_rewriting_is_told_as_well(opendalle, pipeline, here, monkeypatch):
    from dataclasses import replace

    draw = pipeline.generate

    def generate(prompt="", **asked):
        for sample in draw(prompt, **asked):
            request = replace(sample.request, revised_prompt=OWLS)
            yield replace(sample, request=request, recipe={**sample.recipe, "rewriting": {"by": "own", "attempts": 1}})

    monkeypatch.setattr(pipeline, "generate", generate)
    assert opendalle("generate", "three owls")[2] == [f"opendalle: drawn as: {OWLS}"]
    recipe = read_recipe(here / "out/0001.png")
    assert (recipe["request"]["revised_prompt"], recipe["rewriting"]["by"]) == (OWLS, "own")


@pytest.mark.parametrize(
    "flags",
    [
        "--rewrite http",
        "--rewrite http --chat-url http://127.0.0.1:9/v1",
        "--rewrite http --chat-model tiny",
        "--rewrite http --chat-url ftp://a --chat-model tiny",
        "--rewrite local",
        "--rewrite local --chat-model missing",
        "--rewrite local --chat-url http://127.0.0.1:9/v1 --chat-model tiny",
        "--rewrite own --chat-model tiny",
        "--rewrite off --chat-url http://127.0.0.1:9/v1",
        "--chat-url http://127.0.0.1:9/v1",
        "--chat-model tiny",
        "--rewrite sometimes",
    ],
)
def test_flags_that_do_not_fit_are_refused(opendalle, pipeline, here, flags):
    code, out, said = opendalle("generate", "an owl", *flags.split())
    assert (code, out, len(said)) == (2, [], 1)
    assert pipeline.asked == []
    assert list(here.iterdir()) == []


def test_flags_that_do_not_fit_the_prompts_are_refused(opendalle, pipeline, here):
    (here / "lines.txt").write_text("an owl\na cat\n")
    code, _, said = opendalle("generate", "--prompts", "lines.txt", "--revised-prompt", "a brown owl")
    assert (code, len(said)) == (2, 1)
    opendalle("generate", "an owl")
    assert opendalle("generate", "--again", "out/0001.png", "--chat-model", "tiny", "--out", "x.png")[0] == 2
    assert opendalle("generate", "--again", "out/0001.png", "--rewrite", "own", "--out", "x.png")[0] == 2


def test_a_local_model_is_asked_when_its_folder_is_named(opendalle, pipeline, here, monkeypatch):
    from opendalle.dalle3.rewriting import local

    class Local:
        def __init__(self, folder):
            self.name = f"local:{folder.name}"

        def rewrite(self, prompts, *, seeds):
            return [CAPTION.format(one) for one in prompts]

    monkeypatch.setattr(local, "LocalRewriter", Local)
    line = ("--rewrite", "local", "--chat-model", "models/tiny")
    assert opendalle("generate", "three owls", *line)[2] == [f"opendalle: drawn as: {OWLS}"]
    recipe = read_recipe(here / "out/0001.png")
    assert recipe["rewriting"]["by"] == "local:tiny"
    assert "models" not in json.dumps(recipe["rewriting"])
