"""Sizes beyond the native ones: the same squares, grown by its own edits and enlarged by the upscaler."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Generator, Tensor

from opendalle.base.errors import BadRequest
from opendalle.base.protocols import Hooks
from opendalle.base.request import Request
from opendalle.dalle1.pipeline import Dalle1
from opendalle.editing import Extension, Sizes, extended
from opendalle.pictures import composite, from_array, to_array
from opendalle.upsampling.cascade import enlarged, reduce_to

CLEAR = {"background": "transparent"}


def sized(width: int, height: int | None = None) -> dict[str, Any]:
    return {"width": width, "height": height or width}


def pixels(sample: Any) -> np.ndarray:
    return np.asarray(sample.picture, dtype=int)


@pytest.fixture
def squares(tall: Dalle1, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Sequence[Generator]]]:
    """Every square as it leaves the upsampler, and the rest of its chance: copies, since drawing goes on with it."""
    kept, upsample = list[tuple[Tensor, Sequence[Generator]]](), tall.words.upsample

    def watched(small: Tensor, side: int, generators: Sequence[Generator]) -> Tensor:
        drawn = upsample(small, side, generators)
        copies = [Generator().set_state(one.get_state()) for one in generators]
        kept.append((drawn.clone(), copies))
        return drawn

    monkeypatch.setattr(tall.words, "upsample", watched)
    return kept


@pytest.mark.parametrize("size", [(128, 128), (48, 48), (64, 112), (200, 120), (32, 90)], ids=str)
def test_a_size_is_drawn_to_the_pixel_and_the_recipe_tells_how(tall: Dalle1, size: tuple[int, int]) -> None:
    drawn = {
        background: next(tall.generate("a red apple", **sized(*size), background=background, seed=4))
        for background in ("transparent", "white")
    }
    assert {name: (one.picture.size, one.picture.mode) for name, one in drawn.items()} == {
        "transparent": (size, "RGBA"),
        "white": (size, "RGB"),
    }
    assert composite(drawn["transparent"].picture).tobytes() == drawn["white"].picture.tobytes()
    assert drawn["white"].recipe["made"] == Sizes(squares=(32, 64), factors=(2,)).plan(size).told


def test_a_native_size_is_drawn_as_it_ever_was(tall: Dalle1, dalle: Dalle1) -> None:
    for side in (32, 64):
        one, other = (next(which.generate("a red apple", seed=4, **sized(side))) for which in (tall, dalle))
        assert one.picture.tobytes() == other.picture.tobytes()
        assert "made" not in one.recipe
    assert tall.sizes == dalle.sizes == (32, 64)


def test_a_large_picture_is_the_small_one_enlarged_and_shrunk(tall: Dalle1, squares: list) -> None:
    for side in (128, 100, 48):
        (drawn,) = tall.generate("a red apple", seed=4, candidates=2, **sized(side), **CLEAR)
        whole, generators = squares[-1]
        assert whole.shape[-1] == 64
        if side > 64:
            whole = enlarged(whole, (128, 128), tall.words.stages[1:], generators)
        assert from_array(reduce_to(whole, (side, side))[0].numpy()).tobytes() == drawn.picture.tobytes()


def test_new_ground_is_drawn_by_its_own_edits_and_the_square_stays_as_it_is(tall: Dalle1, squares: list) -> None:
    asked = {"seed": 4, "candidates": 2, **sized(112, 64), **CLEAR}
    (grown,) = tall.generate("a red apple", **asked)
    square, (generator,) = squares[0]
    picture = from_array(square[0].numpy())
    (plain,) = tall.generate("a red apple", **{**asked, **sized(64)})
    assert picture.tobytes() == plain.picture.tobytes()
    assert np.array_equal(pixels(grown)[:, 24:88], pixels(plain))
    draw = tall._edits.drawing(Request.of("a red apple", **asked), generator)
    *_, last = extended(picture, Extension(left=24, right=24), draw, 64)
    assert last.picture.tobytes() == grown.picture.tobytes()
    _, (generator,) = squares[len(squares) - 1]  # of the last frame by hand: where the upscaler would begin
    large = enlarged(torch.from_numpy(to_array(last.picture))[None], (128, 224), tall.words.stages[1:], [generator])
    (wide,) = tall.generate("a red apple", **{**asked, **sized(224, 128)})
    assert from_array(large[0].numpy()).tobytes() == wide.picture.tobytes()


def test_pictures_of_a_batch_go_on_one_by_one_each_with_its_own_caption(tall: Dalle1) -> None:
    prompts, seeds, seen = ["a red apple", "红苹果"], [5, 6], list[Any]()
    asked = {**sized(80, 64), **CLEAR, "candidates": 1}
    many = list(tall.generate_many(prompts, seeds, **asked, exact=True))
    together = list(tall.generate_many(prompts, seeds, **asked))
    for prompt, seed, sample, beside in zip(prompts, seeds, many, together, strict=True):
        (alone,) = tall.generate(prompt, seed=seed, **asked, hooks=Hooks(guards=(seen.append,)))
        assert sample.picture.tobytes() == alone.picture.tobytes()
        assert (np.abs(pixels(beside) - pixels(alone)) > 1).mean() <= 0.001
    assert [one.seed for one in seen] == seeds
    assert list(tall.generate_many([], [], **sized(128))) == []


def test_previews_show_the_way_and_change_nothing(tall: Dalle1) -> None:
    (plain,) = tall.generate("a red apple", seed=4, **sized(224, 128))
    *shown, last = tall.generate("a red apple", seed=4, previews=2, **sized(224, 128))
    assert all(one.is_preview for one in shown)
    assert not last.is_preview
    assert last.picture.tobytes() == plain.picture.tobytes()
    assert [one.picture.size for one in shown][:4] == [(32, 32), (32, 32), (64, 64), (64, 64)]
    assert {one.picture.size for one in shown[4:]} == {(112, 64)}
    stages = {"text", "transformer", "rank", "codec", "upsampler", "growth", "upscaler", "fitting"}
    assert set(last.seconds) == stages


def test_a_variation_has_square_sizes_and_keeps_its_shape(tall: Dalle1) -> None:
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    assert [next(tall.vary(picture, **sized(side))).picture.size for side in (128, 100)] == [(128, 85), (100, 67)]
    with pytest.raises(BadRequest, match="a square of side 32, 64, or of any from 32 to 128"):
        tall.vary(picture, **sized(112, 64))


@pytest.mark.parametrize("size", [(129, 129), (31, 31), (64, 193)], ids=str)
def test_what_cannot_be_made_is_refused_at_once_with_what_can(
    tall: Dalle1, dalle: Dalle1, size: tuple[int, int]
) -> None:
    for which, factors in ((tall, (2,)), (dalle, ())):
        with pytest.raises(BadRequest) as refused:
            which.generate("a red apple", **sized(*size))  # nothing is iterated
        assert refused.value.wanted == Sizes(squares=(32, 64), factors=factors).told


def test_a_codec_of_large_pictures_needs_no_upsampler_before_the_upscaler(tall: Dalle1) -> None:
    parts = replace(tall.parts, upsampler=None)
    bare = Dalle1(parts, replace(tall.config, upsampler=None))
    assert bare.sizes == (32,)
    assert [one.base for one in bare.words.stages] == [32]
    (sample,) = bare.generate("a red apple", seed=4, **sized(64))
    assert sample.recipe["made"] == "drawn at 32x32, enlarged to 64x64"


def test_upscale_goes_through_both(tall: Dalle1, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = list[str]()
    for name in ("upsampler", "upscaler"):
        network = getattr(tall.parts, name)

        def counted(*given: Any, name: str = name, forward: Any = network.forward, **named: Any) -> Any:
            calls.append(name)
            return forward(*given, **named)

        monkeypatch.setattr(network, "forward", counted)
    (large,) = tall.upscale(Image.new("RGBA", (32, 16)), scale=4)
    assert large.picture.size == (128, 64)
    assert calls == ["upsampler", "upsampler", "upscaler"]  # as many steps as the settings say
