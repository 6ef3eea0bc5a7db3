"""Distillation from a model folder to a model folder, and a consistency decoder beside its codec."""

import json
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest
import torch
from PIL import Image

import opendalle
from opendalle.base.errors import BadConfig, BadModel, BadRequest
from opendalle.checkpoint.configs import to_plain
from opendalle.checkpoint.folder import Part, read_model, write_model
from opendalle.codec.consistency import CONSISTENCY_PRESETS, ConsistencyCodec, ConsistencyDecoder
from opendalle.codec.kl import KLAutoencoder, KLAutoencoderConfig
from opendalle.nn.unet import UNetLevel
from opendalle.pretrained import kinds
from opendalle.recipes import consistency_decoder as recipe
from opendalle.recipes import run
from opendalle.recipes.few_steps import few_steps, taught_steps
from opendalle.samplers.settings import StageSettings

CARD = {"data": "none", "recipe": "by hand", "licence": "none"}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    folder.mkdir()
    for k in range(4):
        Image.new("RGB", (64, 64), (40 * k, 90, 200 - 40 * k)).save(folder / f"{k}.png")
        (folder / f"{k}.txt").write_text(f"number {k}")
    return folder


def test_a_student_is_its_teacher_but_for_the_decoder(data: Path, tmp_path: Path) -> None:
    short = {"data": data, "model": Path("dalle2"), "pairs": 4, "pictures": 4, "batch_size": 2, "substeps": 2}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    steps = list(run("few_steps", out=whole, **short))
    assert [step.pictures for step in steps] == [2, 4]
    assert len(list(run("few_steps", out=cut, max_minutes=1e-9, **short))) <= 1
    list(run("few_steps", out=cut, resume=tmp_path / "cut.runs", **short))
    teacher, student = read_model(kinds.find_model("dalle2")), read_model(whole)
    assert read_model(cut).files["decoder/weights.safetensors"] == student.files["decoder/weights.safetensors"]
    changed = {name for name in teacher.files if teacher.files[name] != student.files.get(name)}
    assert changed == {"decoder/weights.safetensors", "pipeline/config.json"}
    assert student.files.keys() == teacher.files.keys()
    assert student.card["recipe"]["teacher"] == teacher.reference
    dalle = opendalle.load(whole)
    assert (dalle.config.decoder.taught_steps, dalle.config.decoder.taught_guidance) == ((4,), 2.0)
    assert dalle.config.prior == opendalle.load("dalle2").config.prior
    with pytest.raises(BadRequest, match="steps is 20; wanted 4"):
        dalle.generate("a red apple", steps=20)
    with pytest.raises(BadModel, match="itself a student"):
        list(run("few_steps", out=tmp_path / "again", **short | {"model": whole}))


def test_what_cannot_be_distilled(data: Path, tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="a codec-kl, to distil; wanted a dalle2"):
        few_steps(data, tmp_path / "out", model=Path("codec"))
    with pytest.raises(BadConfig, match="stride or clean"):
        few_steps(data, tmp_path / "out", model=Path("dalle2"), reach="far")


def test_a_student_that_answers_with_clean_data_can_leave_steps_out() -> None:
    settings = StageSettings()
    assert taught_steps(settings, 4, "stride") == (4,)
    assert taught_steps(settings, 4, "clean") == (1, 2, 4)
    assert taught_steps(settings, 6, "clean") == (1, 2, 3, 6)


@pytest.fixture
def codec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny codec of the bundled one's shape, and a tiny preset for it."""
    torch.manual_seed(0)
    network = KLAutoencoder(KLAutoencoderConfig(widths=(32, 32), decoder_depth=1))
    part = Part(to_plain(network.config), network.state_dict())
    write_model(tmp_path / "codec", kind="codec-kl", parts={"codec": part}, card=CARD)
    preset = CONSISTENCY_PRESETS["emoji"]
    small = replace(preset, unet=replace(preset.unet, levels=(UNetLevel(width=32, num_blocks=1),), patch=4))
    monkeypatch.setattr(recipe, "CONSISTENCY_PRESETS", MappingProxyType({**CONSISTENCY_PRESETS, "emoji": small}))
    return tmp_path / "codec"


def test_a_consistency_decoder_is_trained_in_two_stages_and_is_a_codec(data: Path, codec: Path, tmp_path: Path) -> None:
    short = {"data": data, "codec": codec, "batch_size": 2, "denoising_pictures": 4, "distilled_pictures": 4}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    steps = list(run("consistency_decoder", out=whole, **short))
    assert [(step.stage, step.pictures) for step in steps] == [
        ("denoising", 2), ("denoising", 4), ("distilled", 2), ("distilled", 4),
    ]  # fmt: skip
    for _ in range(5):
        if not cut.exists():
            begun = tmp_path / "cut.runs"
            resume = begun if begun.exists() else None
            list(run("consistency_decoder", out=cut, max_minutes=1e-9, resume=resume, **short))
    assert read_model(cut).files == read_model(whole).files, "cut at every step, and bit for bit the same"
    ours, plain = opendalle.load(whole), opendalle.load(codec)
    assert isinstance(ours, ConsistencyCodec)
    pictures = torch.rand(2, 4, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    grid = ours.encode(pictures)
    assert torch.equal(grid, plain.encode(pictures))
    assert ours.decode(grid).shape == pictures.shape
    torch.testing.assert_close(ours.decode(grid[:1]), ours.decode(grid)[:1], atol=1e-4, rtol=1e-4)  # the same noise
    assert not torch.equal(ours.decode(grid), plain.decode(grid))


def test_a_decoder_belongs_to_the_very_codec_it_names(data: Path, codec: Path, tmp_path: Path) -> None:
    network = ConsistencyDecoder(recipe.CONSISTENCY_PRESETS["emoji"])
    part = Part(to_plain(network.config), network.state_dict())

    def write(name: str, encoder: dict[str, str]) -> Path:
        parts = {"decoder": part, "codec": Part({"siblings": {"encoder": encoder}})}
        return write_model(tmp_path / name, kind="consistency-decoder", parts=parts, card=CARD).path

    right = read_model(codec).reference
    assert isinstance(opendalle.load(write("right", right)), ConsistencyCodec)
    with pytest.raises(BadModel, match="another encoder than"):
        opendalle.load(write("other", right | {"sha256": "0" * 64}))
    with pytest.raises(BadModel, match="as the encoder of"):
        opendalle.load(write("itself", read_model(tmp_path / "right").reference))
    bare = write_model(tmp_path / "bare", kind="consistency-decoder", parts={"decoder": part}, card=CARD)
    assert isinstance(opendalle.load(bare.path), ConsistencyDecoder)


def test_a_codec_that_the_preset_does_not_fit_is_refused_before_anything_is_trained(data: Path, tmp_path: Path) -> None:
    network = KLAutoencoder(KLAutoencoderConfig(widths=(32, 32), grid_channels=3, decoder_depth=1))
    part = Part(to_plain(network.config), network.state_dict())
    write_model(tmp_path / "other", kind="codec-kl", parts={"codec": part}, card=CARD)
    with pytest.raises(BadConfig, match="grid channels"):
        list(run("consistency_decoder", data=data, out=tmp_path / "out", codec=tmp_path / "other"))
    with pytest.raises(BadConfig, match="preset 'huge'"):
        recipe.consistency_decoder(data, tmp_path / "out", codec=Path("codec"), preset="huge")
    assert json.dumps(sorted(one.name for one in tmp_path.glob("out*"))) == "[]"
