"""The verbs of DALL·E 1: what stays, what is drawn, what is told, and what is refused before anything is drawn."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from opendalle.base.errors import BadConfig, BadRequest
from opendalle.base.protocols import Hooks, LikelihoodProbe, PictureEncoder, Pipeline, ScoredPipeline, TextEncoder
from opendalle.base.request import Request
from opendalle.base.rng import picture_generator
from opendalle.dalle1.drawing import empty_text, log_likelihood
from opendalle.dalle1.parts import Dalle1Config
from opendalle.dalle1.pipeline import Dalle1
from opendalle.pictures import take

SIDE = {"width": 32, "height": 32}


def picture(size: tuple[int, int] = (32, 32), mode: str = "RGB", seed: int = 3) -> Image.Image:
    rng = np.random.default_rng(seed)
    channels = 4 if mode == "RGBA" else 3
    small = rng.integers(0, 256, (4, 4, channels), dtype=np.uint8)
    if mode == "RGBA":
        small[..., 3] = 255
        small[0, 0, 3] = 0
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def test_it_is_a_pipeline_and_a_picture_is_made_of_its_seed_alone(dalle):
    assert dalle.sizes == (32, 64)
    assert isinstance(dalle, Pipeline)
    together = list(dalle.generate("a red apple", count=3, seed=5, **SIDE))
    assert [(one.index, one.seed, one.step, one.num_steps) for one in together] == [
        (k, 5 + k, 16, 16) for k in range(3)
    ]
    assert len({one.picture.tobytes() for one in together}) == 3
    alone = list(dalle.generate("a red apple", count=1, seed=6, exact=True, **SIDE))
    assert alone[0].picture.tobytes() == together[1].picture.tobytes()
    assert next(dalle.generate("a blue car", seed=5, **SIDE)).picture.tobytes() != together[0].picture.tobytes()


def test_a_recipe_tells_all_that_makes_the_picture_again(dalle):
    (sample,) = dalle.generate("a red apple", seed=5, temperature=0.7, top_k=9, candidates=2, rank="gain", **SIDE)
    recipe = sample.recipe
    assert {key: recipe[key] for key in ("model", "verb", "index", "seed")} == {
        "model": "tiny",
        "verb": "generate",
        "index": 0,
        "seed": 5,
    }
    (again,) = dalle.generate(**recipe["request"])
    assert again.picture.tobytes() == sample.picture.tobytes()
    assert {"text", "transformer", "rank", "codec"} == set(sample.seconds)


def test_the_upsampler_makes_the_large_size(dalle):
    (sample,) = dalle.generate("a red apple", seed=5, width=64, height=64)
    assert sample.picture.size == (64, 64)
    assert "upsampler" in sample.seconds
    small = Dalle1(replace(dalle.parts, upsampler=None), dalle.config)
    assert small.sizes == (32,)
    with pytest.raises(BadRequest, match="a square of side 32"):
        small.generate("a red apple", width=64, height=64)


def test_many_captions_in_batches_are_the_single_pictures(dalle):
    prompts, seeds = ["a red apple", "", "a blue car"], [4, 5, 6]
    many = list(dalle.generate_many(prompts, seeds, batch=2, **SIDE))
    for prompt, seed, sample in zip(prompts, seeds, many, strict=True):
        assert next(dalle.generate(prompt, seed=seed, **SIDE)).picture.tobytes() == sample.picture.tobytes()
    with pytest.raises(BadRequest):
        dalle.generate_many(prompts, [1])


def test_lookahead_changes_no_byte(dalle):
    walked = next(dalle.generate("a red apple", seed=5, **SIDE))
    ahead = next(dalle.generate("a red apple", seed=5, lookahead=8, **SIDE))
    assert ahead.picture.tobytes() == walked.picture.tobytes()


@pytest.mark.parametrize("rank", ["clip", "likelihood", "gain"])
def test_the_best_candidate_is_the_one_that_the_rank_says(dalle, rank, monkeypatch):
    """Every candidate is drawn by hand, too; the one handed out is the best of them by a sum written down here."""
    words, seen = dalle.words, []
    original = words.best

    def spy(rank: str, prompt: str, tokens: torch.Tensor) -> int:
        seen.append(tokens)
        return original(rank, prompt, tokens)

    monkeypatch.setattr(words, "best", spy)
    (sample,) = dalle.generate("a red apple", seed=5, candidates=5, rank=rank, batch=2, **SIDE)
    (tokens,) = seen
    assert tokens.shape == (5, 16)
    assert len({tuple(row.tolist()) for row in tokens}) == 5
    network, text = dalle.parts.transformer, words.read(["a red apple"] * 5)
    if rank == "clip":
        z_t = dalle.embed("a red apple")
        scores = (dalle.embed(words.decode(tokens)) @ z_t.T)[:, 0]
    else:
        scores = log_likelihood(network, text, tokens).sum(1)
        if rank == "gain":
            scores = scores - log_likelihood(network, empty_text(network, 5), tokens).sum(1)
    best = int(scores.argmax())
    values = words.decode(tokens[best][None])[0]
    shown = np.asarray(sample.picture.convert("RGB"), dtype=int)
    from opendalle.base.request import Request
    from opendalle.pictures.finishing import finished

    wanted = finished(values.numpy(), Request(prompt="a red apple"))
    assert np.array_equal(shown, np.asarray(wanted.convert("RGB"), dtype=int))
    first = next(dalle.generate("a red apple", seed=5, **SIDE))  # candidate 0 is the picture without candidates
    monkeypatch.setattr(words, "best", lambda *_: 0)
    assert (
        next(dalle.generate("a red apple", seed=5, candidates=5, **SIDE)).picture.tobytes() == first.picture.tobytes()
    )


def test_previews_grow_row_by_row_and_never_change_what_is_drawn(dalle):
    samples = list(dalle.generate("a transparent red apple", seed=5, previews=3, **SIDE))
    assert [(one.is_preview, one.step) for one in samples] == [(True, 4), (True, 8), (True, 12), (False, 16)]
    last = np.asarray(samples[-1].picture)
    assert last.shape == (32, 32, 4)
    for sample in samples[:-1]:
        shown = np.asarray(sample.picture)
        assert (shown[8 * sample.step // 4 :, :, 3] == 0).all()  # nothing yet
        assert (shown[: 8 * sample.step // 4, :, 3] > 0).any()
    plain = next(dalle.generate("a transparent red apple", seed=5, **SIDE))
    assert plain.picture.tobytes() == samples[-1].picture.tobytes()
    ahead = list(dalle.generate("a transparent red apple", seed=5, previews=3, lookahead=16, **SIDE))
    assert not ahead[-1].is_preview
    assert ahead[-1].picture.tobytes() == samples[-1].picture.tobytes()


@pytest.mark.parametrize(("eta", "kept"), [(0.0, 16), (0.25, 12), (None, 8), (1.0, 0)])
def test_a_variation_keeps_the_first_words(dalle, eta, kept, monkeypatch):
    seen = []
    original = dalle.words.decode
    monkeypatch.setattr(dalle.words, "decode", lambda tokens: seen.append(tokens) or original(tokens))
    source = picture((32, 32))
    asked = {} if eta is None else {"eta": eta}
    samples = list(dalle.vary(source, "a red apple", seed=1, count=2, **asked, **SIDE))

    own = dalle.words.encode(dalle.words.as_codec_sees(take(source)))[0]
    for row in seen[-1]:
        assert torch.equal(row[:kept], own[:kept])
    assert samples[0].recipe["verb"] == "vary"
    assert len(samples[0].recipe["inputs"]) == 1
    assert (samples[0].picture.tobytes() == samples[1].picture.tobytes()) == (eta == 0.0)
    assert samples[0].picture.mode == "RGB"  # nothing transparent was handed in


def test_a_variation_has_the_shape_of_its_picture(dalle):
    (sample,) = dalle.vary(picture((20, 10)), seed=1, **SIDE)
    assert sample.picture.size == (32, 16)


def test_what_a_variation_keeps_comes_back_byte_for_byte(dalle):
    source = picture((32, 32))
    (sample,) = dalle.vary(source, keep="8,8,16,16", seed=1)
    inner = (slice(8, 24), slice(8, 24))
    assert np.array_equal(np.asarray(sample.picture)[inner], np.asarray(source)[inner])


@pytest.mark.parametrize("box", ["8,8,16,16", "0,0,32,16", "0,16,32,16", "16,0,16,32"])
def test_an_edit_draws_inside_its_box_alone(dalle, box):
    source = picture((32, 32))
    samples = list(dalle.edit(source, "a red apple", box=box, seed=2, count=2))
    left, top, wide, high = map(int, box.split(","))
    inside = np.zeros((32, 32), dtype=bool)
    inside[top : top + high, left : left + wide] = True
    before = np.asarray(source)
    for sample in samples:
        after = np.asarray(sample.picture)
        assert np.array_equal(after[~inside], before[~inside])
        assert (after[inside] != before[inside]).any()
    assert samples[0].picture.tobytes() != samples[1].picture.tobytes()
    (again,) = dalle.edit(source, **{**samples[0].recipe["request"], "count": 1})
    assert again.picture.tobytes() == samples[0].picture.tobytes()


def test_an_edit_keeps_the_candidate_that_the_known_words_follow(dalle, monkeypatch):
    from opendalle.dalle1 import edits as module

    fits, chosen = [], []
    original, decode = module.fit_of_known, dalle.words.decode
    monkeypatch.setattr(module, "fit_of_known", lambda *given: fits.append(original(*given)) or fits[-1])
    monkeypatch.setattr(dalle.words, "decode", lambda tokens: chosen.append(tokens) or decode(tokens))
    list(dalle.edit(picture(), box="0,0,32,16", seed=2, candidates=6))
    assert fits[0].shape == (6,)
    assert fits[0].unique().numel() > 1
    assert len(chosen[0]) == 1


def test_a_picture_grows_on_any_side(dalle):
    source = picture((32, 32))
    for extend, size, place in (("left=16", (48, 32), (16, 0)), ("top=8,right=8", (40, 40), (0, 8))):
        samples = list(dalle.edit(source, extend=extend, seed=2, previews=4))
        assert [one.is_preview for one in samples] == [True] * (len(samples) - 1) + [False]
        grown = samples[-1].picture
        assert grown.size == size
        assert grown.crop((*place, place[0] + 32, place[1] + 32)).tobytes() == source.tobytes()


def test_enlarging_is_the_upsamplers(dalle):
    (sample,) = dalle.upscale(picture((16, 12)), scale=2, seed=3)
    assert sample.picture.size == (32, 24)
    assert sample.recipe["verb"] == "upscale"


def test_a_sticker_keeps_its_transparency_and_all_else_stands_on_white(dalle):
    assert next(dalle.generate("a sticker", seed=1, **SIDE)).picture.mode == "RGBA"
    assert next(dalle.generate("a car", seed=1, **SIDE)).picture.mode == "RGB"
    assert next(dalle.generate("a car", seed=1, background="transparent", **SIDE)).picture.mode == "RGBA"


def test_likelihoods_of_pairs_are_sums_over_their_words(dalle):
    pictures = torch.rand(2, 4, 32, 32, generator=picture_generator(0)) * 2 - 1
    pair = dalle.log_likelihood(["a red apple", ""], pictures)
    tokens = dalle.parts.codec.encode_tokens(pictures).flatten(1)
    logits = dalle.parts.transformer(dalle.words.read(["a red apple", ""]), tokens).picture.log_softmax(-1)
    torch.testing.assert_close(pair.picture, logits.gather(2, tokens[..., None]).sum((1, 2)))
    assert (pair.text < 0).all()
    with pytest.raises(BadRequest, match="one caption a picture"):
        dalle.log_likelihood(["a"], pictures)


def test_likelihoods_of_one_picture_under_many_captions_are_those_of_its_copies(dalle):
    captions, source = ["a red apple", "a blue car", ""], picture((40, 30), "RGBA")
    found = dalle.log_likelihood(captions, [source])
    copies = dalle.log_likelihood(captions, dalle.words.as_codec_sees(take(source)).expand(3, -1, -1, -1))
    torch.testing.assert_close(found.picture, copies.picture)
    torch.testing.assert_close(found.text, copies.text)


def test_scored_pictures_are_the_plain_ones_and_tell_what_candidates_are_chosen_by(dalle, monkeypatch):
    """The scores are those of the words as drawn, not of the picture encoded once more."""
    words, drawn = dalle.words, []
    decode = words.decode
    monkeypatch.setattr(words, "decode", lambda tokens: drawn.append(tokens) or decode(tokens))
    prompts, seeds = ["a red apple", "a blue car", "a red apple"], [3, 4, 5]
    plain = list(dalle.generate_many(prompts, seeds, batch=2, **SIDE))
    assert all(one.scores == {} for one in plain)
    drawn.clear()
    scored = list(dalle.generate_scored(prompts, seeds, batch=2, background="auto", **SIDE))
    assert [one.picture.tobytes() for one in scored] == [one.picture.tobytes() for one in plain]
    tokens, network = torch.cat(drawn[::2]), dalle.parts.transformer  # each batch is decoded for CLIP, then to be shown
    said = log_likelihood(network, words.read(prompts), tokens).sum(1)
    alone = log_likelihood(network, empty_text(network, 3), tokens).sum(1)
    seen = (dalle.embed(decode(tokens)) * dalle.encode_text(prompts)).sum(1)
    for name, wanted in (("likelihood", said), ("gain", said - alone), ("clip", seen)):
        torch.testing.assert_close(torch.tensor([one.scores[name] for one in scored]), wanted)
    with pytest.raises(BadRequest, match="one seed a prompt"):
        dalle.generate_scored(prompts, [1], **SIDE)


@pytest.mark.parametrize("probe", [LikelihoodProbe, ScoredPipeline, TextEncoder, PictureEncoder])
def test_it_has_the_probes(dalle, probe):
    assert isinstance(dalle, probe)


def test_captions_are_embedded_together_as_one_by_one(dalle):
    captions = ["a red apple", "", "红苹果"]
    torch.testing.assert_close(dalle.encode_text(captions), torch.cat([dalle.embed(one) for one in captions]))


def test_a_guard_sees_finished_pictures_and_may_stop(dalle):
    seen = []
    list(dalle.generate("a car", seed=1, previews=2, hooks=Hooks(guards=[seen.append]), **SIDE))
    assert [one.is_preview for one in seen] == [False]
    with pytest.raises(BadRequest, match="initial noise"):
        dalle.generate("a car", hooks=Hooks(initial_noise=object()), **SIDE)


@pytest.mark.parametrize(
    "wish",
    [{"steps": 5}, {"sampler": "ddim"}, {"prior": "linear"}, {"rescale": 0.5}, {"threshold": 0.9}, {"prior_steps": 2}],
)
def test_wishes_for_a_denoiser_are_refused_not_ignored(dalle, wish):
    with pytest.raises(BadRequest, match="DALL·E 1 does not read it"):
        dalle.generate("a car", **wish, **SIDE)


def test_what_it_cannot_do_is_refused_at_once(dalle):
    for call in (
        lambda: dalle.blend(picture(), picture()),
        lambda: dalle.morph(picture(), "a car"),
        lambda: dalle.ladder(picture()),
        lambda: dalle.generate("a car", embedding=torch.zeros(1, 4)),
        lambda: dalle.generate("a car", width=65, height=65),
        lambda: dalle.edit(picture(), box="0,0,4,4", mask=np.ones((32, 32), dtype=bool)),
        lambda: Dalle1(replace(dalle.parts, clip=None), dalle.config).generate("a car", rank="clip", **SIDE),
        lambda: Dalle1(replace(dalle.parts, clip=None), dalle.config).embed("a car"),
    ):
        with pytest.raises(BadRequest):
            call()
    without = Dalle1(replace(dalle.parts, clip=None), dalle.config)
    assert without.words.rank_of(Request()) == "likelihood"


def test_parts_that_do_not_speak_one_language_are_refused(dalle):
    with pytest.raises(BadConfig, match="a transformer of words"):
        replace(dalle.parts, tokenizer=type(dalle.parts.tokenizer)(dalle.parts.tokenizer.merges[:-1]))


@pytest.mark.parametrize("wrong", [{"guidance": -1.0}, {"top_p": 0.0}, {"candidates": 0}, {"vary_share": 2.0}])
def test_settings_outside_their_range_are_refused(wrong):
    with pytest.raises(BadConfig):
        Dalle1Config(**wrong)


def test_a_revised_prompt_is_drawn_instead_of_the_prompt(dalle):
    (plain,) = dalle.generate("a blue car", seed=5, **SIDE)
    (revised,) = dalle.generate("a car", revised_prompt="a blue car", rewrite="http", seed=5, **SIDE)
    assert revised.picture.tobytes() == plain.picture.tobytes()
    assert (revised.request.prompt, revised.revised_prompt, plain.revised_prompt) == ("a car", "a blue car", "")
    with pytest.raises(BadRequest, match="DALL·E 1 does not do it"):
        dalle.generate("a car", rewrite="own", **SIDE)
