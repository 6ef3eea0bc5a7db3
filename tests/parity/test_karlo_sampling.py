"""Karlo's three walks from noise, and the whole cascade: the same noise ends in the same picture.

Both sides draw from generators of the same seeds, one a picture, in the same order: first noise, then the noise of each
step but the last, stage after stage.  So nothing needs to be injected, and the order itself is under test.

Each walk is compared twice.  In float64 the formulas must agree to 1e-9.  In float32 the decoder's walk is badly
conditioned: at t = 999 a rounding error in eps counts 20,000-fold in x0, and guidance multiplies it by eight more.
Clipping hides that wherever x0 lies outside its range, which with these seeds is everywhere at that step; what rounding
leaves after it must stay below 1e-4.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers.pipelines.deprecated.unclip.pipeline_unclip import UnCLIPPipeline
from diffusers.schedulers.scheduling_unclip import UnCLIPScheduler
from torch import Generator, Tensor

from opendalle.base.request import Request
from opendalle.base.rng import normal_like_rows, picture_generator
from opendalle.clip.model import CLIP, CLIPConfig, TextEncoding
from opendalle.codec.identity import IdentityCodec, IdentityCodecConfig
from opendalle.dalle2.parts import Dalle2Parts, Latent, Prompted
from opendalle.dalle2.pipeline import Dalle2
from opendalle.diffusion.grids import karlo as karlo_grid
from opendalle.diffusion.schedules import cosine
from opendalle.pretrained.maps.karlo_configs import pipeline_config
from opendalle.samplers.course import SamplerOptions
from opendalle.samplers.guided import GuidedDenoise
from opendalle.samplers.sample import last_state, sample
from opendalle.tokenizers.bpe import BytePairTokenizer
from opendalle.upsampling.network import Upsampler

SCHEDULERS = {
    "prior": {"prediction_type": "sample", "variance_type": "fixed_small_log", "clip_sample_range": 5.0},
    "decoder": {"prediction_type": "epsilon", "variance_type": "learned_range", "clip_sample_range": 1.0},
    "super_res": {"prediction_type": "epsilon", "variance_type": "fixed_small_log", "clip_sample_range": 1.0},
}
SCHEDULE = cosine(1000)
PRECISIONS = [(torch.float64, 1e-9), (torch.float32, 1e-4)]


class TwoUpsamplers(Upsampler):
    """Karlo's two super-resolution networks as one: the second answers at the last step of every grid, which is 0."""

    def __init__(self, first: Upsampler, last: Upsampler) -> None:
        super().__init__(first.config)
        self.unet, self.last = first.unet, last

    def forward(self, x_t: Tensor, t: Tensor, enlarged: Tensor) -> Tensor:
        return self.last(x_t, t, enlarged) if bool((t == 0).all()) else super().forward(x_t, t, enlarged)


def generators(count: int = 2) -> list[Generator]:
    return [picture_generator(11 + k) for k in range(count)]


def scheduler_of(which: str) -> UnCLIPScheduler:
    """The published scheduler, its tables in float64.

    Its own are float32, where 1 - (1 - beta_0) misses beta_0 by 5e-4 of itself: every finished picture comes out
    scaled by 0.99947, a seventh of an eight-bit step at most.  What is compared here are the formulas.
    """
    scheduler = UnCLIPScheduler(**SCHEDULERS[which])
    scheduler.alphas_cumprod = SCHEDULE.alpha_bar
    scheduler.alphas = SCHEDULE.alpha_bar / torch.cat([torch.ones(1, dtype=torch.float64), SCHEDULE.alpha_bar[:-1]])
    scheduler.betas = 1 - scheduler.alphas
    return scheduler


def their_walk(which: str, steps: int, x: Tensor, rng: Sequence[Generator], ask: Any) -> Tensor:
    """The library's loop: the scheduler is told which step comes next."""
    scheduler = scheduler_of(which)
    scheduler.set_timesteps(steps)
    for i, t in enumerate(scheduler.timesteps):
        before = None if i + 1 == steps else scheduler.timesteps[i + 1]
        drawn: Any = scheduler.step(ask(x, t, i), t, x, prev_timestep=before, generator=list(rng))
        x = drawn.prev_sample
    return x


def our_walk(denoise: GuidedDenoise, steps: int, x: Tensor, rng: Sequence[Generator], variance: Any) -> Tensor:
    grid, options = karlo_grid(1000, steps), SamplerOptions(variance=variance)
    walk = sample(denoise, x, grid, schedule=SCHEDULE, sampler="ddpm", options=options, generators=rng)
    return last_state(walk).x_t


def close(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.fixture(autouse=True)
def noise_of_any_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Theirs draws float64 numbers for float64 data, which are others; ours draws float32 and widens."""

    def draw(shape: Sequence[int], generator: list[Generator], device: Any, dtype: torch.dtype, **_: Any) -> Tensor:
        return normal_like_rows(generator, shape[1:]).to(dtype)

    monkeypatch.setattr("diffusers.schedulers.scheduling_unclip.randn_tensor", draw)


def both_halves(empty, captions, dtype: torch.dtype) -> list[Tensor]:
    """Pooled, states and mask of theirs: the unconditional half first."""
    pairs = [torch.cat([getattr(empty, one), getattr(captions, one)]) for one in ("pooled", "states", "mask")]
    return [*(one.to(dtype) for one in pairs[:2]), pairs[2]]


def read(network: Any, said, dtype: torch.dtype, *before: Tensor, **knobs: Any) -> dict[str, Any]:
    """A caption as one of our networks has read it."""
    return {
        "conditioning": network.condition(*before, said.pooled.to(dtype), said.states.to(dtype), said.mask, **knobs)
    }


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("steps", [3, 7])
def test_the_priors_walk(karlo, captions, empty, steps: int, dtype: torch.dtype, tolerance: float) -> None:
    prior, theirs = (deepcopy(one).to(dtype) for one in (karlo.prior, karlo.theirs.prior))
    start = normal_like_rows(generators(), (32,)).to(dtype)
    pooled, states, mask = both_halves(empty, captions, dtype)

    def ask(x: Tensor, t: Tensor, i: int) -> Tensor:
        both = theirs(torch.cat([x, x]), t, pooled, states, mask).predicted_image_embedding
        without, with_caption = both.chunk(2)
        return without + 4.0 * (with_caption - without)

    denoise = GuidedDenoise(
        prior.step,
        read(prior, captions, dtype),
        read(prior, empty, dtype),
        schedule=SCHEDULE,
        prediction="x0",
        scale=4.0,
        clip=(-5.0, 5.0),
    )
    ours = our_walk(denoise, steps, start, generators(), "fixed-small")
    close(ours, their_walk("prior", steps, start, generators(), ask), tolerance)


@pytest.mark.parametrize(("dtype", "tolerance", "steps"), [(*PRECISIONS[0], 5), (*PRECISIONS[1], 3)])
def test_the_decoders_walk(karlo, captions, empty, steps: int, dtype: torch.dtype, tolerance: float) -> None:
    decoder, theirs, text_proj = (
        deepcopy(one).to(dtype) for one in (karlo.decoder, karlo.theirs.decoder, karlo.theirs.text_proj)
    )
    start = normal_like_rows(generators(), (3, 16, 16)).to(dtype)
    z = torch.randn(2, 32, generator=torch.Generator().manual_seed(3)).to(dtype)
    pooled, states, mask = both_halves(empty, captions, dtype)
    context, embedding = text_proj(
        image_embeddings=z, prompt_embeds=pooled, text_encoder_hidden_states=states, do_classifier_free_guidance=True
    )
    seen = torch.nn.functional.pad(mask, (4, 0), value=True)

    def ask(x: Tensor, t: Tensor, i: int) -> Tensor:
        both = theirs(torch.cat([x, x]), t, context, class_labels=embedding, attention_mask=seen).sample
        without, with_prompt = both[:, :3].chunk(2)
        values = both[2:, 3:]  # the variance is the conditional half's
        return torch.cat([without + 8.0 * (with_prompt - without), values], 1)

    denoise = GuidedDenoise(
        decoder,
        read(decoder, captions, dtype, z),
        read(decoder, empty, dtype, z, has_embedding=torch.zeros(2, dtype=torch.bool)),
        schedule=SCHEDULE,
        prediction="eps",
        scale=8.0,
        clip=(-1.0, 1.0),
        learned_variance=True,
        grid=karlo_grid(1000, steps),
    )
    ours = our_walk(denoise, steps, start, generators(), "learned")
    close(ours, their_walk("decoder", steps, start, generators(), ask), tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_super_resolutions_walk_ends_with_another_network(karlo, dtype: torch.dtype, tolerance: float) -> None:
    first, last, theirs_first, theirs_last = (
        deepcopy(one).to(dtype)
        for one in (karlo.first, karlo.last, karlo.theirs.super_res_first, karlo.theirs.super_res_last)
    )
    start = normal_like_rows(generators(), (3, 32, 32)).to(dtype)
    small = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(4)) * 2 - 1
    enlarged = first.condition(small.to(dtype))

    def ask(x: Tensor, t: Tensor, i: int) -> Tensor:
        return (theirs_last if i == 6 else theirs_first)(torch.cat([x, enlarged], 1), t).sample

    both = TwoUpsamplers(first, last)
    denoise = GuidedDenoise(both, {"enlarged": enlarged}, schedule=SCHEDULE, clip=(-1.0, 1.0))
    ours = our_walk(denoise, 7, start, generators(), "fixed-small")
    close(ours, their_walk("super_res", 7, start, generators(), ask), tolerance)
    t = torch.zeros(2, dtype=torch.long)
    assert (first(start, t, enlarged) - both(start, t, enlarged)).abs().max() > 0.1  # it matters who is asked


class TheirPipeline(UnCLIPPipeline):
    """The published cascade, handed what CLIP says; the unconditional half first."""

    said: tuple[Tensor, Tensor, Tensor]

    def _encode_prompt(self, *_: Any, **__: Any) -> tuple[Tensor, Tensor, Tensor]:
        return self.said


def their_picture(karlo, captions, empty) -> Tensor:
    """Run the published pipeline; pictures in [0, 1]."""
    theirs = karlo.theirs
    pipeline = TheirPipeline(
        **vars(theirs),
        text_encoder=None,  # pyright: ignore[reportArgumentType]
        tokenizer=None,  # pyright: ignore[reportArgumentType]
        prior_scheduler=scheduler_of("prior"),
        decoder_scheduler=scheduler_of("decoder"),
        super_res_scheduler=scheduler_of("super_res"),
    )
    pipeline.set_progress_bar_config(disable=True)
    pooled, states, mask = both_halves(empty, captions, torch.float32)
    pipeline.said = pooled, states, mask
    drawn: Any = pipeline(
        prompt=["one", "two"],
        prior_num_inference_steps=4,
        decoder_num_inference_steps=3,
        super_res_num_inference_steps=7,
        generator=generators(),
        output_type="np",
    )
    return torch.from_numpy(drawn.images).permute(0, 3, 1, 2)


def our_pipeline(karlo) -> Dalle2:
    """The house's own cascade over Karlo's networks; CLIP and tokenizer only fill their places."""
    clip = CLIPConfig(
        embed=32,
        vocab=300,
        context=12,
        text_width=32,
        text_depth=1,
        text_heads=1,
        size=16,
        patch=16,
        channels=3,
        picture_width=32,
        picture_depth=1,
        picture_heads=1,
    )
    parts = Dalle2Parts(
        tokenizer=BytePairTokenizer.train(["a b"], 260),
        clip=CLIP(clip),
        prior=karlo.prior,
        decoder=karlo.decoder,
        codec=IdentityCodec(IdentityCodecConfig(picture_size=16)),
        upsampler=TwoUpsamplers(karlo.first, karlo.last),
    )
    config = pipeline_config(*(UnCLIPScheduler(**one).config for one in SCHEDULERS.values()))
    config = replace(config, prior=replace(config.prior, steps=4), decoder=replace(config.decoder, steps=3))
    return Dalle2(parts, config)


def test_the_whole_cascade(karlo, captions, empty) -> None:
    """Prior, decoder and both super-resolution networks, 14 steps in all, one stream of noise a picture."""
    dalle, rng = our_pipeline(karlo), generators()
    request = Request(prompt="anything", width=32, height=32)
    prompted, nothing = (
        Prompted(
            TextEncoding(pooled=one.pooled, raw=one.pooled, states=one.states, words=one.states),
            one.mask,
            torch.zeros(len(one.pooled), dtype=torch.bool),
        )
        for one in (captions, empty)
    )
    with torch.no_grad():
        z = dalle.cascade.imagine(prompted, nothing, rng, request)
        small = last_state(dalle.cascade.denoise(Latent(z), prompted, nothing, rng, request)).x_t
        pictures = dalle.cascade.upsample(dalle.parts.codec.decode(small), rng)
    close(pictures / 2 + 0.5, their_picture(karlo, captions, empty), 1e-4)
