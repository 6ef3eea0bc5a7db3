"""Multistep consistency sampling: equal to a plain loop, and exact where the answer is."""

import pytest
import torch
from torch import Tensor

from opendalle.base.errors import BadRequest
from opendalle.base.protocols import Denoised
from opendalle.base.rng import normal_like_rows, picture_generator
from opendalle.codec.consistency import ConsistencyDecoder, ConsistencyDecoderConfig
from opendalle.diffusion.predictions import eps_beside, to_denoised
from opendalle.diffusion.process import q_sample
from opendalle.diffusion.schedules import cosine
from opendalle.nn.unet import UNetConfig, UNetLevel
from opendalle.samplers.sample import last_state, sample

SCHEDULE = cosine(1000)


def smooth(x_t: Tensor, t: Tensor) -> Denoised:
    return Denoised(torch.tanh(x_t) * 0.7 + t[:, None] * 1e-4, torch.sin(x_t))


def test_it_equals_a_plain_loop() -> None:
    grid, seeds = (999, 499, 249), [3, 4]
    generators = [picture_generator(seed) for seed in seeds]
    x_t = normal_like_rows(generators, (5,))
    drawn = last_state(sample(smooth, x_t, grid, schedule=SCHEDULE, sampler="consistency", generators=generators)).x_t
    for row, seed in enumerate(seeds):
        generator = picture_generator(seed)
        x = x0 = torch.randn(5, generator=generator)[None]
        for i, t in enumerate(grid):
            x0 = smooth(x, torch.tensor([t])).x0
            if i < 2:
                x = q_sample(x0, torch.tensor([grid[i + 1]]), torch.randn(5, generator=generator)[None], SCHEDULE)
        torch.testing.assert_close(drawn[row], x0[0])


def test_with_the_exact_answer_every_number_of_steps_draws_the_data() -> None:
    """Of data N(0.4, 0.5^2) the path's end is known: then each step, noised anew, is a sample of its own."""
    count = 20_000

    def answer(x_t: Tensor, t: Tensor) -> Denoised:
        alpha, sigma = SCHEDULE.alpha(t)[:, None], SCHEDULE.sigma(t)[:, None]
        x0 = 0.4 + 0.5 * (x_t - alpha * 0.4) / (alpha**2 * 0.25 + sigma**2).sqrt()
        return Denoised(x0, eps_beside(x0, x_t, t, SCHEDULE))

    for grid in ((999,), (999, 499), (999, 749, 499, 249)):
        generators = [picture_generator(0)]
        x_t = torch.randn(1, count, generator=generators[0], dtype=torch.float64)
        x0 = last_state(sample(answer, x_t, grid, schedule=SCHEDULE, sampler="consistency", generators=generators)).x_t
        assert float(x0.mean()) == pytest.approx(0.4, abs=0.015)  # four standard errors
        assert float(x0.std()) == pytest.approx(0.5, abs=0.01)


def test_the_consistency_decoder_walks_as_this_sampler_does() -> None:
    unet = UNetConfig(
        in_channels=6, out_channels=3, levels=(UNetLevel(width=8, num_blocks=1),), time_width=8, middle="none",
        norm_groups=4,
    )  # fmt: skip
    torch.manual_seed(0)
    config = ConsistencyDecoderConfig(unet=unet, picture_size=8, grid_mean=(0.0,) * 3, grid_std=(1.0,) * 3, factor=1)
    decoder = ConsistencyDecoder(config).eval()
    for weight in decoder.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    grid = torch.randn(1, 3, 8, 8)
    features = decoder.features(grid)

    def denoise(x: Tensor, t: Tensor) -> Denoised:
        return to_denoised("x0", decoder.answer(x, t, features).clamp(-1, 1), x, t, decoder.schedule)

    ours = decoder.decode(grid, [picture_generator(2)])
    generators = [picture_generator(2)]
    first, *rest = decoder.config.steps
    x_t = decoder.schedule.sigma(torch.tensor([first])).float() * normal_like_rows(generators, (3, 8, 8))
    walk = sample(denoise, x_t, (first, *rest), schedule=decoder.schedule, sampler="consistency", generators=generators)
    torch.testing.assert_close(last_state(walk).x_t, ours, atol=1e-5, rtol=1e-5)


def test_without_generators_it_is_refused() -> None:
    with pytest.raises(BadRequest, match="draws noise"):
        sample(smooth, torch.zeros(1, 5), (999, 499), schedule=SCHEDULE, sampler="consistency")
