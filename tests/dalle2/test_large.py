"""Sizes beyond the native ones: the same squares, grown and enlarged, whatever was asked besides."""

import functools
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from opendalle.base.errors import BadRequest
from opendalle.base.protocols import Hooks
from opendalle.dalle2.pipeline import Dalle2
from opendalle.pictures import composite, from_array, to_array
from opendalle.upsampling.cascade import enlarged, reduce_to

CLEAR = {"background": "transparent"}


def sized(width: int, height: int | None = None) -> dict[str, Any]:
    return {"width": width, "height": height or width}


def pixels(sample: Any) -> np.ndarray:
    return np.asarray(sample.picture, dtype=int)


def watched(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[tuple[Any, tuple[Any, ...]]]:
    """Keep what a method returns, and what it was called with."""
    kept, method = list[tuple[Any, tuple[Any, ...]]](), getattr(owner, name)

    @functools.wraps(method)
    def call(*args: Any, **named: Any) -> Any:
        kept.append((method(*args, **named), args))
        return kept[-1][0]

    monkeypatch.setattr(owner, name, call)
    return kept


def painted(dalle: Dalle2, monkeypatch: pytest.MonkeyPatch, colour: tuple[float, ...] | None = None) -> None:
    """Let every square come out opaque, and in one colour if one is given."""
    upsample = dalle.cascade.upsample

    def paint(small: Tensor, generators: list) -> Tensor:
        drawn = upsample(small, generators).clone()
        drawn[:, 3] = 1
        if colour is not None:
            drawn[:, :3] = torch.tensor(colour)[:, None, None]
        return drawn

    monkeypatch.setattr(dalle.cascade, "upsample", paint)


SIZES = [(128, 128), (100, 100), (32, 32), (64, 112), (224, 128), (101, 67), (16, 40)]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_size_is_drawn_to_the_pixel_and_the_same_again(tall: Dalle2, size: tuple[int, int]) -> None:
    drawn = {
        background: next(tall.generate("a red apple", **sized(*size), background=background, seed=4))
        for background in ("transparent", "white")
    }
    assert {name: (one.picture.size, one.picture.mode) for name, one in drawn.items()} == {
        "transparent": (size, "RGBA"),
        "white": (size, "RGB"),
    }
    assert composite(drawn["transparent"].picture).tobytes() == drawn["white"].picture.tobytes()
    told = drawn["white"].recipe["made"]
    assert told.startswith("drawn at 64x64, ")
    assert told.endswith("x".join(map(str, size)))


def test_a_native_size_is_drawn_as_it_ever_was(tall: Dalle2, dalle: Dalle2) -> None:
    for side in (16, 64):
        one, other = (next(which.generate("a red apple", seed=4, **sized(side))) for which in (tall, dalle))
        assert one.picture.tobytes() == other.picture.tobytes()
        assert "made" not in one.recipe
    assert tall.sizes == dalle.sizes == (16, 64)


def test_a_large_picture_is_the_small_one_enlarged(tall: Dalle2, monkeypatch: pytest.MonkeyPatch) -> None:
    squares = watched(monkeypatch, tall.cascade, "upsample")
    (large,) = tall.generate("a red apple", seed=4, **sized(128), **CLEAR)
    square = squares[-1][0]
    (small,) = tall.generate("a red apple", seed=4, **sized(64), **CLEAR)
    assert from_array(square[0].numpy()).tobytes() == small.picture.tobytes()
    again, (_, generators) = squares[-1]  # its generator stands where the upscaler begins
    by_hand = enlarged(again, (128, 128), tall.cascade.stages[1:], generators)[0]
    assert from_array(by_hand.numpy()).tobytes() == large.picture.tobytes()


def test_a_size_between_is_the_next_one_shrunk(tall: Dalle2, monkeypatch: pytest.MonkeyPatch) -> None:
    squares = watched(monkeypatch, tall.cascade, "upsample")
    for side in (32, 100):
        (drawn,) = tall.generate("a red apple", seed=4, **sized(side), **CLEAR)
        assert squares[-1][0].shape[-1] == 64
        next(tall.generate("a red apple", seed=4, **sized(64), **CLEAR))
        whole, (_, generators) = squares[-1]
        if side > 64:
            whole = enlarged(whole, (128, 128), tall.cascade.stages[1:], generators)
        assert from_array(reduce_to(whole, (side, side))[0].numpy()).tobytes() == drawn.picture.tobytes()


@pytest.mark.parametrize("ground", ["drawn", "plain"])
@pytest.mark.parametrize("size", [(112, 64), (64, 150)], ids=str)
def test_the_middle_of_a_grown_picture_is_the_plain_one_to_the_byte(
    tall: Dalle2, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], ground: str
) -> None:
    if ground == "plain":
        painted(tall, monkeypatch, (0.5, -0.5, 0.0))
    (plain,) = tall.generate("a red apple", seed=4, **sized(64), **CLEAR)
    (grown,) = tall.generate("a red apple", seed=4, **sized(*size), **CLEAR)
    left, top = ((one - 64) // 2 for one in size)
    assert np.array_equal(pixels(grown)[top : top + 64, left : left + 64], pixels(plain))
    outside = np.ones(size[::-1], bool)
    outside[top : top + 64, left : left + 64] = False
    assert (len(np.unique(pixels(grown)[outside], axis=0)) == 1) == (ground == "plain")


def test_a_wide_picture_is_the_grown_one_enlarged(tall: Dalle2, monkeypatch: pytest.MonkeyPatch) -> None:
    squares = watched(monkeypatch, tall.cascade, "upsample")
    (grown,) = tall.generate("a red apple", seed=4, **sized(112, 64), **CLEAR)
    _, (_, generators) = squares[-1]  # of the last frame: where the upscaler would begin
    values = torch.from_numpy(to_array(grown.picture))[None]
    by_hand = enlarged(values, (128, 224), tall.cascade.stages[1:], generators)[0]
    (wide,) = tall.generate("a red apple", seed=4, **sized(224, 128), **CLEAR)
    assert from_array(by_hand.numpy()).tobytes() == wide.picture.tobytes()


def test_on_painted_ground_what_is_drawn_has_ground_behind_it(tall: Dalle2, monkeypatch: pytest.MonkeyPatch) -> None:
    painted(tall, monkeypatch)
    for size in ((112, 64), (224, 128)):
        (wide,) = tall.generate("a red apple", seed=4, **sized(*size), **CLEAR)
        assert (wide.picture.size, wide.picture.mode) == (size, "RGBA")
        assert pixels(wide)[..., 3].min() == 255


def test_pictures_of_a_batch_go_on_one_by_one(tall: Dalle2, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {**sized(224, 128), **CLEAR, "exact": True}
    together = list(tall.generate("a red apple", count=2, seed=4, **asked))
    assert [(one.index, one.seed) for one in together] == [(0, 4), (1, 5)]
    (alone,) = tall.generate("a red apple", seed=5, **asked)
    assert alone.picture.tobytes() == together[1].picture.tobytes()
    batch = list(tall.generate("a red apple", count=3, seed=4, **sized(128), **CLEAR))
    (last,) = tall.generate("a red apple", seed=6, **sized(128), **CLEAR)
    assert (np.abs(pixels(last) - pixels(batch[2])) > 1).mean() <= 0.001
    assert tall.parts.upscaler is not None
    calls = watched(monkeypatch, tall.parts.upscaler, "forward")
    guarded = list[Any]()
    samples = tall.generate("a red apple", count=3, hooks=Hooks(guards=(guarded.append,)), **sized(128))
    next(samples)
    samples.close()  # type: ignore[attr-defined]
    assert (len(calls), len(guarded)) == (2, 1)  # two steps of one picture: to stop iterating is to cancel


def test_many_prompts_at_once_are_each_prompt_alone(tall: Dalle2) -> None:
    prompts, seeds = ["a red apple", "红苹果"], [5, 6]
    many = list(tall.generate_many(prompts, seeds, **sized(224, 128), **CLEAR, exact=True))
    for prompt, seed, sample in zip(prompts, seeds, many, strict=True):
        (alone,) = tall.generate(prompt, seed=seed, **sized(224, 128), **CLEAR)
        assert sample.picture.tobytes() == alone.picture.tobytes()
    assert list(tall.generate_many([], [], **sized(128))) == []


def test_previews_show_the_way_and_change_nothing(tall: Dalle2) -> None:
    (plain,) = tall.generate("a red apple", seed=4, **sized(224, 128))
    *shown, last = tall.generate("a red apple", seed=4, previews=2, **sized(224, 128))
    assert all(one.is_preview for one in shown)
    assert not last.is_preview
    assert last.picture.tobytes() == plain.picture.tobytes()
    assert [one.picture.size for one in shown][:4] == [(16, 16), (16, 16), (64, 64), (64, 64)]
    assert {one.picture.size for one in shown[4:]} == {(112, 64)}
    assert set(last.seconds) == {"text", "prior", "decoder", "codec", "upsampler", "growth", "upscaler", "fitting"}
    *shown, _ = tall.generate("a red apple", seed=4, previews=1, **sized(128))
    assert [one.picture.size for one in shown] == [(16, 16), (64, 64)]


def test_changing_verbs_have_square_sizes(tall: Dalle2) -> None:
    rng = np.random.default_rng(1)
    picture, other = (Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)) for _ in range(2))
    (varied,) = tall.vary(picture, **sized(128))
    assert varied.picture.size == (128, 85)  # it keeps its shape
    (small,) = tall.vary(picture, **sized(100))
    assert small.picture.size == (100, 67)
    assert [one.picture.size for one in tall.blend(picture, other, frames=2, **sized(128))] == [(128, 128)] * 2
    assert [one.picture.size for one in tall.morph(picture, "a car", frames=2, **sized(128))] == [(128, 85)] * 2
    with pytest.raises(BadRequest, match="a square of side 16, 64, or of any from 16 to 128"):
        tall.vary(picture, **sized(112, 64))


@pytest.mark.parametrize("size", [(129, 129), (15, 15), (64, 193), (128, 1024)], ids=str)
def test_what_cannot_be_made_is_refused_at_once(tall: Dalle2, dalle: Dalle2, size: tuple[int, int]) -> None:
    with pytest.raises(BadRequest, match="16 to 128 and a longer of at most 3 times that"):
        tall.generate("a red apple", **sized(*size))  # nothing is iterated
    with pytest.raises(BadRequest, match="16 to 64 and a longer of at most 3 times that"):
        dalle.generate("a red apple", **sized(*size))


def test_a_model_without_upscaler_grows_and_shrinks_but_enlarges_nothing(dalle: Dalle2) -> None:
    for size in ((112, 64), (50, 50)):
        assert next(dalle.generate("a red apple", **sized(*size))).picture.size == size
    with pytest.raises(BadRequest, match=r"size 128x128; wanted a square of side 16, 64, or .* 16 to 64"):
        dalle.generate("a red apple", **sized(128))


def test_upscale_begins_with_the_stage_that_fits_the_picture(tall: Dalle2, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [stage.base for stage in tall.cascade.stages] == [16, 64]
    assert tall.parts.upsampler is not None
    assert tall.parts.upscaler is not None
    first, second = (watched(monkeypatch, one, "forward") for one in (tall.parts.upsampler, tall.parts.upscaler))
    for side, scale, wanted in ((16, 4, (2, 0)), (16, 8, (2, 2)), (60, 2, (0, 2)), (70, 2, (0, 2)), (64, 4, (0, 4))):
        first.clear()
        second.clear()
        (large,) = tall.upscale(Image.new("RGBA", (side, side // 2)), scale=scale)
        assert large.picture.size == (side * scale, side // 2 * scale)
        assert (len(first), len(second)) == wanted


@pytest.mark.parametrize("arguments", [("--size", "224x128"), ("--size", "128", "--count", "3"), ("--size", "50")])
def test_again_makes_the_same_bytes(
    tall: Dalle2, tmp_path, monkeypatch: pytest.MonkeyPatch, capsys, arguments: tuple[str, ...]
) -> None:
    from opendalle import pretrained
    from opendalle.cli.app import run

    monkeypatch.setattr(pretrained, "load_pipeline", lambda _: tall)
    monkeypatch.chdir(tmp_path)
    assert run(("generate", "a red apple", "--seed", "7", *arguments)) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert run(("generate", "--again", last, "--out", "again.png")) == 0
    assert capsys.readouterr().err == ""  # no word of other pixels
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / last).read_bytes()


def test_the_frames_that_are_watched_are_of_one_size(tall: Dalle2, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    from opendalle import pretrained
    from opendalle.cli.app import run

    monkeypatch.setattr(pretrained, "load_pipeline", lambda _: tall)
    monkeypatch.chdir(tmp_path)
    line = ("generate", "a red apple", "--size", "224x128", "--previews", "1", "--watch", "w.gif", "--out", "x.png")
    assert run(line) == 0
    with Image.open(tmp_path / "w.gif") as gif, Image.open(tmp_path / "x.png") as picture:
        assert gif.size == (224, 128)
        first = np.asarray(gif.convert("RGB"))
        assert (first[:, :48] == 255).all()  # a square in the middle
        assert (first[:, 48:176] != 255).any()
        gif.seek(getattr(gif, "n_frames", 1) - 1)
        assert np.abs(np.asarray(gif.convert("RGB"), int) - np.asarray(picture.convert("RGB"), int)).mean() < 12
