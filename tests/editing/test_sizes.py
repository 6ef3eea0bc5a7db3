"""Every size is made as planned or refused with what can be had; the plan's shapes lead exactly to the size."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from opendalle.base.errors import BadConfig, BadRequest
from opendalle.editing import Extension, Sizes

WHOLE = Sizes(squares=(64, 256), factors=(4,))


@pytest.mark.parametrize(
    ("size", "told"),
    [
        ((64, 64), "drawn at 64x64"),
        ((256, 256), "drawn at 256x256"),
        ((512, 512), "drawn at 256x256, enlarged to 1024x1024, shrunk to 512x512"),
        ((1024, 1024), "drawn at 256x256, enlarged to 1024x1024"),
        ((1792, 1024), "drawn at 256x256, grown to 448x256, enlarged to 1792x1024"),
        ((1024, 1792), "drawn at 256x256, grown to 256x448, enlarged to 1024x1792"),
        ((448, 256), "drawn at 256x256, grown to 448x256"),
        ((100, 100), "drawn at 256x256, shrunk to 100x100"),
        ((64, 128), "drawn at 256x256, grown to 256x512, shrunk to 64x128"),
        (
            (1000, 600),
            "drawn at 256x256, grown to 427x256, enlarged to 1708x1024, cut to 1707x1024, shrunk to 1000x600",
        ),
    ],
)
def test_sizes_that_clients_ask_for(size, told):
    assert WHOLE.plan(size).told == told


def test_ground_is_added_evenly_on_two_sides():
    assert WHOLE.plan((1792, 1024)).extension == Extension(left=96, right=96)
    assert WHOLE.plan((256, 259)).extension == Extension(top=1, bottom=2)


@given(st.data(), st.booleans(), st.sampled_from([(), (4,), (2, 3)]))
def test_the_steps_of_a_plan_lead_to_the_size(data, is_wide, factors):
    sizes = Sizes(squares=(64, 256), factors=factors)
    short = data.draw(st.integers(64, sizes.largest), "shorter side")
    long = data.draw(st.integers(short, 3 * short), "longer side")
    width, height = (long, short) if is_wide else (short, long)
    plan = sizes.plan((width, height))
    assert plan.size == (width, height)
    assert min(plan.base) == plan.square
    assert plan.square == 256 or plan.base == plan.size == (64, 64)
    assert plan.factor in {1, *factors, math.prod(factors)}
    if plan.factor > 1:
        reached = [256 * math.prod(factors[:count]) for count in range(len(factors) + 1)]
        assert min(side for side in reached if side >= short) == 256 * plan.factor  # no more than is needed
    for large, cut, asked in zip(plan.large, plan.cut, plan.size, strict=True):
        assert large >= cut >= asked, "pixels are left out or averaged, never invented by the last step"
    left, top = plan.corner
    assert left + plan.cut[0] <= plan.large[0] and top + plan.cut[1] <= plan.large[1]  # noqa: PT018
    assert max(plan.large) - max(plan.cut) <= plan.factor  # cut away is less than a pixel of the base
    assert abs(max(plan.cut) - min(plan.cut) * long / short) <= 0.5 + 1e-6  # the shape asked for


@given(st.integers(1, 4096), st.integers(1, 4096))
def test_all_else_is_refused_with_what_can_be_had(width, height):
    short, long = sorted((width, height))
    assume(not (64 <= short <= 1024 and long <= 3 * short))
    with pytest.raises(
        BadRequest, match=r"side 64, 256, or WIDTHxHEIGHT .* 64 to 1024 .* as 512x512, 1024x1024, 1792x"
    ):
        WHOLE.plan((width, height))


def test_without_an_upsampler_or_without_growth_less_can_be_had():
    alone = Sizes(squares=(64, 256))
    assert alone.plan((448, 256)).told == "drawn at 256x256, grown to 448x256"
    with pytest.raises(BadRequest, match=r"size 512x512; wanted .* 64 to 256 and a longer of at most 3 times that$"):
        alone.plan((512, 512))
    square = Sizes(squares=(64, 256), factors=(4,), can_grow=False)
    assert square.plan((512, 512)) == WHOLE.plan((512, 512))
    with pytest.raises(BadRequest, match=r"a square of side 64, 256, or of any from 64 to 1024, as 512x512, 1024x1024"):
        square.plan((1792, 1024))


@pytest.mark.parametrize("wrong", [{"squares": ()}, {"squares": (256, 64)}, {"squares": (64,), "factors": (1,)}])
def test_what_draws_nothing_is_refused(wrong):
    with pytest.raises(BadConfig):
        Sizes(**wrong)


LONGER = Sizes(squares=(64, 256), factors=(4,), longer=((112, 64), (448, 256), (256, 448)))


@pytest.mark.parametrize(
    ("size", "told"),
    [
        ((448, 256), "drawn at 448x256"),
        ((112, 64), "drawn at 112x64"),
        ((64, 112), "drawn at 256x448, shrunk to 64x112"),
        ((1792, 1024), "drawn at 448x256, enlarged to 1792x1024"),
        ((1024, 1792), "drawn at 256x448, enlarged to 1024x1792"),
        ((1024, 1024), "drawn at 256x256, enlarged to 1024x1024"),
        ((440, 256), "drawn at 448x256, cut to 440x256"),
        ((512, 256), "drawn at 448x256, grown to 512x256"),
        ((384, 256), "drawn at 256x256, grown to 384x256"),
        ((256, 500), "drawn at 256x448, grown to 256x500"),
    ],
)
def test_longer_pictures_that_are_drawn_as_such_are_where_others_begin(size, told):
    assert LONGER.plan(size).told == told


@given(st.integers(64, 1024), st.floats(1.0, 3.0), st.booleans())
def test_the_steps_of_a_plan_that_begins_longer_lead_to_the_size(short, ratio, is_wide):
    long = min(round(short * ratio), 3 * short)
    size = (long, short) if is_wide else (short, long)
    plan = LONGER.plan(size)
    assert plan.size == size
    for large, cut, asked in zip(plan.large, plan.cut, plan.size, strict=True):
        assert large >= cut >= asked
    assert max(plan.cut) >= max(plan.large) / 1.06 - plan.factor  # little is drawn to be cut away
    assert abs(max(plan.cut) - min(plan.cut) * long / short) <= 0.5 + 1e-6


def test_what_may_not_grow_is_a_square_or_of_the_very_shape():
    fixed = Sizes(squares=(64, 256), factors=(4,), longer=LONGER.longer, can_grow=False)
    for size in ((448, 256), (112, 64), (1792, 1024), (224, 128), (300, 300)):
        assert fixed.plan(size) == LONGER.plan(size)
    for size in ((440, 256), (384, 256), (64, 113), (2016, 1152)):
        with pytest.raises(BadRequest, match="of the shape of 112x64, 448x256, 256x448, too"):
            fixed.plan(size)
    with pytest.raises(BadConfig, match="longer pictures"):
        Sizes(squares=(64,), longer=((112, 63),))
