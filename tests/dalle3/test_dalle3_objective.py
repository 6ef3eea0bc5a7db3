"""The denoiser's objective against the loss as the papers write it, what is hidden, copies, and that it learns."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from opendalle.base.errors import BadConfig
from opendalle.dalle3.denoiser import Denoiser, DenoiserConfig
from opendalle.dalle3.objective import CaptionedGrids, DenoiserLossConfig, DenoiserObjective, SpelledCaptions
from opendalle.dalle3.text_encoder import TextEncoder, TextEncoderConfig, TextStates
from opendalle.dalle3.transformer import LatentTransformerConfig
from opendalle.diffusion.schedules import cosine
from opendalle.tokenizers import ByteTokenizer
from opendalle.training.chance import draw_share, draw_steps
from opendalle.training.config import AdamWConfig, TrainConfig
from opendalle.training.loop import train

SCHEDULE = cosine()
BODY = LatentTransformerConfig(channels=3, text_width=16, width=32, depth=2, heads=4, shares_keys=True, pools_text=True)
CAPTIONS = ["a red apple", "一只猫", "two dogs", "a sign that says HELLO"]


def encoder() -> TextEncoder:
    torch.manual_seed(5)
    config = TextEncoderConfig(vocabulary=384, width=16, depth=1, heads=2, head_width=8, hidden=24)
    return TextEncoder(config).eval().requires_grad_(False)


READ = encoder()


def spelled(captions: list[str], context: int = 32) -> SpelledCaptions:
    packed = ByteTokenizer().pack(captions, context)
    return SpelledCaptions(ids=torch.from_numpy(packed.ids), mask=torch.from_numpy(packed.mask))


def read(captions: list[str], context: int = 32) -> TextStates:
    words = spelled(captions, context)
    return READ(words.ids, words.mask)


def network(**change: Any) -> Denoiser:
    torch.manual_seed(0)
    made = Denoiser(DenoiserConfig(transformer=replace(BODY, **change)))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return made


def objective(denoiser: Denoiser, **change: Any) -> DenoiserObjective:
    return DenoiserObjective(denoiser, SCHEDULE, READ, read([""]), DenoiserLossConfig(**change))


def grids(height: int = 4, width: int = 4) -> Tensor:
    return torch.randn(len(CAPTIONS), 3, height, width, generator=torch.Generator().manual_seed(3))


def chance(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
@pytest.mark.parametrize("min_snr", [None, 5.0])
def test_the_loss_is_what_the_papers_write(prediction: Any, min_snr: float | None) -> None:
    denoiser, x0 = network(), grids(4, 8)
    losses = objective(denoiser, prediction=prediction, caption_drop=0.5, min_snr=min_snr)(
        CaptionedGrids(grid=x0, captions=spelled(CAPTIONS)), chance()
    )
    rng = chance()
    dropped = draw_share(0.5, len(x0), rng)
    t, eps = draw_steps(SCHEDULE, x0, rng)
    assert 0 < int(dropped.sum()) < len(x0)
    errors = []
    for row, caption in enumerate(CAPTIONS):  # one picture at a time, alone
        alpha_bar = SCHEDULE.alpha_bar[t[row]].float()
        alpha, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        x_t = alpha * x0[row] + sigma * eps[row]
        said = "" if dropped[row] else caption
        output = denoiser(x_t[None], t[row : row + 1], read([said]))[0]
        wanted = {"eps": eps[row], "x0": x0[row], "v": alpha * eps[row] - sigma * x0[row]}[prediction]
        error = (output - wanted).square().mean()
        snr = alpha_bar / (1 - alpha_bar)
        weight = {"eps": 1 / snr, "x0": torch.ones(()), "v": 1 / (snr + 1)}[prediction]
        errors.append(error if min_snr is None else error * snr.clamp(max=min_snr) * weight)
    torch.testing.assert_close(losses.total["denoiser"], torch.stack(errors).mean(), rtol=1e-4, atol=1e-5)
    assert losses.watch["hidden"] == dropped.float().mean()


def test_states_that_were_kept_are_as_good_as_captions_to_be_read() -> None:
    denoiser = network()
    batches = [
        CaptionedGrids(grid=grids(), captions=captions, shares={"wide": 1.0})
        for captions in (spelled(CAPTIONS), read(CAPTIONS), read(CAPTIONS, context=64))
    ]
    now, kept, padded = (objective(denoiser, caption_drop=0.3)(one, chance()) for one in batches)
    torch.testing.assert_close(now.total["denoiser"], kept.total["denoiser"], rtol=0, atol=1e-6)
    torch.testing.assert_close(now.total["denoiser"], padded.total["denoiser"], rtol=0, atol=1e-6)
    assert now.watch["wide"] == 1.0


def test_copies_share_a_caption_and_stand_apart() -> None:
    denoiser, x0 = network(), grids()
    losses = objective(denoiser, copies=3, caption_drop=0.0)(
        CaptionedGrids(grid=x0, captions=spelled(CAPTIONS)), chance()
    )
    rng = chance()
    draw_share(0.0, len(x0), rng)
    repeated = x0.repeat_interleave(3, dim=0)
    t, eps = draw_steps(SCHEDULE, repeated, rng, apart=3)
    assert all(sorted(three.div(1000 / 3).floor().tolist()) == [0, 1, 2] for three in t.unflatten(0, (-1, 3)))
    captions = [caption for caption in CAPTIONS for _ in range(3)]
    alpha, sigma = (curve(t).float()[:, None, None, None] for curve in (SCHEDULE.alpha, SCHEDULE.sigma))
    output = denoiser(alpha * repeated + sigma * eps, t, read(captions))
    plain = (output - (alpha * eps - sigma * repeated)).square().mean()
    torch.testing.assert_close(losses.total["denoiser"], plain, rtol=1e-5, atol=1e-6)


def test_steps_of_copies_are_drawn_evenly() -> None:
    t, _ = draw_steps(SCHEDULE, torch.zeros(4_000, 1), chance(), apart=4)
    for copy in range(4):
        counts = torch.histc(t[copy::4].float(), bins=10, min=0, max=1000)
        assert (counts - 100).abs().max() < 40  # four standard deviations of a count


def test_a_learned_variance_has_its_own_loss() -> None:
    batch = CaptionedGrids(grid=grids(), captions=spelled(CAPTIONS))
    losses = objective(network(learns_variance=True))(batch, chance())
    assert losses.total["denoiser"] != losses.watch["simple"]
    with pytest.raises(BadConfig):
        objective(network(learns_variance=True), min_snr=5.0)


def test_it_learns_which_caption_belongs_to_which_picture() -> None:
    denoiser = network()
    batch = CaptionedGrids(grid=grids(), captions=spelled(CAPTIONS))

    def batches(position: int) -> Any:
        while True:
            yield batch

    config = TrainConfig(pictures=4 * 60, batch_size=4, optimiser=AdamWConfig(learning_rate=1e-2), precision="float32")
    goal = objective(denoiser, prediction="x0", copies=4, caption_drop=0.0)
    steps = list(train(goal, batches, config))
    assert steps[-1].losses["denoiser"] < 0.5 * steps[0].losses["denoiser"]
    noise, last = torch.randn(4, 3, 4, 4, generator=chance()), torch.full((4,), 999)
    with torch.no_grad():
        drawn = denoiser(noise, last, read(CAPTIONS))  # from noise alone: all that is known is the caption
    nearest = torch.cdist(drawn.flatten(1), grids().flatten(1)).argmin(1)
    assert nearest.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("bad", [{"caption_drop": 1.0}, {"copies": 0}, {"min_snr": 0.0}])
def test_bad_configs_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(BadConfig):
        DenoiserLossConfig(**bad)
