"""The verbs of DALL·E 3: what stays, what is drawn, what is told, and what is refused before anything is drawn."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from opendalle.base.errors import BadConfig, BadRequest
from opendalle.base.protocols import DenoiseLossProbe, Hooks, PictureEncoder, Pipeline, TextEncoder
from opendalle.base.request import Request
from opendalle.base.rng import normal_like_rows, picture_generator
from opendalle.codec.consistency import ConsistencyCodec
from opendalle.dalle3.parts import Dalle3Config
from opendalle.dalle3.pipeline import Dalle3
from opendalle.pictures import from_array
from opendalle.samplers.guided import GuidedDenoise
from opendalle.samplers.sample import last_state, sample

SIDE = {"width": 32, "height": 32}
CLEAR = {"background": "transparent"}


def picture(size: tuple[int, int] = (32, 32), seed: int = 3) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def values(sample):
    return np.asarray(sample.picture).astype(int)


def test_it_is_a_pipeline_and_a_picture_is_made_of_its_seed_alone(dalle):
    assert dalle.sizes == (32, 64)
    together = list(dalle.generate("a red apple", count=3, seed=5, **SIDE))
    assert [(one.index, one.seed, one.step, one.num_steps) for one in together] == [(k, 5 + k, 4, 4) for k in range(3)]
    assert len({one.picture.tobytes() for one in together}) == 3
    (alone,) = dalle.generate("a red apple", seed=6, **SIDE)
    assert (np.abs(values(alone) - values(together[1])) > 1).mean() <= 0.001
    (exact,) = (dalle.generate("a red apple", seed=5, count=2, exact=True, **SIDE),)
    assert list(exact)[1].picture.tobytes() == alone.picture.tobytes()
    assert next(dalle.generate("a blue car", seed=6, **SIDE)).picture.tobytes() != alone.picture.tobytes()
    assert isinstance(dalle, Pipeline)


def test_a_picture_is_what_plain_calls_of_the_networks_make(dalle):
    """Guidance by hand: two passes, each with its own caption, put together by the formula."""
    (drawn,) = dalle.generate("a red apple", seed=9, **SIDE, **CLEAR)
    network, config = dalle.parts.denoiser, dalle.config.denoiser
    said, empty = (dalle.parts.reader.read([one]) for one in ("a red apple", ""))

    def guided(x_t, t):
        with_it, without = network(x_t, t, said), network(x_t, t, empty)
        return without + config.guidance * (with_it - without)

    noise = normal_like_rows([picture_generator(9)], (3, 8, 8))
    schedule = config.make_schedule()
    denoise = GuidedDenoise(guided, {}, schedule=schedule, prediction="v")
    grid = last_state(sample(denoise, noise, config.grid(schedule, None), schedule=schedule)).x_t
    wanted = from_array(dalle.parts.codec.decode(grid)[0].numpy())
    assert np.abs(values(drawn) - np.asarray(wanted).astype(int)).max() <= 1


def test_many_captions_in_batches_are_the_single_pictures(dalle):
    prompts, seeds = ["a red apple", "", "a much longer caption of a blue car"], [4, 5, 6]
    many = list(dalle.generate_many(prompts, seeds, batch=2, **SIDE))
    exact = list(dalle.generate_many(prompts, seeds, exact=True, **SIDE))
    for prompt, seed, one, other in zip(prompts, seeds, many, exact, strict=True):
        alone = next(dalle.generate(prompt, seed=seed, **SIDE))
        assert alone.picture.tobytes() == other.picture.tobytes()
        assert (np.abs(values(alone) - values(one)) > 1).mean() <= 0.001
    assert list(dalle.generate_many([], [], **SIDE)) == []
    with pytest.raises(BadRequest, match="one seed a prompt"):
        dalle.generate_many(prompts, [1], **SIDE)


def test_without_a_prompt_guidance_pushes_nowhere(dalle):
    (one,), (other,) = (dalle.generate("", guidance=scale, seed=1, **SIDE) for scale in (1.0, 9.0))
    assert np.abs(values(one) - values(other)).max() <= 1


@pytest.mark.parametrize(
    ("size", "made"),
    [
        ((56, 32), None),
        ((32, 56), None),
        ((112, 64), None),
        ((64, 64), None),
        ((224, 128), "drawn at 112x64, enlarged to 224x128"),
        ((128, 224), "drawn at 64x112, enlarged to 128x224"),
        ((128, 128), "drawn at 64x64, enlarged to 128x128"),
        ((110, 64), "drawn at 112x64, cut to 110x64"),
        ((128, 64), "drawn at 112x64, grown to 128x64"),
        ((80, 64), "drawn at 64x64, grown to 80x64"),
        ((48, 48), "drawn at 64x64, shrunk to 48x48"),
    ],
)
def test_every_size_is_made_and_wide_and_tall_ones_are_drawn_as_such(dalle, monkeypatch, size, made):
    grids, original = [], dalle.cascade.denoise
    monkeypatch.setattr(
        dalle.cascade,
        "denoise",
        lambda prompted, noise, *rest: grids.append(tuple(noise.shape[2:])) or original(prompted, noise, *rest),
    )
    (drawn,) = dalle.generate("a red apple", seed=2, width=size[0], height=size[1])
    assert drawn.picture.size == size
    assert drawn.recipe.get("made") == made
    ratio = size[0] / size[1]
    assert grids == [(8, 14) if ratio > 1.6 else (14, 8) if ratio < 0.6 else (8, 8)]


def test_without_trained_shapes_a_wide_picture_grows_out_of_a_square(dalle):
    square = Dalle3(dalle.parts, replace(dalle.config, shapes=()))
    (drawn,) = square.generate("a red apple", seed=2, width=112, height=64)
    assert drawn.recipe["made"] == "drawn at 64x64, grown to 112x64"


@pytest.mark.parametrize("size", [(129, 129), (31, 31), (64, 193)], ids=str)
def test_sizes_that_cannot_be_had_are_refused_at_once(dalle, size):
    with pytest.raises(BadRequest, match="a square of side 32, 64, or WIDTHxHEIGHT"):
        dalle.generate("a red apple", width=size[0], height=size[1])


def test_previews_show_the_way_and_change_nothing(dalle):
    (plain,) = dalle.generate("a red apple", seed=4, width=112, height=64)
    *shown, last = dalle.generate("a red apple", seed=4, previews=2, width=112, height=64)
    assert [(one.is_preview, one.step, one.picture.size) for one in shown] == [
        (True, 1, (56, 32)),
        (True, 3, (56, 32)),
    ]
    assert not last.is_preview
    assert last.picture.tobytes() == plain.picture.tobytes()
    assert set(last.seconds) == {"text", "denoiser", "codec", "upsampler"}


def test_a_prompt_is_rewritten_when_the_card_or_the_request_says_so(dalle, rewriting):
    wanted = "a fox stands on a green hill"
    (plain,) = dalle.generate("a fox", seed=1, **SIDE)
    assert (plain.revised_prompt, "rewriting" in plain.recipe) == ("", False)
    asked = dalle.parts.rewriter.asked
    assert asked == []
    for samples in (
        rewriting.generate("a fox", count=5, batch=2, **SIDE),
        dalle.generate("a fox", rewrite="own", **SIDE),
    ):
        asked.clear()
        found = list(samples)
        assert asked == ["a fox"]  # once, however many pictures and batches
        assert all(one.request.prompt == "a fox" and one.revised_prompt.startswith(wanted) for one in found)
        assert found[-1].recipe["rewriting"] == {"by": "echo", "attempts": 1}
        assert found[-1].recipe["request"]["revised_prompt"] == found[-1].revised_prompt
    (off,) = rewriting.generate("a fox", seed=1, rewrite="off", **SIDE)
    assert off.picture.tobytes() == plain.picture.tobytes()
    text = found[0].revised_prompt
    (by_hand,) = dalle.generate(text, rewrite="off", seed=0, **SIDE)
    assert by_hand.picture.tobytes() == found[0].picture.tobytes()
    asked.clear()
    (again,) = rewriting.generate(**found[0].recipe["request"])
    assert (asked, again.picture.tobytes()) == ([], found[0].picture.tobytes())


def test_each_prompt_of_many_is_rewritten_and_told_of_its_own(rewriting):
    prompts = ["a fox", "a cat", "a fox"]
    found = list(rewriting.generate_many(prompts, [1, 2, 3], **SIDE))
    assert [one.revised_prompt.split(" stands")[0] for one in found] == prompts
    assert [one.recipe["request"]["prompt"] for one in found] == prompts
    assert next(rewriting.generate("", **SIDE)).revised_prompt == ""  # the unconditional model


def test_a_rewriter_that_is_not_there_is_refused_at_once(dalle):
    without = Dalle3(replace(dalle.parts, rewriter=None), dalle.config)
    assert next(without.generate("a fox", **SIDE)).revised_prompt == ""
    for model, mode in ((without, "own"), (without, "http"), (dalle, "http"), (dalle, "local")):
        with pytest.raises(BadRequest, match="rewrite is"):
            model.generate("a fox", rewrite=mode, **SIDE)


def test_a_variation_without_strength_rebuilds_the_picture(dalle):
    source = picture()
    asked = {"eta": 0.0, "refinements": 12, "steps": 8, **SIDE}
    rebuilt = list(dalle.vary(source, "a hill", count=2, **asked))
    assert rebuilt[0].picture.tobytes() == rebuilt[1].picture.tobytes()
    codec = dalle.parts.codec
    small = torch.from_numpy(np.asarray(source).copy()).permute(2, 0, 1)[None] / 127.5 - 1
    small = torch.cat([small, torch.ones_like(small[:, :1])], dim=1)
    wanted = np.asarray(from_array(codec.decode(codec.encode(small))[0].numpy()).convert("RGB")).astype(int)
    seen = values(next(dalle.vary(source, "a hill", **asked, **CLEAR)))[..., :3]
    assert np.abs(seen - wanted).mean() < 1.0
    far = [values(next(dalle.vary(source, "a hill", **{**asked, "eta": eta}, **CLEAR)))[..., :3] for eta in (0.3, 1.0)]
    off = [np.abs(one - wanted).mean() for one in far]
    assert 1.0 < off[0] < off[1]


def test_strength_brings_guidance_and_chance(dalle, monkeypatch):
    scales, original = [], dalle.cascade.denoiser
    monkeypatch.setattr(
        dalle.cascade,
        "denoiser",
        lambda prompted, request, **more: scales.append(request.guidance) or original(prompted, request, **more),
    )
    for asked, scale in (({"eta": 0.0}, 1.0), ({"eta": 0.5}, 2.0), ({}, 2.6), ({"eta": 1.0, "guidance": 1.5}, 1.5)):
        scales.clear()
        samples = list(dalle.vary(picture(), "a hill", count=2, **asked, **SIDE))
        assert scales[0] == 1.0  # the way back is never guided
        assert scales[1:] == [pytest.approx(scale)]
        assert (samples[0].picture.tobytes() == samples[1].picture.tobytes()) == (asked.get("eta") == 0.0)


def test_renewed_noise_changes_what_is_rebuilt(dalle):
    asked = {"eta": 0.0, **SIDE}
    kept, renewed = (next(dalle.vary(picture(), "a hill", renew=share, **asked)) for share in (0.0, 0.5))
    assert kept.picture.tobytes() != renewed.picture.tobytes()


def test_a_variation_has_the_shape_of_its_picture_and_may_be_wide(dalle):
    assert next(dalle.vary(picture((20, 10)), "a hill", **SIDE)).picture.size == (32, 16)
    (wide,) = dalle.vary(picture((70, 40)), "a hill", width=112, height=64)
    assert (wide.picture.size, wide.recipe.get("made")) == ((112, 64), None)
    (large,) = dalle.vary(picture((70, 40)), "a hill", width=224, height=128)
    assert (large.picture.size, large.recipe["made"]) == ((224, 128), "drawn at 112x64, enlarged to 224x128")
    with pytest.raises(BadRequest, match="of the shape of 56x32"):
        dalle.vary(picture(), "a hill", width=100, height=64)


def test_without_a_prompt_the_captioner_says_what_is_there(dalle):
    source = picture()
    words = dalle.caption(source).text
    assert words
    silent = next(dalle.vary(source, seed=1, **SIDE))
    assert (silent.recipe["caption"], silent.revised_prompt, silent.request.prompt) == (words, words, "")
    told = next(dalle.vary(source, words, seed=1, **SIDE))
    assert "caption" not in told.recipe
    assert told.picture.tobytes() == silent.picture.tobytes()
    edited, by_hand = (next(dalle.edit(source, said, box="4,4,20,20", seed=1)) for said in ("", words))
    assert (edited.recipe["caption"], edited.picture.tobytes()) == (words, by_hand.picture.tobytes())
    again = next(dalle.edit(source, **edited.recipe["request"]))
    assert again.picture.tobytes() == edited.picture.tobytes()
    mute = Dalle3(replace(dalle.parts, captioner=None), dalle.config)
    assert "caption" not in next(mute.vary(source, seed=1, **SIDE)).recipe
    with pytest.raises(BadRequest, match="a model without a captioner"):
        mute.caption(source)


@pytest.mark.parametrize("box", ["8,8,40,40", "0,0,90,20"])
def test_an_edit_draws_inside_its_box_alone(dalle, box):
    source = picture((90, 64))
    samples = list(dalle.edit(source, "a red apple", box=box, seed=2, count=2))
    left, top, wide, high = map(int, box.split(","))
    inside = np.zeros((64, 90), dtype=bool)
    inside[top : top + high, left : left + wide] = True
    before = np.asarray(source)
    for one in samples:
        after = np.asarray(one.picture)
        assert np.array_equal(after[~inside], before[~inside])
        assert (after[inside] != before[inside]).any()
    assert samples[0].picture.tobytes() != samples[1].picture.tobytes()


def test_masks_and_extensions_keep_every_known_byte(dalle):
    source = picture((48, 48))
    mask = np.zeros((48, 48), dtype=bool)
    mask[10:30, 12:25] = True
    (masked,) = dalle.edit(source, "a red apple", mask=mask, seed=2)
    assert np.array_equal(np.asarray(masked.picture)[~mask], np.asarray(source)[~mask])
    assert "mask" in masked.recipe
    *shown, grown = dalle.edit(source, "a red apple", extend="left=30,top=8", seed=2, previews=9)
    assert all(one.is_preview for one in shown)
    assert grown.picture.size == (78, 56)
    assert grown.picture.crop((30, 8, 78, 56)).tobytes() == source.tobytes()
    (kept,) = dalle.vary(source, "a hill", keep="8,8,16,16", seed=1)
    inner = (slice(8, 24), slice(8, 24))
    assert np.array_equal(np.asarray(kept.picture)[inner], np.asarray(source)[inner])


def test_enlarging_is_the_upsamplers(dalle):
    (large,) = dalle.upscale(picture((16, 12)), scale=4, seed=3)
    assert (large.picture.size, large.recipe["verb"]) == ((64, 48), "upscale")


def test_a_consistency_decoder_draws_in_the_codecs_place(dalle, consistency):
    other = Dalle3(replace(dalle.parts, codec=ConsistencyCodec(dalle.parts.codec, consistency)), dalle.config)
    one, two = (next(model.generate("a car", seed=1, width=56, height=32)) for model in (dalle, other))
    assert one.picture.size == two.picture.size
    assert one.picture.tobytes() != two.picture.tobytes()


def test_probes(dalle):
    captions = ["a red apple", "", "红苹果"]
    torch.testing.assert_close(dalle.encode_text(captions), torch.cat([dalle.embed(one) for one in captions]))
    assert dalle.embed(picture((20, 30))).norm() == pytest.approx(1.0, abs=1e-5)
    bare = Dalle3(replace(dalle.parts, clip=None), dalle.config)
    with pytest.raises(BadRequest, match="a model without CLIP"):
        bare.embed("a car")
    assert all(isinstance(dalle, probe) for probe in (DenoiseLossProbe, PictureEncoder, TextEncoder))


def test_the_loss_is_the_error_of_the_noise_that_is_found(dalle):
    source = picture()
    loss = dalle.denoise_loss(["a hill", "a car", "a hill"], [source, source, source], [0, 0, 1])
    assert loss.shape == (3,)
    assert loss.unique().numel() == 3
    torch.testing.assert_close(dalle.denoise_loss(["a car"], [source]), loss[1:2], rtol=1e-4, atol=1e-5)
    small = torch.from_numpy(np.asarray(source).copy()).permute(2, 0, 1)[None] / 127.5 - 1
    grid = dalle.parts.codec.encode(torch.cat([small, torch.ones_like(small[:, :1])], dim=1))
    schedule, rng, errors = dalle.cascade.schedule, picture_generator(1), []
    said = dalle.parts.reader.read(["a hill"])
    for step in (999, 899, 799, 699, 599, 499, 399, 299, 199, 99):
        eps, t = torch.randn(grid.shape[1:], generator=rng)[None], torch.tensor([step])
        alpha, sigma = schedule.alpha(t).float(), schedule.sigma(t).float()
        x_t = alpha * grid + sigma * eps
        found = alpha * dalle.parts.denoiser(x_t, t, said) + sigma * x_t  # eps of v
        errors.append((found - eps).square().mean())
    torch.testing.assert_close(torch.stack(errors).mean(), loss[2], rtol=1e-3, atol=1e-4)
    with pytest.raises(BadRequest, match="one caption and one seed"):
        dalle.denoise_loss(["a"], [source, source])


def test_hooks(dalle):
    seen, shapes = [], []

    def noise(generators, shape):
        shapes.append(tuple(shape))
        return torch.zeros(len(generators), *shape)

    hooks = Hooks(guards=[seen.append], initial_noise=noise)
    (first,) = (dalle.generate("a car", seed=1, previews=2, hooks=hooks, width=56, height=32),)
    *_, last = first
    assert [one.is_preview for one in seen] == [False]
    assert shapes == [(3, 8, 14)]
    assert last.picture.tobytes() != next(dalle.generate("a car", seed=1, width=56, height=32)).picture.tobytes()


@pytest.mark.parametrize(
    "wish",
    [
        {"temperature": 0.5},
        {"top_k": 5},
        {"rank": "clip"},
        {"prior": "linear"},
        {"prior_steps": 3},
        {"candidates": 2},
        {"lookahead": 4},
    ],
)
def test_wishes_of_other_generations_are_refused_not_ignored(dalle, wish):
    with pytest.raises(BadRequest, match="DALL·E 3 does not read it"):
        dalle.generate("a car", **wish, **SIDE)


def test_what_it_cannot_do_is_refused_at_once(dalle):
    for verb, call in {
        "blend": lambda: dalle.blend(picture(), picture()),
        "morph": lambda: dalle.morph(picture(), "a car"),
        "ladder": lambda: dalle.ladder(picture()),
    }.items():
        with pytest.raises(BadRequest, match=f"{verb} with DALL·E 3.*DALL·E 2 can"):
            call()
    for call in (
        lambda: dalle.generate("a car", embedding=torch.zeros(1, 4)),
        lambda: dalle.generate("a car", steps=1000, sampler="nonsense"),
        lambda: dalle.edit(picture(), box="0,0,4,4", mask=np.ones((32, 32), dtype=bool)),
        lambda: dalle.edit(picture(), box="0,0,32,32"),
    ):
        with pytest.raises(BadRequest):
            call()


def test_a_student_of_few_steps_refuses_what_it_was_not_taught(dalle):
    denoiser = replace(dalle.config.denoiser, steps=2, guidance=1.0, taught_steps=(2,), taught_guidance=3.0)
    student = Dalle3(dalle.parts, replace(dalle.config, denoiser=denoiser))
    with pytest.raises(BadRequest, match="as this model of few steps was taught"):
        student.generate("a car", steps=3, **SIDE)
    (plain,), (guided,) = (student.generate("a car", seed=1, **more, **SIDE) for more in ({}, {"guidance": 3.0}))
    assert (plain.num_steps, plain.picture.tobytes()) == (2, guided.picture.tobytes())


def test_a_grid_that_the_denoiser_cannot_take_is_refused(dalle):
    for shapes in (((8, 15),), ((16, 28),)):
        with pytest.raises(BadConfig, match="a grid of"):
            Dalle3(dalle.parts, replace(dalle.config, shapes=shapes))
    for wrong in ({"context": 0}, {"vary_strength": 1.5}, {"shapes": ((0, 8),)}):
        with pytest.raises(BadConfig):
            Dalle3Config(**{"denoiser": dalle.config.denoiser, "context": 8, **wrong})


def test_stopping_stops(dalle):
    samples = dalle.generate("a car", count=8, batch=2, previews=3, **SIDE)
    assert next(samples).is_preview
    samples.close()
    assert list(samples) == []
    assert Request().rewrite is None
