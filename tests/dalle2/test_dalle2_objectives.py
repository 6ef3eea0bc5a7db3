"""Training of prior and decoder: the losses against plain versions, and the shares of what is dropped."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from opendalle.base.errors import BadConfig
from opendalle.dalle2.decoder import Decoder
from opendalle.dalle2.decoder_objective import DecoderLossConfig, DecoderObjective
from opendalle.dalle2.objectives import (
    PairBatch,
    PriorLossConfig,
    PriorObjective,
    draw_steps,
    without_captions,
    without_common_padding,
)
from opendalle.dalle2.pipeline import Dalle2
from opendalle.diffusion.process import q_sample
from opendalle.diffusion.schedules import cosine
from opendalle.training.chance import draw_share

SCHEDULE = cosine(50)


def batch_of(dalle: Dalle2, size: int = 6) -> PairBatch:
    """Random pairs with real captions."""
    packed = dalle.parts.tokenizer.pack(["a red apple", "a blue car", "红"] * (size // 3), 12)
    z = torch.nn.functional.normalize(torch.randn(size, 16), dim=-1)
    return PairBatch(
        z=z, ids=torch.from_numpy(packed.ids), mask=torch.from_numpy(packed.mask), grid=torch.randn(size, 3, 2, 2)
    )


def empty_of(dalle: Dalle2) -> tuple[Tensor, Tensor]:
    """The empty caption."""
    packed = dalle.parts.tokenizer.pack([""], 12)
    return torch.from_numpy(packed.ids)[0], torch.from_numpy(packed.mask)[0]


def reader(dalle: Dalle2) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The frozen text tower as the objectives want it."""

    def read(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        text = dalle.parts.clip.encode_text(ids, mask)
        return text.pooled, text.states

    return read


def test_the_priors_loss_is_the_squared_error_of_the_clean_embedding(dalle: Dalle2) -> None:
    batch, prior = batch_of(dalle), dalle.parts.prior
    objective = PriorObjective(prior, SCHEDULE, reader(dalle), empty_of(dalle), PriorLossConfig(caption_drop=0.0))
    losses = objective(batch, torch.Generator().manual_seed(1))
    rng = torch.Generator().manual_seed(1)
    draw_share(0.0, 6, rng)
    x0 = prior.normalise(batch.z)
    t, eps = draw_steps(SCHEDULE, x0, rng)
    pooled, states = reader(dalle)(batch.ids, batch.mask)
    predicted = prior(q_sample(x0, t, eps, SCHEDULE), t, pooled, states, batch.mask)
    torch.testing.assert_close(losses.total["prior"], (predicted - x0).square().mean())


def test_a_dropped_caption_is_the_empty_caption_and_nothing_else_changes(dalle: Dalle2) -> None:
    batch, empty = batch_of(dalle), empty_of(dalle)
    before = batch.ids.clone()
    dropped = torch.tensor([True, False] * 3)
    ids, mask = without_captions(batch, dropped, empty)
    assert torch.equal(ids[0], empty[0])
    assert torch.equal(mask[0], empty[1])
    assert torch.equal(ids[1], batch.ids[1])
    assert torch.equal(batch.ids, before)


def test_padding_that_all_captions_share_changes_nothing_but_the_time(dalle: Dalle2) -> None:
    batch, decoder = batch_of(dalle), dalle.parts.decoder
    ids, mask = without_common_padding(batch.ids, batch.mask)
    assert ids.shape[1] == int(batch.mask.sum(1).max()) < batch.ids.shape[1]
    x, t = torch.randn(6, 3, 2, 2), torch.arange(6)
    with torch.no_grad():
        short = decoder(x, t, decoder.condition(batch.z, *reader(dalle)(ids, mask), mask))
        whole = decoder(x, t, decoder.condition(batch.z, *reader(dalle)(batch.ids, batch.mask), batch.mask))
    torch.testing.assert_close(short, whole, atol=1e-5, rtol=1e-5)


def test_shares_are_what_they_say_and_independent() -> None:
    rng = torch.Generator().manual_seed(0)
    pictures, captions = draw_share(0.1, 40_000, rng), draw_share(0.5, 40_000, rng)
    assert abs(pictures.float().mean().item() - 0.1) < 0.01
    assert abs(captions.float().mean().item() - 0.5) < 0.01
    assert abs((pictures & captions).float().mean().item() - 0.05) < 0.006  # the paper's 5 % is both at once


@pytest.mark.parametrize("config", [DecoderLossConfig(), DecoderLossConfig(prediction="v", min_snr=5.0)])
def test_the_decoders_loss_is_finite_and_reaches_every_weight(dalle: Dalle2, config: DecoderLossConfig) -> None:
    decoder = dalle.parts.decoder.requires_grad_(True)
    objective = DecoderObjective(decoder, SCHEDULE, reader(dalle), empty_of(dalle), config)
    losses = objective(batch_of(dalle, 48), torch.Generator().manual_seed(0))
    losses.total["decoder"].backward()
    assert torch.isfinite(losses.total["decoder"])
    without = [name for name, weight in decoder.named_parameters() if weight.grad is None]
    assert without == []
    assert decoder.null_embedding.grad is not None
    assert decoder.null_embedding.grad.abs().sum() > 0


def test_a_learned_variance_trains_by_the_hybrid_loss_and_stays_finite(dalle: Dalle2) -> None:
    decoder = Decoder(dalle.parts.decoder.config.learning_variance())
    objective = DecoderObjective(decoder, SCHEDULE, reader(dalle), empty_of(dalle), DecoderLossConfig())
    losses = objective(batch_of(dalle), torch.Generator().manual_seed(0))
    losses.total["decoder"].backward()
    assert torch.isfinite(losses.total["decoder"])
    assert losses.total["decoder"].item() != losses.watch["simple"]
    with pytest.raises(BadConfig, match="min_snr"):
        DecoderObjective(decoder, SCHEDULE, reader(dalle), empty_of(dalle), DecoderLossConfig(min_snr=5.0))


@pytest.mark.parametrize(
    "wrong", [{"embedding_drop": 1.1}, {"caption_drop": -0.1}, {"min_snr": 0.0}, {"embedding_noise": -1.0}]
)
def test_bad_configs_say_so(wrong: dict) -> None:
    with pytest.raises(BadConfig):
        DecoderLossConfig(**wrong)
