"""Stable Diffusion's autoencoder and DALL·E 3's consistency decoder against diffusers', loaded by the key maps."""

import re
from typing import Any

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.consistency_decoder_vae import ConsistencyDecoderVAE
from torch import Tensor, nn

from opendalle.base.errors import BadModel
from opendalle.codec.consistency import (
    CONSISTENCY_PRESETS,
    ConsistencyDecoder,
    ConsistencyDecoderConfig,
    boundary_scales,
)
from opendalle.codec.convolutional import ConvolutionalConfig
from opendalle.codec.latent import LATENT_PRESETS, LatentAutoencoder, LatentAutoencoderConfig
from opendalle.nn.unet import UNetConfig, UNetLevel
from opendalle.pretrained.maps.consistency_decoder import consistency_table
from opendalle.pretrained.maps.sd_vae import first_stage, latent_table

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
NETWORK = ConvolutionalConfig(
    picture_size=32, grid_channels=4, width=8, growth=(1, 2, 2), blocks=2, attention_sides=(), norm_groups=4
)
CONFIG = LatentAutoencoderConfig(network=NETWORK)
LEVELS = tuple(UNetLevel(width=width, num_blocks=2) for width in (32, 64, 64))
DRAWER = ConsistencyDecoderConfig(
    unet=UNetConfig(
        in_channels=7, out_channels=6, levels=LEVELS, time_width=128, num_learned_steps=1024, middle="residual"
    ),
    picture_size=32,
    grid_mean=CONSISTENCY_PRESETS["openai"].grid_mean,
    grid_std=CONSISTENCY_PRESETS["openai"].grid_std,
    factor=4,
)
OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}  # what diffusers called them


def randomise(network: Any, seed: int = 0) -> Any:
    """Give every weight a value that matters and keeps numbers near 1."""
    rng = torch.Generator().manual_seed(seed)
    for name, weight in network.named_parameters():
        scale = 0.2 if weight.ndim == 1 else weight[0].numel() ** -0.5
        nn.init.normal_(weight, mean=float(bool(re.search(r"norm\w*\.weight$", name))), std=scale, generator=rng)
    return network.eval().requires_grad_(False)


def loaded(network: nn.Module, state: dict[str, Tensor]) -> Any:
    network.load_state_dict(state, strict=True)
    return network.eval().requires_grad_(False)


def count(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def autoencoder() -> Any:
    shape: dict[str, Any] = {"block_out_channels": (8, 16, 16), "layers_per_block": 2, "norm_num_groups": 4}
    blocks: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
    }
    return randomise(AutoencoderKL(latent_channels=4, sample_size=32, **shape, **blocks))


def test_the_same_grids_and_pictures(autoencoder: Any) -> None:
    network = loaded(LatentAutoencoder(CONFIG), latent_table(CONFIG).to_ours(autoencoder.state_dict()))
    pictures, grid = noise(2, 3, 32, 24).clamp(-1, 1), noise(2, 4, 8, 6)
    there, here = autoencoder.encode(pictures).latent_dist, network.posterior(pictures)
    torch.testing.assert_close(here.mean, there.mean, **CLOSE)
    torch.testing.assert_close(here.log_variance, there.logvar, **CLOSE)
    torch.testing.assert_close(network.draw(grid), autoencoder.decode(grid).sample, **CLOSE)
    drawn = autoencoder.decode(grid / 0.18215).sample.clamp(-1, 1)  # as a pipeline of Stable Diffusion calls it
    torch.testing.assert_close(network.decode(grid), drawn, **CLOSE)


def test_all_three_ways_of_writing_it_down_give_the_same_weights_and_come_back(autoencoder: Any) -> None:
    new = autoencoder.state_dict()
    wanted = latent_table(CONFIG).to_ours(new)
    old = {}
    for key, tensor in new.items():
        for name, before in OLD.items():
            key = key.replace(f".{name}.", f".{before}.")
        old[key] = tensor
    assert old.keys() != new.keys()
    original = latent_table(CONFIG, "compvis").to_theirs(wanted)
    for dialect, state in (("diffusers", new), ("diffusers-old", old), ("compvis", original)):
        table = latent_table(CONFIG, dialect)
        ours, back = table.to_ours(state), table.to_theirs(wanted)
        assert all(torch.equal(ours[key], wanted[key]) for key in wanted), dialect
        assert back.keys() == state.keys()
        assert all(torch.equal(back[key], state[key]) for key in state), dialect


def test_an_original_checkpoint_is_read_as_another_library_reads_it(autoencoder: Any) -> None:
    new = autoencoder.state_dict()
    original = latent_table(CONFIG, "compvis").to_theirs(latent_table(CONFIG).to_ours(new))
    checkpoint = {f"first_stage_model.{key}": tensor for key, tensor in original.items()}
    there = convert_ldm_vae_checkpoint(checkpoint, autoencoder.config)
    assert there.keys() == new.keys()
    assert all(torch.equal(there[key], new[key]) for key in new)
    whole = {**checkpoint, "first_stage_model.loss.x": torch.zeros(1), "model.diffusion_model.x": torch.zeros(1)}
    assert first_stage(whole).keys() == original.keys()
    assert first_stage({**original, "loss.logvar": torch.zeros(1)}).keys() == original.keys()


def test_a_weight_too_many_or_too_few_is_named(autoencoder: Any) -> None:
    state = autoencoder.state_dict()
    with pytest.raises(BadModel, match=r"decoder\.surprise"):
        latent_table(CONFIG).to_ours({**state, "decoder.surprise": torch.zeros(1)})
    with pytest.raises(BadModel, match=r"no weights 'quant_conv\.bias'"):
        latent_table(CONFIG).to_ours({key: one for key, one in state.items() if key != "quant_conv.bias"})
    ours = latent_table(CONFIG).to_ours(state)
    with pytest.raises(BadModel, match="2 last axes of length 1"):
        latent_table(CONFIG).to_theirs({**ours, "encoder.middle.1.query.weight": torch.zeros(16, 16, 3, 3)})


@pytest.mark.parametrize("name", sorted(LATENT_PRESETS))
def test_the_published_sizes(name: str) -> None:
    with torch.device("meta"):
        reference = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
        )
        network = LatentAutoencoder(LATENT_PRESETS[name])
    assert count(network) == count(reference) == 83_653_863
    shapes = {
        key: tuple(one.shape) for key, one in latent_table(network.config).to_theirs(network.state_dict()).items()
    }
    assert shapes == {key: tuple(one.shape) for key, one in reference.state_dict().items()}


@pytest.fixture(scope="module")
def decoder() -> Any:
    encoder: dict[str, Any] = {
        "encoder_block_out_channels": (8, 16, 16),
        "encoder_down_block_types": ("DownEncoderBlock2D",) * 3,
        "encoder_norm_num_groups": 4,
    }
    drawer: dict[str, Any] = {
        "decoder_block_out_channels": (32, 64, 64),
        "decoder_layers_per_block": 2,
        "decoder_down_block_types": ("ResnetDownsampleBlock2D",) * 3,
        "decoder_up_block_types": ("ResnetUpsampleBlock2D",) * 3,
    }
    network = randomise(ConsistencyDecoderVAE(**encoder, **drawer))
    network.decoder_unet.conv_out.weight.mul_(0.2)  # else its first picture would leave [-1, 1], which it allows
    return network


def test_the_same_answers_and_the_same_pictures(decoder: Any) -> None:
    table = consistency_table(DRAWER, encoder=CONFIG)
    network = loaded(ConsistencyDecoder(DRAWER), table.to_ours(decoder.state_dict()))
    x, t, grid = noise(2, 7, 32, 24), torch.tensor([512, 1008]), noise(2, 4, 8, 6, seed=2)
    torch.testing.assert_close(network.unet(x, t), decoder.decoder_unet(x, t).sample, **CLOSE)

    rngs = [
        torch.Generator().manual_seed(seed) for seed in (3, 4)
    ]  # the other library takes a generator a picture, too
    there = decoder.decode(grid / 0.18215, generator=rngs).sample
    rngs = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    torch.testing.assert_close(network.decode(grid, rngs), there.clamp(-1, 1), atol=1e-4, rtol=1e-4)


def test_the_same_constants(decoder: Any) -> None:
    scheduler, t = decoder.decoder_scheduler, torch.arange(16, 1009)
    scales = boundary_scales(ConsistencyDecoder(DRAWER).schedule, t)
    for ours, theirs in ((scales.skip, scheduler.c_skip), (scales.out, scheduler.c_out), (scales.into, scheduler.c_in)):
        torch.testing.assert_close(ours.float(), theirs[t], atol=1e-6, rtol=2e-5)  # theirs are rounded to float32


def test_its_keys_come_back_but_for_the_encoder_beside_it(decoder: Any) -> None:
    state, table = decoder.state_dict(), consistency_table(DRAWER, encoder=CONFIG)
    back = table.to_theirs(table.to_ours(state))
    assert back.keys() == {key for key in state if key.startswith("decoder_unet.")}
    assert all(torch.equal(back[key], state[key]) for key in back)
    with pytest.raises(BadModel, match=r"quant_conv\.surprise"):
        table.to_ours({**state, "quant_conv.surprise": torch.zeros(1)})


def test_the_published_decoder_has_the_shapes_of_the_other_library() -> None:
    config = CONSISTENCY_PRESETS["openai"]
    with torch.device("meta"):
        network, reference = ConsistencyDecoder(config), ConsistencyDecoderVAE().decoder_unet
    theirs = consistency_table(config).to_theirs(network.state_dict())
    wanted = {f"decoder_unet.{key}": tuple(one.shape) for key, one in reference.state_dict().items()}
    assert {key: tuple(one.shape) for key, one in theirs.items()} == wanted


def test_the_archives_names_lead_to_the_same_weights(decoder: Any) -> None:
    """Blocks are numbered from the finest level on both ways, so those of the way up change places."""
    ours = consistency_table(DRAWER, encoder=CONFIG).to_ours(decoder.state_dict())
    archive = consistency_table(DRAWER, "openai").to_theirs(ours)
    there = decoder.decoder_unet
    assert torch.equal(archive["blocks.down_0_conv_1.f_1.w"], there.down_blocks[0].resnets[1].conv1.weight)
    assert torch.equal(archive["blocks.down_1_downsamp.gn_2.g"], there.down_blocks[1].downsamplers[0].norm2.weight)
    assert torch.equal(archive["blocks.mid_1.f_t.b"], there.mid_block.resnets[1].time_emb_proj.bias)
    assert torch.equal(archive["blocks.up_2_upsamp.f_2.w"], there.up_blocks[0].upsamplers[0].conv2.weight)
    assert torch.equal(archive["blocks.up_0_conv_2.f_s.w"], there.up_blocks[2].resnets[2].conv_shortcut.weight)
    assert torch.equal(archive["embed_time.emb.weight"], there.time_proj.weight)
    back = consistency_table(DRAWER, "openai").to_ours(archive)
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[key], ours[key]) for key in ours)
