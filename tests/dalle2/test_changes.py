"""Changing pictures: what rebuilds does, ends of ways are where they should be, and what must stay does."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from opendalle.base.errors import BadPicture, BadRequest
from opendalle.base.rng import picture_generator
from opendalle.clip.embedded import read_embedding, write_embedding
from opendalle.dalle2.decoder import Decoder
from opendalle.dalle2.latents import reduced, spherical_mean, stops, text_difference
from opendalle.dalle2.pipeline import Dalle2
from opendalle.diffusion.spheres import slerp
from opendalle.nn.whitening import Whitening
from opendalle.pictures import from_array, to_array

SMALL = {"width": 16, "height": 16, "background": "transparent"}


def noise_picture(seed: int, size: tuple[int, int] = (16, 16)) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def pixels(sample: object) -> np.ndarray:
    return np.asarray(sample.picture.convert("RGBA"), dtype=int)  # type: ignore[attr-defined]


# --- ways through the space of latents


def test_slerp_keeps_ends_lengths_and_halves_angles() -> None:
    one, other = torch.randn(2, 3, 5).unbind()
    torch.testing.assert_close(slerp(one, other, 0.0), one)
    torch.testing.assert_close(slerp(one, other, 1.0), other)
    middle = slerp(one, other, 0.5)
    torch.testing.assert_close(middle.norm(dim=1), (one.norm(dim=1) + other.norm(dim=1)) / 2)
    cosine = torch.nn.functional.cosine_similarity
    torch.testing.assert_close(cosine(one, middle), cosine(middle, other))
    torch.testing.assert_close(slerp(one, one, 0.3), one)
    assert bool(slerp(one, -one, 0.5).isfinite().all())


def test_the_mean_of_two_is_slerp_and_of_many_needs_no_order() -> None:
    rows = torch.randn(4, 6)
    torch.testing.assert_close(spherical_mean(rows[:2], [1, 3]), slerp(rows[:1], rows[1:2], 0.75)[0])
    for weights in itertools.permutations([1.0, 2.0, 0.5, 4.0]):
        order = torch.randperm(4)
        shuffled = spherical_mean(rows[order], [weights[k] for k in order.tolist()])
        torch.testing.assert_close(shuffled, spherical_mean(rows, weights), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(spherical_mean(rows, [0, 0, 2, 0]), rows[2])


def test_the_mean_is_where_the_weighted_ways_cancel_out() -> None:
    units = torch.nn.functional.normalize(torch.randn(3, 4).double(), dim=1)
    shares = torch.tensor([0.5, 0.3, 0.2]).double()
    mean = spherical_mean(units, shares.tolist())
    cosine = (units @ mean)[:, None]
    ways = cosine.acos() * torch.nn.functional.normalize(units - cosine * mean, dim=1)
    torch.testing.assert_close((shares[:, None] * ways).sum(0), torch.zeros(4).double(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("weights", [[1.0], [0.0, 0.0], [1.0, -1.0]])
def test_weights_that_tell_nothing_are_refused(weights: list[float]) -> None:
    with pytest.raises(BadRequest, match="weight"):
        spherical_mean(torch.randn(2, 3), weights)


def test_stops_go_from_the_first_to_the_last_by_all_between() -> None:
    found = stops(3, 5)
    assert found == [(1, 0, 0), (0.5, 0.5, 0), (0, 1, 0), (0, 0.5, 0.5), (0, 0, 1)]


def test_texts_that_mean_the_same_lead_nowhere() -> None:
    z = torch.randn(1, 4)
    assert float(text_difference(z, 2 * z).norm()) == pytest.approx(1)
    with pytest.raises(BadRequest, match="mean the same"):
        text_difference(z, z)


def test_all_components_rebuild_an_embedding_and_fewer_are_nearer_to_the_mean() -> None:
    z = torch.nn.functional.normalize(torch.randn(200, 6) * torch.tensor([3.0, 2, 1, 1, 0.5, 0.5]) + 1, dim=1)
    whitening = Whitening(6)
    whitening.fit(z)
    torch.testing.assert_close(reduced(z, whitening, 6), z, atol=1e-5, rtol=0)
    errors = [float((reduced(z, whitening, k) - z).square().mean()) for k in (1, 2, 4, 6)]
    assert errors == sorted(errors, reverse=True)


# --- the verbs


def test_a_picture_is_rebuilt_when_nothing_is_to_change(dalle: Dalle2) -> None:
    picture = noise_picture(1)
    own = dalle.parts.codec.decode(dalle.parts.codec.encode(torch.from_numpy(to_array(picture.convert("RGBA")))[None]))
    (rebuilt,) = dalle.vary(picture, eta=0.0, refinements=12, **SMALL)
    expected = np.asarray(from_array(own[0].numpy()).convert("RGBA"), dtype=int)
    assert np.abs(pixels(rebuilt) - expected).mean() < 1
    (wandered,) = dalle.vary(picture, eta=1.0, **SMALL)
    assert np.abs(pixels(wandered) - pixels(rebuilt)).mean() > 1


def test_variations_differ_by_their_own_chance_and_repeat(dalle: Dalle2) -> None:
    first, second = (list(dalle.vary(noise_picture(1), "a red apple", count=3, batch=2, **SMALL)) for _ in range(2))
    assert [one.picture.tobytes() for one in first] == [one.picture.tobytes() for one in second]
    assert len({one.picture.tobytes() for one in first}) == 3
    (alone,) = dalle.vary(noise_picture(1), "a red apple", seed=2, **SMALL)
    assert (np.abs(pixels(alone) - pixels(first[2])) > 1).mean() <= 0.001
    (renewed,) = dalle.vary(noise_picture(1), eta=0.0, renew=1.0, **SMALL)
    (kept,) = dalle.vary(noise_picture(1), eta=0.0, **SMALL)
    assert renewed.picture.tobytes() != kept.picture.tobytes()


def test_a_blend_ends_at_its_pictures(dalle: Dalle2) -> None:
    one, other = noise_picture(1), noise_picture(2)
    frames = list(dalle.blend(one, other, frames=3, **SMALL))
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert {frame.seed for frame in frames} == {0}
    for picture, frame in ((one, frames[0]), (other, frames[2])):
        (rebuilt,) = dalle.vary(picture, eta=0.0, **SMALL)
        assert (np.abs(pixels(rebuilt) - pixels(frame)) > 1).mean() <= 0.002
    (middle,) = dalle.blend(one, other, **SMALL)
    assert (np.abs(pixels(middle) - pixels(frames[1])) > 1).mean() <= 0.002
    (only,) = dalle.blend(one, other, "a red apple", weights=(1, 0, 0), **SMALL)
    assert (np.abs(pixels(only) - pixels(frames[0])) > 1).mean() <= 0.002
    (fixed,) = dalle.blend(one, other, noise="fixed", **SMALL)
    assert fixed.picture.tobytes() != middle.picture.tobytes()


def test_a_morph_begins_at_its_picture_and_leads_towards_the_text(dalle: Dalle2) -> None:
    picture = noise_picture(3)
    frames = list(dalle.morph(picture, "a blue car", from_text="a red apple", frames=3, **SMALL))
    (rebuilt,) = dalle.vary(picture, eta=0.0, **SMALL)
    assert (np.abs(pixels(rebuilt) - pixels(frames[0])) > 1).mean() <= 0.002
    (end,) = dalle.morph(picture, "a blue car", from_text="a red apple", **SMALL)
    assert (np.abs(pixels(end) - pixels(frames[2])) > 1).mean() <= 0.002
    assert np.abs(pixels(end) - pixels(rebuilt)).mean() > 0.1


def test_shapes_are_kept_and_transparency_too(dalle: Dalle2) -> None:
    (wide,) = dalle.vary(noise_picture(1, (30, 20)), width=64, height=64)
    assert (wide.picture.size, wide.picture.mode) == ((64, 43), "RGB")
    sticker = Image.new("RGBA", (9, 9))
    (clear,) = dalle.vary(sticker, width=64, height=64)
    assert clear.picture.mode == "RGBA"
    (white,) = dalle.vary(sticker, width=64, height=64, background="white")
    assert white.picture.mode == "RGB"


def test_recipes_name_the_inputs(dalle: Dalle2, tmp_path) -> None:
    noise_picture(1).save(tmp_path / "one.png")
    (sample,) = dalle.blend(tmp_path / "one.png", "a red apple", **SMALL)
    assert sample.recipe["verb"] == "blend"
    assert [one.get("name", one.get("text")) for one in sample.recipe["inputs"]] == ["one.png", "a red apple"]


@pytest.mark.parametrize(
    ("verb", "sources", "asked"),
    [
        ("vary", ("missing.png",), {}),
        ("blend", ("a red apple",), {}),
        ("blend", ("a red apple", "a blue car"), {"weights": (1.0,)}),
        ("blend", ("a red apple", "a blue car"), {"weights": (0.0, 0.0)}),
        ("blend", ("a red apple", "a blue car"), {"weights": (1.0, 1.0), "frames": 2}),
        ("morph", (noise_picture(1),), {}),
        ("morph", (noise_picture(1), "a car"), {"strength": 2.0}),
        ("ladder", (noise_picture(1),), {}),  # this model keeps no principal components
        ("edit", (noise_picture(1), "a car"), {}),
        ("edit", (noise_picture(1), "a car"), {"box": "0,0,8,8", "extend": "left=8"}),
        ("edit", (noise_picture(1), "a car"), {"box": "0,0,99,8"}),
        ("edit", (noise_picture(1), "a car"), {"mask_white": True, "box": "0,0,8,8"}),
        ("edit", (noise_picture(1), "a car"), {"mask": np.ones((16, 16), bool)}),
        ("edit", (noise_picture(1), "a car"), {"mask": np.zeros((16, 16), bool)}),
        ("edit", (noise_picture(1), "a car"), {"mask": np.ones((8, 16), bool)}),
        ("vary", (noise_picture(1),), {"keep": "0,0,16,16"}),
        ("vary", (noise_picture(1),), {"width": 65, "height": 65}),
        ("vary", (noise_picture(1),), {"width": 32, "height": 16}),
    ],
)
def test_what_cannot_be_is_refused_at_once(dalle: Dalle2, verb: str, sources: tuple, asked: dict) -> None:
    with pytest.raises((BadRequest, BadPicture)):
        getattr(dalle, verb)(*sources, **asked)  # nothing is iterated


# --- embeddings


def test_an_embedding_is_drawn_from_and_belongs_to_its_clip(dalle: Dalle2, tmp_path) -> None:
    dalle.clip_sha256 = "c" * 64
    z = dalle.embed(noise_picture(1))
    assert float(z.norm()) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(dalle.embed(torch.from_numpy(to_array(noise_picture(1).convert("RGBA")))[None]), z)
    kept = read_embedding(write_embedding(tmp_path / "z.safetensors", z, "c" * 64))
    torch.testing.assert_close(kept.z, z)
    (drawn,) = dalle.generate("", embedding=kept, **SMALL)
    (again,) = dalle.generate("", embedding=z, **SMALL)
    assert drawn.picture.tobytes() == again.picture.tobytes()
    assert drawn.recipe["inputs"] == [{"name": "z.safetensors", "sha256": kept.sha256}]
    other = read_embedding(write_embedding(tmp_path / "other.safetensors", z, "d" * 64))
    with pytest.raises(BadRequest, match="another CLIP"):
        dalle.generate("", embedding=other, **SMALL)
    (tmp_path / "torn.safetensors").write_bytes((tmp_path / "z.safetensors").read_bytes()[:40])
    with pytest.raises(BadRequest, match="no embedding"):
        read_embedding(tmp_path / "torn.safetensors")


# --- edits


@pytest.fixture(params=[False, True], ids=["repaint", "trained"])
def editor(request, dalle: Dalle2) -> Dalle2:
    """A decoder that was not trained to hear what is known, and one that was."""
    if not request.param:
        return dalle
    import dataclasses

    torch.manual_seed(5)
    config = dalle.parts.decoder.config
    unet = dataclasses.replace(config.unet, in_channels=7)
    decoder = Decoder(dataclasses.replace(config, unet=unet, has_known=True)).eval().requires_grad_(False)
    return Dalle2(dataclasses.replace(dalle.parts, decoder=decoder), dalle.config)


def test_an_edit_leaves_the_rest_byte_for_byte(editor: Dalle2) -> None:
    picture = noise_picture(4, (90, 70))
    mask = np.zeros((70, 90), bool)
    mask[20:40, 30:60] = True
    edits = list(editor.edit(picture, "a red apple", mask=mask, count=2, seed=5))
    before = np.asarray(picture)
    for sample in edits:
        after = np.asarray(sample.picture.convert("RGB"))
        assert sample.picture.size == picture.size
        assert np.array_equal(after[~mask], before[~mask])
        assert not np.array_equal(after[mask], before[mask])
    assert edits[0].picture.tobytes() != edits[1].picture.tobytes()
    (again,) = editor.edit(picture, "a red apple", box="30,20,30,20", seed=6)
    assert again.picture.tobytes() == edits[1].picture.tobytes()


def test_a_picture_grows_and_a_variation_keeps_a_box(editor: Dalle2) -> None:
    picture = noise_picture(4, (40, 30))
    shown = list(editor.edit(picture, extend="left=20,bottom=8", previews=1, resamplings=1))
    assert [sample.is_preview for sample in shown] == [True] * (len(shown) - 1) + [False]
    grown = np.asarray(shown[-1].picture.convert("RGB"))
    assert grown.shape == (38, 60, 3)
    assert np.array_equal(grown[:30, 20:], np.asarray(picture))
    (kept,) = editor.vary(picture, keep="4,4,16,16", resamplings=1)
    after = np.asarray(kept.picture.convert("RGB"))
    assert np.array_equal(after[4:20, 4:20], np.asarray(picture)[4:20, 4:20])
    assert not np.array_equal(after, np.asarray(picture))


def test_a_mask_picture_is_read_by_alpha_or_by_white(dalle: Dalle2) -> None:
    picture = noise_picture(4, (32, 32))
    clear = Image.new("RGBA", (32, 32), (0, 0, 0, 255))
    clear.paste((0, 0, 0, 0), (8, 8, 24, 24))
    white = Image.new("RGB", (32, 32))
    white.paste((255, 255, 255), (8, 8, 24, 24))
    (one,) = dalle.edit(picture, "a car", mask=clear, resamplings=1)
    (other,) = dalle.edit(picture, "a car", mask=white, mask_white=True, resamplings=1)
    (boxed,) = dalle.edit(picture, "a car", box="8,8,16,16", resamplings=1)
    assert one.picture.tobytes() == other.picture.tobytes() == boxed.picture.tobytes()
    assert "mask" in one.recipe
    assert "mask" not in boxed.recipe


def test_what_is_known_reaches_the_decoder(editor: Dalle2) -> None:
    """A decoder that is told answers otherwise; one that cannot be told refuses."""
    cascade = editor.cascade
    said, z = cascade.read([""]), torch.randn(1, 16)
    known = torch.ones(1, 4, *cascade.grid_shape[1:])
    decoder = editor.parts.decoder
    with torch.no_grad():
        inputs = (z, cascade.pooled(said), said.text.states, said.mask)
        if not decoder.config.has_known:
            with pytest.raises(BadRequest, match="known cells"):
                decoder.condition(*inputs, known=known)
            return
        x_t, t = torch.randn(1, *cascade.grid_shape), torch.tensor([500])
        for weight in decoder.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=picture_generator(1)))
        told, untold = (decoder(x_t, t, decoder.condition(*inputs, known=one)) for one in (known, None))
        blank = decoder(x_t, t, decoder.condition(*inputs, known=torch.zeros_like(known)))
    assert not torch.allclose(told, untold)
    torch.testing.assert_close(untold, blank)


# --- larger pictures


def test_any_picture_is_enlarged(dalle: Dalle2) -> None:
    picture = noise_picture(6, (20, 12))
    (large,) = dalle.upscale(picture, scale=4)
    assert (large.picture.size, large.picture.mode) == ((80, 48), "RGB")
    (double,) = dalle.upscale(picture, scale=2)
    assert double.picture.size == (40, 24)
    (again,) = dalle.upscale(picture, scale=4)
    assert again.picture.tobytes() == large.picture.tobytes()
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert next(iter(dalle.upscale(clear))).picture.mode == "RGBA"
    with pytest.raises(BadRequest, match="pixels"):
        dalle.upscale(noise_picture(6, (300, 300)), scale=64)
