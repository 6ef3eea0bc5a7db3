"""Codecs: shapes, the posterior's divergence against torch's own, and a grid of unit spread."""

import json

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from opendalle.base.errors import BadConfig
from opendalle.checkpoint.configs import from_plain, to_plain
from opendalle.codec.identity import IdentityCodec, IdentityCodecConfig
from opendalle.codec.kl import KLAutoencoder, KLAutoencoderConfig, Posterior

TINY = KLAutoencoderConfig(picture_size=16, widths=(32, 64), grid_channels=3, decoder_depth=1)


def tiny(seed: int = 0) -> KLAutoencoder:
    """A small codec whose every weight matters."""
    torch.manual_seed(seed)
    codec = KLAutoencoder(TINY)
    with torch.no_grad():
        for weight in codec.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    return codec


def test_identity_changes_nothing_but_what_lies_outside_the_range() -> None:
    codec = IdentityCodec(IdentityCodecConfig(picture_size=8))
    pictures = torch.rand(2, 3, 8, 8) * 2 - 1
    assert torch.equal(codec.decode(codec.encode(pictures)), pictures)
    assert codec.decode(torch.full((1, 3, 2, 2), 7.0)).max() == 1
    assert (codec.factor, codec.grid_channels) == (1, 3)


def test_the_grid_has_the_promised_shape() -> None:
    codec = tiny()
    grid = codec.encode(torch.zeros(2, 4, 16, 32))
    assert codec.factor == 8
    assert grid.shape == (2, 3, 2, 4)
    assert codec.decode(grid).shape == (2, 4, 16, 32)


def test_the_bundled_preset_is_64_px_to_8_by_8_by_8() -> None:
    config = KLAutoencoderConfig()
    assert (config.factor, config.picture_size // config.factor, config.grid_channels) == (8, 8, 8)


def test_after_measuring_the_grid_has_zero_mean_and_unit_spread() -> None:
    codec, pictures = tiny(), torch.rand(8, 4, 16, 16) * 2 - 1
    before = codec.draw(codec.posterior(pictures).mean).clamp(-1, 1)
    codec.measure_grid(pictures)
    grid = codec.encode(pictures)
    torch.testing.assert_close(grid.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(grid.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(codec.decode(grid), before, atol=1e-5, rtol=1e-5)


def test_the_divergence_is_that_of_torch() -> None:
    posterior = Posterior(torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4))
    q = Normal(posterior.mean, (0.5 * posterior.log_variance).exp())
    expected = kl_divergence(q, Normal(torch.zeros(()), torch.ones(()))).mean()
    torch.testing.assert_close(posterior.kl(), expected)


def test_a_posterior_draws_with_its_own_mean_and_spread() -> None:
    posterior = Posterior(
        torch.full((1, 1, 100, 100), 2.0), torch.full((1, 1, 100, 100), 2 * torch.log(torch.tensor(0.5)).item())
    )
    drawn = posterior.sample(torch.Generator().manual_seed(0))
    assert abs(drawn.mean().item() - 2) < 0.02
    assert abs(drawn.std().item() - 0.5) < 0.02
    assert torch.equal(drawn, posterior.sample(torch.Generator().manual_seed(0)))


def test_a_config_survives_json() -> None:
    assert from_plain(KLAutoencoderConfig, json.loads(json.dumps(to_plain(TINY)))) == TINY


@pytest.mark.parametrize(
    "wrong",
    [
        {"picture_channels": 5},
        {"grid_channels": 0},
        {"patch": 0},
        {"widths": ()},
        {"widths": (33,)},
        {"encoder_depth": 0},
        {"decoder_depth": 0},
        {"picture_size": 60},
    ],
)
def test_bad_configs_say_so(wrong: dict) -> None:
    with pytest.raises(BadConfig):
        KLAutoencoderConfig(**wrong)
