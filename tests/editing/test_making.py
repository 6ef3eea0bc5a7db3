"""A plan carried out with plain functions in the networks' place: every step is where the plan says."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from opendalle.base.jobs import Row, Stopwatch, sample_of
from opendalle.base.request import Request
from opendalle.base.rng import picture_generator
from opendalle.editing import Mask, SizePlan, Sizes, extended, on_grid
from opendalle.editing.making import Making, making
from opendalle.pictures import composite, from_array, resize, to_array
from opendalle.upsampling.cascade import resizing

FACTOR = 2


def square(side: int = 16, channels: int = 4, seed: int = 0) -> Tensor:
    """A picture whose ground is not plain, opaque and exact in eight bits."""
    x = torch.randint(0, 256, (1, channels, side, side), generator=torch.Generator().manual_seed(seed)) / 127.5 - 1
    x[:, 3:] = 1
    return x.float()


def grey(picture: Image.Image, mask: Mask) -> Image.Image:
    return Image.new("RGBA", picture.size, (90, 90, 90, 255))


def plainly(x: Tensor, size: tuple[int, int]) -> Iterator[Tensor | None]:
    """Enlarge by repeating pixels, shrink by leaving some out; a step before the last has nothing to show."""
    yield None
    rows, columns = (torch.arange(new) * old // new for new, old in zip(size, x.shape[2:], strict=True))
    yield x[:, :, rows][:, :, :, columns]


def test_every_step_is_taken_as_planned() -> None:
    sizes = Sizes(squares=(8, 16), factors=(FACTOR,))
    plan, x = sizes.plan((50, 30)), square()
    assert plan.told == "drawn at 16x16, grown to 27x16, enlarged to 54x32, cut to 53x32, shrunk to 50x30"
    steps = list(making(x, plan, grey, plainly))
    assert [one.stage for one in steps] == ["growth"] * (len(steps) - 3) + ["upscaler"] * 2 + ["fitting"]
    assert [one.is_last for one in steps] == [False] * (len(steps) - 1) + [True]
    assert plan.extension is not None
    picture = from_array(x[0].numpy()).convert("RGB")  # opaque: it grows on its ground
    grown = list(extended(picture, plan.extension, grey, 16))[-1].picture
    shown = [one.picture for one in steps if one.picture is not None and one.stage == "growth"]
    assert from_array(shown[-1][0].numpy()).tobytes() == grown.tobytes()
    *_, large = plainly(shown[-1], (32, 54))
    assert large is not None
    *_, small = plainly(large[:, :, :, :53], (30, 50))
    assert small is not None
    last = steps[-1].picture
    assert last is not None
    assert torch.equal(last[:, :3], small)
    assert bool((last[:, 3] == 1).all())  # the alpha that its ground took away


def test_a_plain_square_comes_out_as_it_went_in() -> None:
    sizes, x = Sizes(squares=(16,), factors=(FACTOR,)), square()
    (step,) = making(x, sizes.plan((16, 16)), grey, resizing((), picture_generator(0)))
    assert step.is_last
    assert step.picture is not None
    assert torch.equal(step.picture, x)


@pytest.mark.parametrize("channels", [3, 4])
def test_every_size_that_is_planned_is_made_to_the_pixel(channels: int) -> None:
    sizes, x = Sizes(squares=(8, 16)), square(channels=channels)
    resize = resizing((), picture_generator(0))
    for short in (8, 9, 13, 16):
        for long in range(short, 3 * short + 1, 3):
            for size in ((long, short), (short, long)):
                plan = sizes.plan(size)
                if plan.square == 16:
                    *_, last = making(x, plan, grey, resize)
                    assert last.picture is not None
                    assert last.picture.shape == (1, channels, size[1], size[0]), size


def test_previews_are_handed_out_only_when_asked_for_and_each_picture_by_itself() -> None:
    chances = [picture_generator(seed) for seed in (1, 2)]
    taken = list[Any]()

    def resizing_with(generator: torch.Generator) -> Any:
        taken.append(generator)
        return plainly

    makes = Making((8, 16), (FACTOR,), resizing_with)
    pictures, request = torch.cat([square(seed=1), square(seed=2)]), Request.of("x", width=64, height=32, previews=0)
    plan = makes.plan(request)
    assert isinstance(plan, SizePlan)

    def made(previews: int) -> list[Any]:
        rows = [Row(Request.of("x", width=64, height=32, previews=previews), k, k) for k in range(2)]

        def finish(row: Row, values: Tensor, watch: Stopwatch, is_preview: bool) -> Any:
            told = {"verb": "generate"}
            return sample_of(row, from_array(values.numpy()), told, watch, 1, 1, is_preview=is_preview)

        return list(makes.samples(pictures, rows, plan, chances, Stopwatch(), drawing=lambda _: grey, finish=finish))

    plain, shown = made(0), made(1)
    assert [one.is_preview for one in plain] == [False, False]
    assert taken[:2] == chances
    assert [one.index for one in shown] == sorted(one.index for one in shown)
    assert [one.picture.tobytes() for one in shown if not one.is_preview] == [one.picture.tobytes() for one in plain]
    assert {one.picture.size for one in shown if one.is_preview} == {(16, 16), (32, 16)}
    assert set(plain[0].seconds) == {"growth", "upscaler", "fitting"}


@pytest.mark.parametrize("channels", [3, 4])
def test_a_frame_before_a_codec_is_small_and_knows_the_cells_that_nothing_touches(channels: int) -> None:
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (64, 64, 4), dtype=np.uint8))
    mask = np.zeros((64, 64), dtype=bool)
    mask[15:17, 40] = True
    seen = on_grid(picture, mask, side=32, channels=channels, factor=8)
    small = resize(picture, 32, 32)
    assert np.array_equal(seen.values, to_array(small if channels == 4 else composite(small))[None])
    assert np.argwhere(~seen.known).tolist() == [[0, 2], [1, 2]]  # 16 pixels of the frame a cell
