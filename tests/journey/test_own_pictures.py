"""The journey of someone with a folder of pictures: train all of DALL·E 2 on it, load it, draw, go on training."""

import shutil
from collections.abc import Generator
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from opendalle import recipes
from opendalle.base.errors import BadData, BadRequest
from opendalle.base.records import TrainStep
from opendalle.checkpoint.folder import read_model, verify_model
from opendalle.pretrained import load
from opendalle.pretrained.kinds import load_tokenizer

COLOURS = {"red": (220, 30, 30), "blue": (30, 60, 220)}
LENGTHS = {
    "pairs": 16,
    "clip_pictures": 128,
    "codec_pictures": 32,
    "upsampler_pictures": 8,
    "guess_pictures": 512,
    "prior_pictures": 64,
    "sketch_pictures": 512,
    "decoder_pictures": 64,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures with captions."""
    root = tmp_path_factory.mktemp("pictures")
    for colour, value in COLOURS.items():
        for shape in ("circle", "square"):
            picture = Image.new("RGBA", (256, 256), (0, 0, 0, 0))
            pencil = ImageDraw.Draw(picture)
            (pencil.ellipse if shape == "circle" else pencil.rectangle)((48, 48, 208, 208), fill=value)
            picture.save(root / f"{colour}-{shape}.png")
            (root / f"{colour}-{shape}.txt").write_text(f"a {colour} {shape}\n{shape}, {colour}\n", encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[TrainStep]]:
    """A DALL·E 2 that has seen next to nothing, with every stage's steps."""
    out = tmp_path_factory.mktemp("models") / "mine"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("opendalle.recipes.clip.taught_sentences", lambda source, seed: None)  # the teacher is optional
        steps = list(recipes.run("dalle2", data=folder, out=out, show_every=32, **LENGTHS))
    return out, steps


def test_every_stage_ran_in_order_and_left_a_whole_model(trained: tuple[Path, list[TrainStep]]) -> None:
    out, steps = trained
    assert list(dict.fromkeys(step.stage for step in steps)) == [
        "clip",
        "codec",
        "upsampler",
        "guess",
        "prior",
        "sketch",
        "decoder",
    ]
    for name in ("mine", "mine-clip", "mine-codec", "mine-upsampler", "mine-guess", "mine-prior", "mine-sketch"):
        assert verify_model(out.parent / name).card["licence"]


def test_sheets_of_samples_show_how_far_each_stage_has_come(trained: tuple[Path, list[TrainStep]]) -> None:
    runs = trained[0].parent
    sheets = {"mine.runs/codec": [32], "mine.runs/upsampler": [8], "mine.runs/decoder": [32, 64], "mine.runs/clip": []}
    for run, pictures in sheets.items():
        assert [sheet.name for sheet in sorted((runs / run).glob("samples/*"))] == [f"{n:09d}.png" for n in pictures]
    with Image.open(runs / "mine.runs/codec/samples/000000032.png") as sheet:
        assert sheet.width >= 8 * 64
        assert sheet.height >= 2 * 64  # each picture above its reconstruction


def test_the_model_draws_and_every_picture_tells_how(trained: tuple[Path, list[TrainStep]]) -> None:
    out, _ = trained
    (sample,) = load(out).generate("a red circle", steps=2, prior_steps=2)
    assert sample.picture.size == (256, 256)
    assert sample.recipe["sha256"] == read_model(out).sha256
    assert sample.recipe["request"]["prompt"] == "a red circle"
    assert set(sample.seconds) == {"text", "prior", "decoder", "codec", "upsampler"}


def test_the_prior_brings_what_analytic_sampling_needs(trained: tuple[Path, list[TrainStep]]) -> None:
    from dataclasses import replace

    from opendalle.dalle2.pipeline import Dalle2

    dalle = load(trained[0])
    power = dalle.config.prior.noise_power
    assert len(power) == 1000
    assert min(power) > 0
    assert power[-1] == pytest.approx(1, abs=0.05)  # where all is noise, any guess of the clean embedding finds it
    analytic = replace(dalle.config.prior, sampler="ddpm", variance="analytic")
    paper = Dalle2(dalle.parts, replace(dalle.config, prior=analytic))
    knobs = {"steps": 1, "prior_steps": 8, "width": 64, "height": 64}
    one, other = (next(iter(model.generate("a red circle", **knobs))).picture for model in (dalle, paper))
    assert one.tobytes() != other.tobytes()


def test_a_picture_does_not_depend_on_its_company(trained: tuple[Path, list[TrainStep]]) -> None:
    dalle = load(trained[0])
    knobs = {"steps": 2, "prior_steps": 2, "width": 64, "height": 64, "background": "transparent"}
    together = list(dalle.generate("a red circle", count=3, seed=5, **knobs))
    (alone,) = dalle.generate("a red circle", seed=7, **knobs)
    import numpy as np

    far = np.abs(np.asarray(together[2].picture, dtype=int) - np.asarray(alone.picture, dtype=int)) > 1
    assert far.mean() <= 0.001
    exact = list(dalle.generate("a red circle", count=3, seed=5, exact=True, **knobs))[2]
    assert exact.picture.tobytes() == alone.picture.tobytes()


def test_previews_come_only_when_asked_and_cancelling_is_not_iterating(trained: tuple[Path, list[TrainStep]]) -> None:
    dalle = load(trained[0])
    knobs = {"steps": 5, "prior_steps": 2, "width": 64, "height": 64}
    seen = [sample.is_preview for sample in dalle.generate("a circle", previews=2, **knobs)]
    assert seen == [True, True, False]
    calls = 0
    inner = dalle.parts.decoder.forward

    def counted(*args: object, **kwargs: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return inner(*args, **kwargs)

    dalle.parts.decoder.forward = counted
    samples: Generator = dalle.generate("a circle", previews=4, **knobs)
    assert next(samples).is_preview
    samples.close()
    assert 0 < calls < 5


def test_warm_start_takes_the_siblings_along(
    trained: tuple[Path, list[TrainStep]], folder: Path, tmp_path: Path
) -> None:
    first, _ = trained
    again = tmp_path / "again"
    steps = list(recipes.run("dalle2", data=folder, out=again, warm_start=first, **LENGTHS))
    assert list(dict.fromkeys(step.stage for step in steps)) == ["guess", "prior", "sketch", "decoder"]
    named = read_model(again).part("pipeline").config["siblings"]
    assert named == read_model(first).part("pipeline").config["siblings"]


def test_a_resume_remembers_the_siblings_and_other_draws_are_not_trained_on_old_pairs(
    trained: tuple[Path, list[TrainStep]], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, asked = tmp_path / "m.runs", {"data": folder, "out": tmp_path / "m", **LENGTHS, "guess_pictures": 1024}
    assert len(list(recipes.run("dalle2", warm_start=trained[0], max_minutes=1e-6, **asked))) == 1
    with pytest.raises(BadRequest, match=r"seed 3 \(begun with 2\)"):
        next(recipes.run("dalle2", resume=runs, seed=3, **asked))
    steps = recipes.run("dalle2", resume=runs, **asked)
    assert next(steps).stage == "guess"
    steps.close()  # type: ignore[attr-defined]
    assert sorted(path.name for path in runs.iterdir()) == ["guess", "pairs"]
    shutil.rmtree(runs / "guess")
    shutil.rmtree(tmp_path / "m-guess", ignore_errors=True)
    with pytest.raises(BadData, match="made with seed 2; wanted seed 3"):
        next(recipes.run("dalle2", warm_start=trained[0], seed=3, **asked))
    assert capsys.readouterr().out == ""


def test_a_clip_keeps_its_tokenizer_on_a_warm_start(
    trained: tuple[Path, list[TrainStep]], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opendalle.recipes.clip.taught_sentences", lambda source, seed: None)
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(folder / "red-circle.png", other / "a.png")
    (other / "a.txt").write_text("something else altogether")
    old, new = trained[0].parent / "mine-clip", tmp_path / "clip"
    list(recipes.run("clip", data=other, out=new, warm_start=old, pictures=4, batch_size=4))
    one, two = (load_tokenizer(read_model(path)).to_json() for path in (old, new))
    assert one == two


def test_a_run_cut_short_goes_on_to_the_same_weights(folder: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    list(recipes.run("codec", data=folder, out=whole, pictures=24, batch_size=4))
    cut = tmp_path / "cut"
    runs = tmp_path / "cut.runs"
    first = recipes.run("codec", data=folder, out=cut, pictures=24, batch_size=4, max_minutes=1e-6)
    assert len(list(first)) < 6
    assert not cut.exists()
    list(recipes.run("codec", data=folder, out=cut, pictures=24, batch_size=4, resume=runs))
    one, other = (read_model(path).part("codec").state() for path in (whole, cut))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_second_run_in_the_same_place_is_refused_until_resumed(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "codec"
    list(recipes.run("codec", data=folder, out=out, pictures=24, batch_size=4, max_minutes=1e-6))
    with pytest.raises(BadRequest, match="--resume"):
        next(recipes.run("codec", data=folder, out=out, pictures=24, batch_size=4))


def test_unknown_recipes_and_unfit_data_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="dalle9"):
        next(recipes.run("dalle9", data=folder, out=tmp_path / "x"))
    with pytest.raises(BadData, match="emoji world"):
        next(recipes.run("judge", data=folder, out=tmp_path / "x"))
