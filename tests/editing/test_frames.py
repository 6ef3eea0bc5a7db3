"""Frames cover every mask, lie inside the picture, and always have something known to fit to."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opendalle.base.errors import BadConfig, BadRequest
from opendalle.editing import Box, Extension, Frame, Framing, OutpaintingOrder, mask_frames, mask_from_box
from opendalle.pictures import MAX_PIXELS


def boxed(width: int, height: int, *box: int) -> np.ndarray:
    left, top, wide, high = box
    return mask_from_box(Box(left=left, top=top, width=wide, height=high), (width, height))


def test_a_small_mask_gets_a_frame_with_room_round_it():
    frames = mask_frames(boxed(1000, 600, 400, 300, 100, 80), 256)
    assert frames == (Frame(left=350, top=240, side=200),)


def test_a_frame_is_pushed_back_into_the_picture():
    assert mask_frames(boxed(1000, 600, 0, 500, 100, 100), 256) == (Frame(left=0, top=400, side=200),)
    assert mask_frames(boxed(300, 200, 50, 20, 150, 160), 256) == (Frame(left=25, top=0, side=200),)


def test_a_tiny_mask_is_not_enlarged_beyond_the_limit():
    (frame,) = mask_frames(boxed(1000, 1000, 500, 500, 2, 2), 256)
    assert frame == Frame(left=469, top=469, side=64)
    (frame,) = mask_frames(boxed(1000, 1000, 500, 500, 2, 2), 256, Framing(enlarge=1.0))
    assert frame.side == 256


def test_a_place_longer_than_the_picture_is_wide_takes_a_row_of_frames():
    frames = mask_frames(boxed(1000, 200, 100, 50, 850, 100), 256)
    assert {frame.side for frame in frames} == {200}
    assert {frame.top for frame in frames} == {0}
    assert frames[0].left == 75, "the first is where most is known"
    assert [frame.left for frame in frames] == sorted(frame.left for frame in frames)
    tall = mask_frames(boxed(1000, 200, 100, 50, 850, 100).T.copy(), 256)
    assert [(frame.top, frame.left) for frame in tall] == [(frame.left, frame.top) for frame in frames]


def test_gaps_between_two_places_are_left_out():
    mask = boxed(2000, 100, 10, 10, 50, 50) | boxed(2000, 100, 1900, 10, 50, 50)
    assert len(mask_frames(mask, 64)) <= 3


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_every_mask_is_covered_and_every_frame_has_work_and_context(data):
    width, height = data.draw(st.integers(8, 150)), data.draw(st.integers(8, 150))
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    mask = boxed(
        width, height, left, top, data.draw(st.integers(1, width - left)), data.draw(st.integers(1, height - top))
    )
    mask &= np.random.default_rng(0).random(mask.shape) < data.draw(st.sampled_from([0.05, 1.0]))
    if not mask.any() or mask.all():
        return
    framing = Framing(
        context=data.draw(st.sampled_from([0.0, 0.5, 8.0])),
        overlap=data.draw(st.sampled_from([0.1, 0.25, 0.5])),
        enlarge=data.draw(st.sampled_from([1.0, 8.0])),
    )
    pending = mask.copy()
    for frame in mask_frames(mask, 64, framing):
        assert_inside(frame, width, height)
        seen = pending[frame.rows, frame.columns]
        assert seen.any()
        assert not seen.all()
        pending[frame.rows, frame.columns] = False
    assert not pending.any()


def assert_inside(frame: Frame, width: int, height: int) -> None:
    assert min(frame.left, frame.top) >= 0
    assert frame.side >= 1
    assert frame.left + frame.side <= width
    assert frame.top + frame.side <= height


@settings(max_examples=80, deadline=None)
@given(
    st.tuples(st.integers(8, 90), st.integers(8, 90)),
    st.tuples(*[st.sampled_from([0, 1, 7, 40, 120])] * 4).filter(any),
    st.sampled_from([32, 64, 256]),
    st.sampled_from([0.1, 0.25, 0.5]),
)
def test_outpainting_covers_the_new_ground_and_always_has_context(size, sides, side, overlap):
    extension = Extension(left=sides[0], top=sides[1], right=sides[2], bottom=sides[3])
    width, height = extension.grown(size)
    order = OutpaintingOrder(size=size, extension=extension, side=side, framing=Framing(overlap=overlap))
    pending = np.ones((height, width), bool)
    pending[extension.top :, extension.left :][: size[1], : size[0]] = False
    number = 0
    for frame in order:
        number += 1
        assert_inside(frame, width, height)
        assert frame.side == order.frame_side <= side
        seen = pending[frame.rows, frame.columns]
        assert seen.any(), "no frame without new ground"
        assert not seen.all(), "no frame without known ground"
        pending[frame.rows, frame.columns] = False
    assert not pending.any()
    assert len(order) == number


def test_frames_are_mostly_new_ground_and_overlap_by_a_quarter():
    size, extension = (256, 256), Extension(left=512, top=512, right=512, bottom=512)
    order = OutpaintingOrder(size=size, extension=extension, side=256)
    pending = np.ones((1280, 1280), bool)
    pending[512:768, 512:768] = False
    shares = []
    for frame in order:
        shares.append(pending[frame.rows, frame.columns].mean())
        pending[frame.rows, frame.columns] = False
    assert max(shares) == 0.75
    assert np.median(shares) > 0.5
    assert [frame for frame, _ in zip(order, range(4), strict=False)] == [
        Frame(left=320, top=512, side=256),
        Frame(left=704, top=512, side=256),
        Frame(left=512, top=320, side=256),
        Frame(left=512, top=704, side=256),
    ]


def test_a_huge_order_is_walked_without_being_stored():
    order = OutpaintingOrder(size=(8, 8), extension=Extension(right=4088, bottom=4088), side=8)
    assert len(order) > 400_000
    walk = iter(order)
    assert iter(walk) is walk
    assert next(walk).side == 8


def test_a_picture_grows_up_to_the_cap_and_no_further():
    assert Extension(right=4096 - 256).grown((256, 4096)) == (4096, 4096)
    with pytest.raises(BadRequest, match=f"at most {MAX_PIXELS}"):
        Extension(right=4097 - 256).grown((256, 4096))


@pytest.mark.parametrize(
    "text", ["", "left", "left=", "left=a", "up=3", "left=1,left=2", "left=-4", "left=0", "left=²"]
)
def test_an_extension_that_is_none_is_refused(text):
    with pytest.raises(BadRequest):
        Extension.parse(text)


def test_an_extension_is_read_in_any_order():
    assert Extension.parse("top=64, left=128") == Extension(left=128, top=64)


@pytest.mark.parametrize("wrong", [{"context": -1.0}, {"enlarge": 0.5}, {"overlap": 0.0}, {"overlap": 0.9}])
def test_wrong_framing_is_refused(wrong):
    with pytest.raises(BadConfig):
        Framing(**wrong)
