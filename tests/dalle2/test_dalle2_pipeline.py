"""The pipeline: what is asked is what comes, each picture is its own, and nothing is drawn before it is asked for."""

import itertools
import json
import time
from dataclasses import asdict

import numpy as np
import pytest
import torch

from opendalle.base.errors import BadRequest
from opendalle.base.jobs import keeps_transparency, preview_steps
from opendalle.base.protocols import Hooks, Pipeline
from opendalle.base.request import Request
from opendalle.base.rng import normal_like_rows, picture_generator
from opendalle.dalle2.parts import Dalle2Config
from opendalle.dalle2.pipeline import Dalle2
from opendalle.samplers.settings import StageSettings

SMALL = {"width": 16, "height": 16}


def pixels(sample: object) -> np.ndarray:
    """A sample's picture as numbers."""
    return np.asarray(sample.picture, dtype=int)  # type: ignore[attr-defined]


def test_it_is_a_pipeline(dalle: Dalle2) -> None:
    assert isinstance(dalle, Pipeline)
    assert dalle.sizes == (16, 64)


def test_count_seeds_and_recipe(dalle: Dalle2) -> None:
    samples = list(dalle.generate("a red apple", count=3, seed=40, batch=2, width=64, height=64))
    assert [(sample.index, sample.seed) for sample in samples] == [(0, 40), (1, 41), (2, 42)]
    assert all(sample.picture.size == (64, 64) and sample.picture.mode == "RGB" for sample in samples)
    recipe = json.loads(json.dumps(samples[2].recipe))
    again = Request(**recipe["request"])
    assert again == samples[2].request
    assert recipe["model"] == "tiny"


@pytest.mark.parametrize("knobs", [{}, {"sampler": "ddpm"}, {"eta": 0.7}, {"guidance": 1.0}, {"exact": True}])
def test_the_same_request_draws_the_same_bytes(dalle: Dalle2, knobs: dict) -> None:
    first, second = (list(dalle.generate("a red apple", count=2, seed=3, **SMALL, **knobs)) for _ in range(2))
    assert [sample.picture.tobytes() for sample in first] == [sample.picture.tobytes() for sample in second]
    assert first[0].picture.tobytes() != first[1].picture.tobytes()


@pytest.mark.parametrize("knobs", [{}, {"sampler": "ddpm"}, {"eta": 1.0}])
def test_a_picture_is_the_same_alone_and_in_company(dalle: Dalle2, knobs: dict) -> None:
    together = list(dalle.generate("a red apple", count=4, seed=0, background="transparent", **SMALL, **knobs))
    for k in range(4):
        (alone,) = dalle.generate("a red apple", seed=k, background="transparent", **SMALL, **knobs)
        assert (np.abs(pixels(alone) - pixels(together[k])) > 1).mean() <= 0.001
    exact = list(dalle.generate("a red apple", count=4, seed=0, exact=True, **SMALL, **knobs))
    (alone,) = dalle.generate("a red apple", seed=3, exact=True, **SMALL, **knobs)
    assert exact[3].picture.tobytes() == alone.picture.tobytes()


def test_many_prompts_at_once_are_each_prompt_alone(dalle: Dalle2) -> None:
    prompts, seeds = ["a red apple", "红苹果", "", "a blue car"], [5, 6, 5, 5]
    many = list(dalle.generate_many(prompts, seeds, background="transparent", **SMALL))
    for prompt, seed, sample in zip(prompts, seeds, many, strict=True):
        (alone,) = dalle.generate(prompt, seed=seed, background="transparent", **SMALL)
        assert sample.request.prompt == prompt
        assert (np.abs(pixels(alone) - pixels(sample)) > 1).mean() <= 0.001


@pytest.mark.parametrize("asked", [{"count": 2}, {}])
def test_many_prompts_want_one_seed_and_one_picture_each(dalle: Dalle2, asked: dict) -> None:
    with pytest.raises(BadRequest, match="one seed a prompt"):
        dalle.generate_many(["a red apple"], [5] if asked else [5, 6], **SMALL, **asked)


def test_time_spent_with_a_preview_is_not_the_decoders(dalle: Dalle2) -> None:
    seen = []
    for sample in dalle.generate("a red apple", previews=1, **SMALL):
        seen.append(sample)
        time.sleep(0.5)
    assert [sample.is_preview for sample in seen] == [True, False]
    assert sum(seen[-1].seconds.values()) < 0.5


def test_the_kept_embedding_is_the_nearest_candidate(dalle: Dalle2) -> None:
    request = Request(prompt="a red apple", candidates=5)
    prompted, empty = dalle.cascade.read(["a red apple"]), dalle.cascade.read([""])
    kept = dalle.cascade.imagine(prompted, empty, [picture_generator(9)], request)
    generator = picture_generator(9)
    nearest = None
    noise = normal_like_rows([generator], (5, 16))[0]
    for one in noise:
        start = iter([one[None]])
        single = _imagine_from(dalle, next(start), prompted)
        score = float((single * prompted.text.pooled).sum())
        nearest = max(nearest, (score, single), key=lambda pair: pair[0]) if nearest else (score, single)
    assert nearest is not None
    torch.testing.assert_close(kept, nearest[1], atol=1e-5, rtol=1e-5)


def _imagine_from(dalle: Dalle2, noise: torch.Tensor, prompted: object) -> torch.Tensor:
    """The prior's DDIM by hand, one embedding, all tokens computed anew at each step."""
    schedule, prior = dalle.config.prior.make_schedule(), dalle.parts.prior
    grid = (*dalle.config.prior.grid(schedule, None), -1)
    x = noise
    for t, s in itertools.pairwise(grid):
        step = torch.tensor([t])
        x0 = prior(x, step, prompted.text.pooled, prompted.text.states, prompted.mask).clamp(-5, 5)  # type: ignore[attr-defined]
        before = torch.tensor([s])
        unclipped = prior(x, step, prompted.text.pooled, prompted.text.states, prompted.mask)  # type: ignore[attr-defined]
        eps = (x - schedule.alpha(step) * unclipped) / schedule.sigma(step)
        x = (schedule.alpha(before) * x0 + schedule.sigma(before) * eps).float()
    z = prior.denormalise(x)
    return z / z.norm(dim=-1, keepdim=True)


def test_guidance_one_never_runs_the_unconditional_half(dalle: Dalle2) -> None:
    rows = []
    inner = dalle.parts.decoder.forward
    dalle.parts.decoder.forward = lambda x, *a, **k: rows.append(len(x)) or inner(x, *a, **k)  # type: ignore[method-assign]
    list(dalle.generate("a red apple", guidance=1.0, **SMALL))
    assert set(rows) == {1}
    rows.clear()
    list(dalle.generate("a red apple", guidance=2.0, **SMALL))
    assert set(rows) == {2}


def test_the_empty_prompt_is_the_unconditional_model(dalle: Dalle2) -> None:
    rows = []
    inner = dalle.parts.decoder.forward
    dalle.parts.decoder.forward = lambda x, *a, **k: rows.append(len(x)) or inner(x, *a, **k)  # type: ignore[method-assign]
    (sample,) = dalle.generate("", **SMALL)
    assert sample.picture.size == (16, 16)
    assert set(rows) == {1}  # nothing to push away from


@pytest.mark.parametrize(
    "wrong", [{"width": 100, "height": 100}, {"width": 64, "height": 16}, {"steps": 1001}, {"count": 0}]
)
def test_impossible_requests_fail_before_any_work(dalle: Dalle2, wrong: dict) -> None:
    dalle.parts.clip.encode_text = None  # type: ignore[assignment]
    with pytest.raises(BadRequest):
        dalle.generate("a red apple", **({"width": 64, "height": 64} | wrong))


def test_hooks_bring_noise_and_guards(dalle: Dalle2) -> None:
    seen = []
    hooks = Hooks(initial_noise=lambda generators, shape: torch.zeros(len(generators), *shape), guards=(seen.append,))
    first, second = (next(dalle.generate("a red apple", seed=k, hooks=hooks, prior_steps=1, **SMALL)) for k in (1, 1))
    assert [sample.seed for sample in seen] == [1, 1]
    assert first.picture.tobytes() == second.picture.tobytes()


def test_backgrounds(dalle: Dalle2) -> None:
    modes = {
        background: next(dalle.generate("a red apple", background=background, **SMALL)).picture.mode
        for background in ("auto", "white", "transparent")
    }
    assert modes == {"auto": "RGB", "white": "RGB", "transparent": "RGBA"}
    assert keeps_transparency(Request(prompt="an apple sticker"))
    assert keeps_transparency(Request(prompt="苹果，透明背景"))
    assert not keeps_transparency(Request(prompt="an apple sticker", background="white"))


def test_preview_steps_are_even_and_never_the_last() -> None:
    assert preview_steps(0, 20) == frozenset()
    assert preview_steps(3, 20) == {5, 10, 15}
    assert preview_steps(99, 5) == {1, 2, 3, 4}


def test_settings_survive_json() -> None:
    from opendalle.checkpoint.configs import from_plain

    config = Dalle2Config(prior=StageSettings(prediction="x0"), decoder=StageSettings(), upsampler=None)
    assert from_plain(Dalle2Config, json.loads(json.dumps(asdict(config)))) == config


def test_a_revised_prompt_is_drawn_instead_of_the_prompt(dalle):
    (plain,) = dalle.generate("a blue car", seed=5, **SMALL)
    (revised,) = dalle.generate("a car", revised_prompt="a blue car", rewrite="http", seed=5, **SMALL)
    assert revised.picture.tobytes() == plain.picture.tobytes()
    assert (revised.request.prompt, revised.revised_prompt, plain.revised_prompt) == ("a car", "a blue car", "")
    with pytest.raises(BadRequest, match="DALL·E 2 does not do it"):
        dalle.generate("a car", rewrite="own", **SMALL)
