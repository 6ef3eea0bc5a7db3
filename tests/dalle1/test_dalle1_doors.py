"""DALL·E 1 as a folder, from the command line: written, loaded, drawn with, and every picture made again."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from opendalle.base.errors import BadModel
from opendalle.checkpoint.configs import to_plain
from opendalle.checkpoint.folder import Part, read_model, write_model
from opendalle.cli.app import run
from opendalle.dalle1.pipeline import Dalle1
from opendalle.pretrained.kinds import TOKENIZER, load, load_pipeline
from opendalle.recipes.dalle1 import write_dalle1

CARD = {"data": "none", "recipe": "by hand", "licence": "none"}


@pytest.fixture
def folder(tall: Dalle1, tmp_path: Path) -> Path:
    """A model folder beside those of its siblings."""
    parts, places = tall.parts, {}
    kinds = {
        "clip": ("clip", parts.clip),
        "codec": ("codec-dvae", parts.codec),
        "upsampler": ("upsampler", parts.upsampler),
        "upscaler": ("upsampler", parts.upscaler),
    }
    for role, (kind, network) in kinds.items():
        extra = {TOKENIZER: parts.tokenizer.to_json()} if role == "clip" else {}
        part = Part(to_plain(network.config), network.state_dict(), extra=extra)
        places[role] = write_model(tmp_path / f"tiny-{role}", kind=kind, parts={role: part}, card=CARD).path
    return write_dalle1(tmp_path / "tiny", parts.transformer, places, CARD, {}).path


def test_a_folder_is_the_model(dalle: Dalle1, folder: Path) -> None:
    found = load_pipeline(folder)
    assert isinstance(found, Dalle1)
    assert found.parts.transformer.config == dalle.parts.transformer.config
    assert found.origin == {"model": "tiny", "sha256": read_model(folder).sha256}
    kept = found.parts.transformer.state_dict()
    for name, weight in dalle.parts.transformer.state_dict().items():
        assert (kept[name] - weight).abs().max() <= weight.abs().max() / 100  # eight bits
    assert found.sizes == (32, 64)
    (sample,) = found.generate("a red apple", width=64, height=64)
    assert sample.picture.size == (64, 64)
    assert [(one.base, len(one.grid)) for one in found.words.stages] == [(32, 2), (64, 1)]
    (sample,) = found.generate("a red apple", width=128, height=128)
    assert sample.picture.size == (128, 128)


def test_siblings_of_another_language_are_refused(dalle: Dalle1, folder: Path) -> None:
    config = to_plain(dalle.parts.transformer.config) | {"picture_vocabulary": 16}
    state = dict(dalle.parts.transformer.state_dict())
    state["words.weight"], state["words_out.weight"] = state["words.weight"][:16], state["words_out.weight"][:16]
    head = Part(read_model(folder).part("pipeline").config)
    other = folder.parent / "other"
    write_model(other, kind="dalle1", parts={"transformer": Part(config, state), "pipeline": head}, card=CARD)
    with pytest.raises(BadModel, match="a transformer of words"):
        load(other)


def test_every_verb_from_the_command_line_and_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save("given.png")
    model = ["--model", str(folder)]
    made = {
        "drawn.png": ["generate", "a red apple", "--size", "64", "--seed", "3", "--candidates", "2", "--top-k", "5"],
        "small.png": ["generate", "a red apple", "--size", "32", "--lookahead", "4", "--background", "transparent"],
        "varied.png": ["vary", "given.png", "a red apple", "--size", "32", "--eta", "0.25", "--temperature", "0.8"],
        "edited.png": ["edit", "given.png", "a red apple", "--box", "4,4,20,20"],
        "grown.png": ["edit", "given.png", "--extend", "left=8"],
        "large.png": ["upscale", "given.png", "--scale", "4"],
        "wide.png": ["generate", "a red apple", "--size", "224x128", "--seed", "3"],
        "varied-large.png": ["vary", "given.png", "--size", "100"],
    }
    for name, words in made.items():
        assert run([*words, *model, "--out", name]) == 0, capsys.readouterr().err
        assert run(["generate", "--again", name, *model, "--out", f"again-{name}"]) == 0, capsys.readouterr().err
        assert Path(name).read_bytes() == Path(f"again-{name}").read_bytes()
    assert run(["generate", "a red apple", "--size", "32", "--steps", "3", *model]) == 2
    assert "DALL·E 1 does not read it" in capsys.readouterr().err
    assert run(["generate", "a red apple", "--size", "129", *model]) == 2
    assert "a square of side 32, 64, or WIDTHxHEIGHT with a shorter side of 32 to 128" in capsys.readouterr().err
    assert run(["blend", "given.png", "given.png", *model, "--size", "32"]) == 2
    assert "blend with DALL·E 1" in capsys.readouterr().err
    assert not Path("out").exists()
