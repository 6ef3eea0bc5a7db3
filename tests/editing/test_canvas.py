"""What comes back: untouched bytes outside, no seam between, clean edges on transparent pictures."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from opendalle.base.errors import BadPicture, BadRequest
from opendalle.editing import Box, Canvas, Extension, Frame, edited, extended, mask_frames, mask_from_box
from opendalle.pictures import composite

BACKGROUNDS = ((255, 255, 255), (0, 0, 0), (40, 160, 220))


def landscape(width: int = 160, height: int = 120, seed: int = 0) -> Image.Image:
    """A picture as nature makes them: smooth light, and detail whose power falls with its frequency."""
    rng = np.random.default_rng(seed)
    y, x = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    falling = np.maximum(np.hypot(y, x), 1 / max(width, height)) ** -1.7
    layers = []
    for _ in range(3):
        noise = np.fft.rfft2(rng.normal(size=(height, width))) * falling
        layer = np.fft.irfft2(noise, (height, width))
        layers.append(128 + 40 * layer / layer.std())
    return Image.fromarray(np.stack(layers, -1).clip(0, 255).astype(np.uint8))


def blob(width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    wave = 0.27 + 0.06 * np.sin(7 * np.arctan2(y - height / 2, x - width / 2))
    return np.hypot(y - height / 2, x - width / 2) < wave * min(width, height)


def across_the_seam(picture: Image.Image, mask: np.ndarray) -> np.ndarray:
    """Steps between neighbours of which one was drawn and the other kept, in 8-bit values."""
    pixels = np.asarray(picture.convert("RGB")).astype(float)
    down = np.abs(np.diff(pixels, axis=0)).mean(-1)[mask[1:] != mask[:-1]]
    right = np.abs(np.diff(pixels, axis=1)).mean(-1)[mask[:, 1:] != mask[:, :-1]]
    return np.concatenate([down, right])


def median_step(picture: Image.Image) -> float:
    pixels = np.asarray(picture.convert("RGB")).astype(float)
    steps = [np.abs(np.diff(pixels, axis=axis)).mean(-1).ravel() for axis in (0, 1)]
    return float(np.median(np.concatenate(steps)))


def last(states):
    *_, state = states
    return state


def recoloured(frame: Image.Image, mask: np.ndarray) -> Image.Image:
    """What a bad model does: another picture, darker, and its surroundings with other colours than they have."""
    drawn = np.asarray(landscape(frame.width, frame.height, seed=9)).astype(float)
    seen = np.asarray(frame)[..., :3].astype(float)
    tinted = 0.8 * np.where(mask[..., None], 0.3 * drawn + 0.7 * seen, seen) + np.array([50, 10, -10])
    return Image.fromarray(tinted.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("side", [32, 120, 128])
@pytest.mark.parametrize("shape", ["box", "blob"])
def test_the_seam_is_no_steeper_than_the_picture(side, shape):
    """Through models of other sides than the frame's, and one that changes every colour."""
    picture = landscape()
    box = mask_from_box(Box(left=45, top=35, width=55, height=50), picture.size)
    mask = box if shape == "box" else blob(*picture.size)
    state = last(edited(picture, mask, recoloured, side))
    allowed = 1.5 * median_step(picture)
    assert across_the_seam(state.picture, mask).mean() <= allowed
    plain = np.where(mask[..., None], np.asarray(picture) * 0.8 + [50, 10, -10], np.asarray(picture))
    pasted = Image.fromarray(plain.clip(0, 255).astype(np.uint8))
    assert across_the_seam(pasted, mask).mean() > 2 * allowed, "pasting without the membrane would show"


def test_the_seams_of_outpainting_are_no_steeper_either():
    picture = landscape(100, 80)
    extension = Extension(left=70, top=50, right=30)
    result = last(extended(picture, extension, recoloured, 80)).picture
    mask = np.ones((130, 200), bool)
    mask[50:, 70:170] = False
    assert result.size == (200, 130)
    assert across_the_seam(result, mask).mean() <= 1.5 * median_step(picture)
    assert np.array_equal(np.asarray(result.crop((70, 50, 170, 130))), np.asarray(picture))


def wild(rng: np.random.Generator):
    """A model that returns noise, with every alpha."""

    def draw(frame: Image.Image, mask: np.ndarray) -> Image.Image:
        side = int(rng.choice([5, frame.width, 70]))
        return Image.fromarray(rng.integers(0, 256, (side, side, int(rng.choice([3, 4]))), dtype=np.uint8))

    return draw


@settings(max_examples=25, deadline=None)
@given(
    st.integers(8, 60),
    st.integers(8, 60),
    st.sampled_from(["RGB", "RGBA"]),
    st.sampled_from([16, 64]),
    st.integers(0, 2**20),
)
def test_pixels_outside_the_mask_come_back_byte_for_byte(width, height, mode, side, seed):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (height, width, len(mode)), dtype=np.uint8)
    mask = rng.random((height, width)) < rng.choice([0.01, 0.5])
    left, top = int(rng.integers(width)), int(rng.integers(height))
    mask[top : top + 30, left : left + 50] = True
    if mask.all():
        return
    picture = Image.fromarray(pixels)
    state = last(edited(picture, mask, wild(rng), side))
    result = np.asarray(state.picture)
    assert state.picture.mode == mode
    assert result.shape == pixels.shape
    assert np.array_equal(result[~mask], pixels[~mask])
    assert np.array_equal(np.asarray(picture), pixels), "the caller's picture is left as it was"
    assert not state.canvas.pending.any()


def test_a_drawing_that_fits_is_hardly_touched():
    """Only its steepest steps across the seam are softened, and nothing of that is left in the middle."""
    picture = landscape(200, 200)
    mask = blob(200, 200)
    result = last(edited(picture, mask, lambda frame, mask: picture, 200)).picture
    change = np.abs(np.asarray(result).astype(int) - np.asarray(picture)).max(-1)
    assert change[mask].mean() < 1
    assert change[90:110, 90:110].max() <= 1


def test_a_model_is_shown_what_is_known_and_nothing_of_what_is_not():
    picture, mask = landscape(200, 200), blob(200, 200)
    spoilt = np.where(mask[..., None], [255, 0, 255], np.asarray(picture)).astype(np.uint8)
    for side in (64, 200, 256):
        frame = Frame(left=0, top=0, side=200)
        window = Canvas(picture, mask).window(frame, side)
        assert window.picture.size == (side, side)
        assert window.picture.mode == "RGBA"
        assert window.mask.shape == (side, side)
        hidden = Canvas(Image.fromarray(spoilt), mask).window(frame, side)
        assert np.array_equal(np.asarray(window.picture), np.asarray(hidden.picture)), "nothing leaks"
        assert np.asarray(window.picture)[..., 3].min() == 255
    assert np.array_equal(
        np.asarray(Canvas(picture, mask).window(frame, 200).picture)[~mask, :3], np.asarray(picture)[~mask]
    )


def test_the_models_mask_holds_every_touched_pixel():
    mask = np.random.default_rng(0).random((120, 120)) < 0.002
    window = Canvas(landscape(120, 120), mask).window(Frame(left=0, top=0, side=120), 40)
    assert np.array_equal(window.mask, mask.reshape(40, 3, 40, 3).any(axis=(1, 3)))


def sticker(side: int = 192) -> Image.Image:
    """A disc with a hole on nothing, smooth at its edges; colour where there is nothing is junk, as files may hold."""
    large = Image.new("L", (4 * side, 4 * side))
    pen = ImageDraw.Draw(large)
    pen.ellipse([4 * side * one for one in (0.15, 0.1, 0.85, 0.8)], fill=255)
    pen.ellipse([4 * side * one for one in (0.4, 0.4, 0.6, 0.6)], fill=0)
    alpha = np.asarray(large.resize((side, side), Image.Resampling.BOX))
    y, x = np.mgrid[:side, :side]
    colour = np.stack([200 - x / 3, 60 + y / 2, np.full_like(x, 90)], -1)
    colour[alpha == 0] = [255, 0, 255]
    return Image.fromarray(np.dstack([colour, alpha]).astype(np.uint8))


@pytest.mark.parametrize("side", [192, 256])
@pytest.mark.parametrize("box", ["96,0,96,192", "60,50,80,90", "20,10,60,60"])
def test_an_edited_sticker_keeps_clean_edges(side, box):
    """A model that draws the truth, up to a little haze and shift of colour: its edges come back as they are."""
    truth = sticker()
    mask = mask_from_box(Box.parse(box), truth.size)
    rubbed = np.array(truth)
    rubbed[mask] = 0

    def draw(frame: Image.Image, mask: np.ndarray) -> Image.Image:
        drawn = np.array(truth.crop(place).resize(frame.size, Image.Resampling.BICUBIC)).astype(float)
        drawn[..., :3] += 3
        drawn[..., 3] += 2
        return Image.fromarray(drawn.clip(0, 255).astype(np.uint8))

    (frame,) = mask_frames(mask, side)
    place = (frame.left, frame.top, frame.left + frame.side, frame.top + frame.side)
    result = last(edited(Image.fromarray(rubbed), mask, draw, side)).picture
    assert result.mode == "RGBA"
    solid, wanted = np.asarray(result)[..., 3] >= 128, np.asarray(truth)[..., 3] >= 128
    assert (solid & wanted).sum() / (solid | wanted).sum() >= 0.95
    border = (np.asarray(truth)[..., 3] > 0) & (np.asarray(truth)[..., 3] < 255)
    for background in BACKGROUNDS:
        ours, right = (np.asarray(composite(one, background)).astype(int) for one in (result, truth))
        assert np.abs(ours - right)[border].mean() <= 4, background
        assert np.abs(ours - right).mean() <= 1


def test_a_transparent_drawing_on_an_opaque_picture_lets_the_surroundings_go_on():
    picture = Image.new("RGB", (120, 120), (30, 90, 200))
    mask = mask_from_box(Box(left=30, top=30, width=60, height=60), picture.size)

    def draw(frame: Image.Image, mask: np.ndarray) -> Image.Image:
        drawn = Image.new("RGBA", frame.size)
        ImageDraw.Draw(drawn).rectangle(
            [frame.width // 2 - 4, frame.width // 2 - 4] + [frame.width // 2 + 3] * 2, fill="red"
        )
        return drawn

    result = np.asarray(last(edited(picture, mask, draw, 120)).picture)
    assert result[60, 60].tolist() == [255, 0, 0]
    assert np.abs(result.astype(int) - (30, 90, 200)).max(-1).astype(bool).sum() == 64


def test_a_change_of_all_colours_is_undone_far_from_the_seam_too():
    picture, mask = landscape(200, 200), blob(200, 200)
    tinted = Image.fromarray((np.asarray(picture).astype(int) + np.array([9, -6, 12])).clip(0, 255).astype(np.uint8))
    result = last(edited(picture, mask, lambda frame, mask: tinted, 200)).picture
    change = np.abs(np.asarray(result).astype(int) - np.asarray(picture)).max(-1)
    assert change[90:110, 90:110].max() <= 1


def test_memory_does_not_grow_with_the_number_of_frames():
    def peak(side: int) -> tuple[int, int]:
        tracemalloc.start()
        states = extended(landscape(48, 48), Extension(right=60), lambda frame, mask: frame, side)
        number = sum(1 for _ in states)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return number, used

    (few, of_few), (many, of_many) = peak(48), peak(16)
    assert many > 4 * few
    assert of_many <= of_few


def test_a_state_a_frame_and_nothing_before_it_is_asked_for():
    calls = []

    def draw(frame: Image.Image, mask: np.ndarray) -> Image.Image:
        calls.append(mask.mean())
        return frame

    picture = landscape(64, 64)
    states = extended(picture, Extension(right=100), draw, 64)
    assert calls == []
    first = next(states)
    assert (first.done, first.num_frames, len(calls)) == (1, 3, 1)
    assert first.picture.size == (164, 64)
    assert [state.done for state in states] == [2, 3]


def test_new_ground_is_empty_until_it_is_drawn():
    ground = Canvas.extended(landscape(20, 20), Extension(left=10)).picture
    assert ground.getpixel((5, 5)) == (255, 255, 255)
    clear = Canvas.extended(sticker(20), Extension(left=10)).picture
    assert np.asarray(clear)[5, 5, 3] == 0


def test_unusable_input_is_refused_before_anything_is_drawn():
    def never(frame: Image.Image, mask: np.ndarray) -> Image.Image:
        raise AssertionError

    picture, mask = landscape(64, 64), blob(64, 64)
    with pytest.raises(BadRequest):
        edited(picture, ~blob(64, 60), never, 64)
    with pytest.raises(BadPicture):
        edited(Image.new("RGB", (1, 1)), np.ones((1, 1), bool), never, 64)
    with pytest.raises(BadPicture):
        extended(Image.new("RGB", (1, 1)), Extension(left=9), never, 64)
    with pytest.raises(BadRequest):
        extended(picture, Extension(left=10**7), never, 64)
    with pytest.raises(BadPicture, match="square"):
        next(edited(picture, mask, lambda frame, mask: Image.new("RGB", (10, 12)), 64))
