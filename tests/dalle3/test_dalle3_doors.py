"""DALL·E 3 as a folder, from the command line: written, loaded, drawn with, and every picture made again."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from opendalle.base.errors import BadModel
from opendalle.checkpoint.configs import to_plain
from opendalle.checkpoint.folder import Part, read_model, write_model
from opendalle.cli.app import run
from opendalle.codec.consistency import ConsistencyCodec, ConsistencyDecoder
from opendalle.dalle3.pipeline import Dalle3
from opendalle.dalle3.text_decoder import TextDecoder, TextDecoderConfig
from opendalle.pretrained.kinds import CODEC_HEAD, HEAD, TOKENIZER, load, load_pipeline
from opendalle.recipes.dalle2_folder import name_sibling

CARD = {"data": "none", "recipe": "by hand", "licence": "none"}


def written(place: Path, kind: str, network: Any, **extra: Any) -> Path:
    part = Part(to_plain(network.config), network.state_dict(), extra=extra)
    return write_model(place, kind=kind, parts={"network": part}, card=CARD).path


@pytest.fixture
def folder(dalle: Dalle3, tmp_path: Path) -> Path:
    """A model folder beside those of its siblings; it has no rewriter."""
    parts, reader = dalle.parts, dalle.parts.reader
    assert parts.captioner is not None
    captioner = parts.captioner()
    clip, spelling = ({TOKENIZER: one.tokenizer.to_json()} for one in (captioner, reader))
    places = {
        "text": written(tmp_path / "tiny-text", "text-encoder", reader.encoder, **spelling),
        "codec": written(tmp_path / "tiny-codec", "codec-kl", parts.codec),
        "clip": written(tmp_path / "tiny-clip", "clip", captioner.clip, **clip),
        "upsampler": written(tmp_path / "tiny-upsampler", "upsampler", parts.upsampler),
        "upscaler": written(tmp_path / "tiny-upscaler", "upsampler", parts.upscaler),
    }
    network = captioner.networks["short"]
    head = {
        "settings": {"parts": {"short": "network"}},
        "siblings": {"clip": read_model(places["clip"]).reference},
    }
    own = {"network": Part(to_plain(network.config), network.state_dict()), HEAD: Part(head)}
    places["captioner"] = write_model(tmp_path / "tiny-captioner", kind="captioner", parts=own, card=CARD).path
    named = {role: read_model(place).reference for role, place in places.items()}
    denoiser = Part(to_plain(parts.denoiser.config), parts.denoiser.state_dict())
    pipeline = Part({"settings": to_plain(dalle.config), "siblings": named})
    model = {"denoiser": denoiser, HEAD: pipeline}
    return write_model(tmp_path / "tiny", kind="dalle3", parts=model, card=CARD).path


def test_a_folder_is_the_model(dalle: Dalle3, folder: Path) -> None:
    found = load_pipeline(folder)
    assert isinstance(found, Dalle3)
    assert found.origin == {"model": "tiny", "sha256": read_model(folder).sha256}
    assert found.clip_sha256 == read_model(folder.parent / "tiny-clip").sha256
    assert found.config == dalle.config
    asked = {"seed": 3, "width": 112, "height": 64}
    (one,), (other,) = (model.generate("a red apple", **asked) for model in (found, dalle))
    assert one.picture.tobytes() == other.picture.tobytes()
    picture = Image.new("RGB", (32, 32), "red")
    assert found.caption(picture) == dalle.caption(picture)
    assert found.encode_text(["a car"]).shape == (1, 8)


def test_every_verb_from_the_command_line_and_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save("given.png")
    model = ["--model", str(folder)]
    made = {
        "drawn.png": ["generate", "a red apple", "--size", "64", "--seed", "3", "--steps", "3", "--guidance", "2"],
        "revised.png": ["generate", "an apple", "--revised-prompt", "a red apple", "--size", "32"],
        "wide.png": ["generate", "a red apple", "--size", "224x128", "--seed", "3"],
        "tall.png": ["generate", "a red apple", "--size", "64x112", "--background", "transparent"],
        "varied.png": ["vary", "given.png", "--size", "32", "--eta", "0.25", "--renew", "0.1"],
        "edited.png": ["edit", "given.png", "a red apple", "--box", "4,4,20,20"],
        "grown.png": ["edit", "given.png", "--extend", "left=8"],
        "large.png": ["upscale", "given.png", "--scale", "4"],
    }
    for name, words in made.items():
        assert run([*words, *model, "--out", name]) == 0, capsys.readouterr().err
        assert run(["generate", "--again", name, *model, "--out", f"again-{name}"]) == 0, capsys.readouterr().err
        assert Path(name).read_bytes() == Path(f"again-{name}").read_bytes()
    capsys.readouterr()
    refused = {
        "generate a --size 32 --temperature 0.5": "DALL·E 3 does not read it",
        "generate a --size 300": "a square of side 32, 64, or WIDTHxHEIGHT with a shorter side of 32 to 128",
        "generate a --size 32 --rewrite own": "it has no rewriter of its own",
        "blend given.png given.png --size 32": "blend with DALL·E 3",
    }
    for words, why in refused.items():
        assert run([*words.split(), *model]) == 2
        assert why in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_consistency_decoder_beside_it_draws(folder: Path, consistency: ConsistencyDecoder) -> None:
    codec = read_model(folder.parent / "tiny-codec").reference
    parts = {
        "decoder": Part(to_plain(consistency.config), consistency.state_dict()),
        CODEC_HEAD: Part({"siblings": {"encoder": codec}}),
    }
    drawing = write_model(folder.parent / "tiny-drawing", kind="consistency-decoder", parts=parts, card=CARD).path
    found = load(name_sibling(folder, "codec", drawing, folder.parent / "other").path)
    assert isinstance(found.parts.codec, ConsistencyCodec)
    plain, drawn = (next(model.generate("a car", width=32, height=32)) for model in (load(folder), found))
    assert plain.picture.tobytes() != drawn.picture.tobytes()


def test_a_rewriter_beside_it_rewrites_and_what_it_loses_is_told(folder: Path, dalle: Dalle3) -> None:
    torch.manual_seed(0)
    encoder = dalle.parts.reader.encoder
    decoder = TextDecoder(TextDecoderConfig(**to_plain(encoder.config)))  # random: it writes nothing that can be drawn
    head = {
        "settings": {"longest": 6, "context": 32},
        "siblings": {"text": read_model(folder.parent / "tiny-text").reference},
    }
    own = {"rewriter": Part(to_plain(decoder.config), decoder.state_dict()), HEAD: Part(head)}
    beside = write_model(folder.parent / "tiny-rewriter", kind="rewriter", parts=own, card=CARD)
    found = load(name_sibling(folder, "rewriter", beside.path, folder.parent / "writer").path)
    asked = {"width": 32, "height": 32}
    (drawn,), (plain,) = (found.generate("a red apple", rewrite=mode, **asked) for mode in ("own", "off"))
    assert drawn.revised_prompt == "a red apple"
    assert drawn.recipe["rewriting"]["by"] == "tiny-rewriter"
    assert drawn.recipe["rewriting"]["kept"]
    assert drawn.picture.tobytes() == plain.picture.tobytes()
    assert "rewriting" not in plain.recipe


def test_siblings_of_another_kind_are_refused(folder: Path) -> None:
    head, denoiser = read_model(folder).part(HEAD).config, read_model(folder).part("denoiser")
    head["siblings"]["captioner"] = head["siblings"]["clip"]
    parts = {"denoiser": Part(denoiser.config, denoiser.state()), HEAD: Part(head)}
    with pytest.raises(BadModel, match="as the captioner"):
        load(write_model(folder.parent / "wrong", kind="dalle3", parts=parts, card=CARD).path)
    del head["siblings"]["text"], head["siblings"]["captioner"]
    parts[HEAD] = Part(head)
    with pytest.raises(BadModel, match="with text = None"):
        load(write_model(folder.parent / "silent", kind="dalle3", parts=parts, card=CARD).path)


def test_the_bundled_model_is_asked_for_before_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from opendalle.checkpoint import places

    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(places, "bundled_folder", cache(lambda: tmp_path / "empty"))
    monkeypatch.chdir(tmp_path)
    assert run(["generate", "a red apple", "--model", "dalle3"]) == 2
    assert "no model 'dalle3'" in capsys.readouterr().err
    assert not Path("out").exists()
