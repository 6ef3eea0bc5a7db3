"""The published autoencoder's layout and the consistency decoder: constants, promises, strips against the whole."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from opendalle.base.errors import BadConfig, BadRequest
from opendalle.base.rng import picture_generator
from opendalle.checkpoint.configs import from_plain, to_plain
from opendalle.checkpoint.folder import Part, write_model
from opendalle.codec.consistency import (
    CONSISTENCY_PRESETS,
    ConsistencyCodec,
    ConsistencyDecoder,
    ConsistencyDecoderConfig,
    boundary_scales,
)
from opendalle.codec.convolutional import ConvolutionalConfig
from opendalle.codec.kl import KLAutoencoderConfig
from opendalle.codec.latent import LATENT_PRESETS, LatentAutoencoder, LatentAutoencoderConfig
from opendalle.codec.protocol import Codec
from opendalle.diffusion.schedules import cosine
from opendalle.nn.strips import Strips
from opendalle.nn.unet import UNetConfig, UNetLevel
from opendalle.pretrained.kinds import load

LATENT = LatentAutoencoderConfig(
    network=ConvolutionalConfig(
        picture_size=32, grid_channels=3, width=8, growth=(1, 2, 2), blocks=1, attention_sides=(16,), norm_groups=4
    ),
    scale=0.5,
    mean=0.25,
)
LEVELS = (UNetLevel(width=8, num_blocks=1), UNetLevel(width=16, num_blocks=1))
DRAWER = ConsistencyDecoderConfig(
    unet=UNetConfig(
        in_channels=6,
        out_channels=6,
        levels=LEVELS,
        time_width=8,
        num_learned_steps=1024,
        middle="residual",
        norm_groups=4,
    ),
    picture_size=32,
    grid_mean=(0.1, -0.2, 0.3),
    grid_std=(1.0, 0.5, 2.0),
    factor=4,
)


def matters(network: nn.Module, seed: int = 0) -> Any:
    """Give every weight a value that matters."""
    rng = torch.Generator().manual_seed(seed)
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.2, generator=rng)
    return network.eval().requires_grad_(False)


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def count(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


# ------------------------------------------------------------------------------------------- the autoencoder


def test_the_grid_is_the_posteriors_mean_brought_to_unit_spread() -> None:
    codec, pictures = matters(LatentAutoencoder(LATENT)), noise(2, 3, 16, 24).clamp(-1, 1)
    grid = codec.encode(pictures)
    assert (codec.factor, grid.shape) == (4, (2, 3, 4, 6))
    torch.testing.assert_close(grid / 0.5 + 0.25, codec.posterior(pictures).mean)
    torch.testing.assert_close(codec.decode(grid), codec.draw(codec.posterior(pictures).mean).clamp(-1, 1))
    assert isinstance(codec, Codec)


@pytest.mark.parametrize("is_mixed", [True, False])
def test_an_autoencoder_by_strips_is_the_autoencoder(is_mixed: bool) -> None:
    config = LatentAutoencoderConfig(network=LATENT.network, is_mixed=is_mixed)
    codec, pictures = matters(LatentAutoencoder(config)).double(), noise(2, 3, 32, 24).double()
    grid, strips = noise(2, 3, 8, 6).double(), Strips(max_bytes=12_000)
    exactly = {"atol": 1e-11, "rtol": 1e-11}
    torch.testing.assert_close(codec.draw(grid, strips), codec.draw(grid), **exactly)
    torch.testing.assert_close(codec.posterior(pictures, strips).mean, codec.posterior(pictures).mean, **exactly)


def test_the_factor_is_a_matter_of_the_config() -> None:
    network = ConvolutionalConfig(picture_size=32, width=8, growth=(1, 1, 1, 1, 1), blocks=1, norm_groups=4)
    assert LatentAutoencoder(LatentAutoencoderConfig(network=network)).factor == 16
    assert {preset.network.factor for preset in LATENT_PRESETS.values()} == {8}


# ------------------------------------------------------------------------------------ the consistency decoder


def test_the_published_decoder_has_so_many_weights_and_looks_at_these_steps() -> None:
    with torch.device("meta"):
        decoder = ConsistencyDecoder(CONSISTENCY_PRESETS["openai"])
    assert count(decoder) == 621_277_702
    assert decoder.config.steps == (1008, 512)


def test_the_constants_are_those_of_the_published_decoder() -> None:
    schedule, t = cosine(1024), torch.tensor([1008, 512])
    scales = boundary_scales(schedule, t)
    found = [schedule.sigma(t) / schedule.alpha(t), scales.skip, scales.out, scales.into]
    told = [(43.797, 1.015476), (0.005709, 0.278100), (0.499967, 0.448573), (1.000195, 1.259124)]
    for one, (first, second) in zip(found, told, strict=True):
        torch.testing.assert_close(
            one, one.new_tensor([first, second]), atol=0, rtol=9e-5
        )  # as many digits as are told


def test_without_noise_the_answer_is_the_picture_itself() -> None:
    scales = boundary_scales(cosine(1024), torch.tensor([-1]))
    assert (scales.skip.item(), scales.out.item()) == (1.0, 0.0)


def test_what_the_network_sees_has_unit_variance_at_every_step() -> None:
    schedule, t = cosine(1024), torch.arange(1024)
    seen = (0.5 * schedule.alpha(t)) ** 2 + schedule.sigma(t) ** 2  # of pixels of spread 0.5, noised
    torch.testing.assert_close(seen * boundary_scales(schedule, t).into ** 2, torch.ones(1024).double())


def test_steps_are_rounded_to_those_that_were_distilled() -> None:
    config = CONSISTENCY_PRESETS["openai"]
    assert [config.distilled(t) for t in (0, 15, 16, 1007, 1008, 1023)] == [16, 16, 32, 1008, 1008, 1008]


def test_a_picture_alone_is_the_picture_in_a_batch_and_has_its_own_noise() -> None:
    decoder, grid = matters(ConsistencyDecoder(DRAWER)), noise(2, 3, 4, 4)
    both = decoder.decode(grid, [picture_generator(5), picture_generator(6)])
    alone = decoder.decode(grid[1:], [picture_generator(6)])
    torch.testing.assert_close(both[1:], alone, atol=1e-6, rtol=1e-5)
    other = decoder.decode(grid[1:], [picture_generator(7)])
    assert (other - alone).abs().max() > 0.01
    assert both.abs().max() <= 1


def test_two_steps_are_the_published_rule_written_out() -> None:
    decoder, grid = matters(ConsistencyDecoder(DRAWER)), noise(1, 3, 4, 4)
    decoder.unet.conv_out.weight.mul_(10)  # so that both answers leave the range, and must be clamped
    rng, x, left_the_range = picture_generator(5), torch.zeros(1, 3, 16, 16), 0
    seen = (grid - torch.tensor(DRAWER.grid_mean).view(3, 1, 1)) / torch.tensor(DRAWER.grid_std).view(3, 1, 1)
    seen = seen.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    for t in (1008, 512):
        kept = cosine(1024).alpha_bar[t].item()
        sigma, r = (1 / kept - 1) ** 0.5, (1 / kept) ** 0.5
        x = kept**0.5 * x + (1 - kept) ** 0.5 * torch.randn(1, 3, 16, 16, generator=rng)
        said = decoder.unet(torch.cat([r / (sigma**2 + 0.25) ** 0.5 * x, seen], dim=1), torch.tensor([t]))[:, :3]
        x = sigma * 0.5 / (sigma**2 + 0.25) ** 0.5 * said + r * 0.25 / (sigma**2 + 0.25) * x
        left_the_range += int((x.abs() > 1).any())
        x = x.clamp(-1, 1)
    assert left_the_range == 2
    torch.testing.assert_close(decoder.decode(grid, [picture_generator(5)]), x, atol=1e-5, rtol=1e-5)


def test_tiles_of_a_decoded_picture_are_the_whole() -> None:
    decoder, grid = matters(ConsistencyDecoder(DRAWER)), noise(2, 3, 6, 4)
    rngs = [picture_generator(5), picture_generator(6)]
    whole = decoder.decode(grid, rngs)
    rngs = [picture_generator(5), picture_generator(6)]
    torch.testing.assert_close(
        decoder.decode(grid, rngs, strips=Strips(max_bytes=6000, keep="cpu")), whole, atol=1e-5, rtol=1e-5
    )


def test_a_codec_with_another_decoder_is_without_chance() -> None:
    network = ConvolutionalConfig(
        picture_size=32, grid_channels=3, width=8, growth=(1, 1, 1), blocks=1, attention_sides=(), norm_groups=4
    )
    autoencoder = matters(LatentAutoencoder(LatentAutoencoderConfig(network=network)))
    decoder = matters(ConsistencyDecoder(DRAWER))
    codec = ConsistencyCodec(autoencoder, decoder, seed=5)
    grid = codec.encode(noise(2, 3, 16, 16).clamp(-1, 1))
    assert isinstance(codec, Codec)
    assert torch.equal(grid, autoencoder.encode(noise(2, 3, 16, 16).clamp(-1, 1)))
    assert torch.equal(codec.decode(grid), codec.decode(grid))
    torch.testing.assert_close(codec.decode(grid)[:1], decoder.decode(grid[:1], [picture_generator(5)]))
    with pytest.raises(BadConfig, match="factor"):
        ConsistencyCodec(matters(LatentAutoencoder(LatentAutoencoderConfig())), decoder)


def test_grids_of_others_and_missing_generators_are_refused() -> None:
    decoder = ConsistencyDecoder(DRAWER)
    with pytest.raises(BadRequest, match="4 channels"):
        decoder.decode(torch.zeros(1, 4, 2, 2), [picture_generator(0)])
    with pytest.raises(BadRequest, match="0 generators"):
        decoder.decode(torch.zeros(1, 3, 2, 2), [])


@pytest.mark.parametrize(
    "wrong",
    [
        {"picture_channels": 2},
        {"factor": 0},
        {"grid_std": (1.0,)},
        {"grid_std": (1.0, 0.0, 1.0)},
        {"num_distilled": 1000},
        {"levels": ()},
        {"levels": (1.5,)},
        {"sigma_data": 0.0},
        {"grid_mean": (0.0,) * 4, "grid_std": (1.0,) * 4},
        {"picture_channels": 4, "grid_mean": (0.0,) * 2, "grid_std": (1.0,) * 2},
    ],
)
def test_configs_outside_their_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadConfig):
        ConsistencyDecoderConfig(**{**{key: getattr(DRAWER, key) for key in DRAWER.__dataclass_fields__}, **wrong})


def test_the_small_preset_belongs_to_the_bundled_codec() -> None:
    config, codec = CONSISTENCY_PRESETS["emoji"], KLAutoencoderConfig()
    assert config.grid_channels == codec.grid_channels
    assert config.picture_channels == codec.picture_channels
    assert (config.factor, config.picture_size) == (codec.factor, codec.picture_size)


@pytest.mark.parametrize(
    ("kind", "config", "network"),
    [
        ("codec-latent", LATENT, LatentAutoencoder),
        ("consistency-decoder", DRAWER, ConsistencyDecoder),
    ],
)
def test_both_come_back_from_a_folder(kind: str, config: Any, network: Any, tmp_path: Path) -> None:
    assert from_plain(type(config), json.loads(json.dumps(to_plain(config)))) == config
    built = matters(network(config))
    card = {"data": "none", "recipe": "by hand", "licence": "none"}
    write_model(tmp_path / "x", kind=kind, parts={"codec": Part(to_plain(config), built.state_dict())}, card=card)
    again = load(tmp_path / "x").state_dict()
    assert all(torch.equal(again[key], one) for key, one in built.state_dict().items())
