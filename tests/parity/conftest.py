"""A tiny Karlo: the published library's classes with random weights, and our networks loaded from them by the map."""

import re
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.models.transformers.prior_transformer import PriorTransformer
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel
from torch import Tensor, nn

from opendalle.dalle2.decoder import Decoder
from opendalle.dalle2.priors.diffusion import DiffusionPrior
from opendalle.pretrained.maps.karlo import decoder_table, join_folders, prior_table, upsampler_table
from opendalle.pretrained.maps.karlo_configs import decoder_config, prior_config, upsampler_config
from opendalle.upsampling.network import Upsampler

EMBED, WORDS, SIDE, FACTOR, ROWS = 32, 12, 16, 2, 2  # 12 words and 4 picture tokens: not the 64 cells of the 8x8 grid


@dataclass(frozen=True)
class Karlo:
    """Both sides, with equal weights."""

    theirs: Any  # prior, decoder, text_proj, super_res_first, super_res_last
    prior: DiffusionPrior
    decoder: Decoder
    first: Upsampler
    last: Upsampler


@dataclass(frozen=True)
class Captions:
    """What CLIP would say of two captions and of the empty one."""

    pooled: Tensor
    states: Tensor
    mask: Tensor


def randomise(network: nn.Module, seed: int) -> nn.Module:
    """Give every weight a value that matters, those that start at zero or one as well."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            noise = torch.randn(weight.shape, generator=rng)
            if name.endswith("clip_std"):
                weight.copy_(0.5 + noise.abs())
            elif weight.ndim == 1 or weight.shape[0] == 1:
                is_gain = re.search(r"norm\w*\.weight$", name)
                weight.copy_((1.0 if is_gain else 0.0) + 0.2 * noise)
            else:
                weight.copy_(noise / weight[0].numel() ** 0.5)
    return network.eval().requires_grad_(False)


def build_theirs() -> Any:
    blocks = {"block_out_channels": (32, 64), "layers_per_block": 1}
    decoder = UNet2DConditionModel(
        sample_size=SIDE,
        in_channels=3,
        out_channels=6,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        cross_attention_dim=48,
        attention_head_dim=8,
        class_embed_type="identity",
        resnet_time_scale_shift="scale_shift",
        **blocks,
    )
    super_res = [
        UNet2DModel(
            sample_size=SIDE * FACTOR,
            in_channels=6,
            out_channels=3,
            down_block_types=("ResnetDownsampleBlock2D",) * 2,
            up_block_types=("ResnetUpsampleBlock2D",) * 2,
            add_attention=False,
            **blocks,
        )
        for _ in range(2)
    ]
    prior = PriorTransformer(
        num_attention_heads=2, attention_head_dim=16, num_layers=2, embedding_dim=EMBED, num_embeddings=WORDS
    )
    text_proj = UnCLIPTextProjModel(clip_embeddings_dim=EMBED, time_embed_dim=128, cross_attention_dim=48)
    return SimpleNamespace(
        prior=randomise(prior, 1),
        decoder=randomise(decoder, 2),
        text_proj=randomise(text_proj, 3),
        super_res_first=randomise(super_res[0], 4),
        super_res_last=randomise(super_res[1], 5),
    )


def plain(network: Any) -> dict[str, Any]:
    """The JSON config that the library would write."""
    return {key: list(one) if isinstance(one, tuple) else one for key, one in network.config.items()}


def loaded(network: nn.Module, state: dict[str, Tensor]) -> Any:
    network.load_state_dict(state, strict=True)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def karlo() -> Karlo:
    """Theirs, and ours made from their configs and their weights alone."""
    theirs = build_theirs()
    of_prior = prior_config(plain(theirs.prior))
    of_decoder = decoder_config(plain(theirs.decoder), plain(theirs.text_proj))
    of_upsampler = upsampler_config(plain(theirs.super_res_first), factor=FACTOR)
    both = join_folders(decoder=theirs.decoder.state_dict(), text_proj=theirs.text_proj.state_dict())
    table = upsampler_table(of_upsampler)
    return Karlo(
        theirs=theirs,
        prior=loaded(DiffusionPrior(of_prior), prior_table(of_prior).to_ours(theirs.prior.state_dict())),
        decoder=loaded(Decoder(of_decoder), decoder_table(of_decoder).to_ours(both)),
        first=loaded(Upsampler(of_upsampler), table.to_ours(theirs.super_res_first.state_dict())),
        last=loaded(Upsampler(of_upsampler), table.to_ours(theirs.super_res_last.state_dict())),
    )


def say(seed: int, lengths: list[int]) -> Captions:
    rng = torch.Generator().manual_seed(seed)
    return Captions(
        pooled=torch.randn(ROWS, EMBED, generator=rng),
        states=torch.randn(ROWS, WORDS, EMBED, generator=rng),
        mask=torch.arange(WORDS) < torch.tensor(lengths)[:, None],
    )


@pytest.fixture(scope="session")
def captions() -> Captions:
    """One that fills the context and one that is padded."""
    return say(6, [WORDS, 5])


@pytest.fixture(scope="session")
def empty() -> Captions:
    """The empty caption: start and end alone; read once, so its rows are equal."""
    one = say(7, [2, 2])
    return Captions(one.pooled[:1].repeat(ROWS, 1), one.states[:1].repeat(ROWS, 1, 1), one.mask)
