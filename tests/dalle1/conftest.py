"""A DALL·E 1 small enough to run a hundred times: random weights, every one of them alive."""

from dataclasses import replace
from typing import TypeVar

import pytest
import torch
from torch import nn

from opendalle.clip.model import CLIP, CLIPConfig
from opendalle.codec.dvae import DiscreteVAE, DiscreteVAEConfig
from opendalle.dalle1.parts import Dalle1Config, Dalle1Parts
from opendalle.dalle1.pipeline import Dalle1
from opendalle.dalle1.transformer import Dalle1Transformer, Dalle1TransformerConfig
from opendalle.nn.unet import UNetConfig, UNetLevel
from opendalle.tokenizers.bpe import BytePairTokenizer
from opendalle.upsampling.network import Upsampler, UpsamplerConfig
from opendalle.upsampling.settings import UpsamplerSettings

CHANNELS = 4

Network = TypeVar("Network", bound=nn.Module)


def tiny_parts(seed: int = 0, channels: int = CHANNELS) -> Dalle1Parts:
    """Build all networks with random weights."""
    torch.manual_seed(seed)
    tokenizer = BytePairTokenizer.train(["a red apple", "a blue car", "红苹果"] * 3, 270)
    clip = CLIP(
        CLIPConfig(
            embed=16,
            vocab=tokenizer.vocab_size,
            context=12,
            text_width=32,
            text_depth=1,
            text_heads=2,
            size=16,
            patch=8,
            channels=channels,
            picture_width=32,
            picture_depth=1,
            picture_heads=2,
        )
    )
    codec = DiscreteVAE(
        DiscreteVAEConfig(
            picture_size=32, picture_channels=channels, vocabulary=17, width=8, code_width=8, blocks=1, patch=1
        )
    )
    transformer = Dalle1Transformer(
        Dalle1TransformerConfig(
            text_vocabulary=tokenizer.vocab_size,
            num_text=6,
            picture_vocabulary=17,
            grid_height=4,
            grid_width=4,
            width=16,
            depth=3,
            heads=2,
            kernel=3,
            initialisation="gpt",
        )
    )
    return Dalle1Parts(
        tokenizer=tokenizer,
        transformer=alive(transformer, 0.3),
        codec=alive(codec, 0.2),
        clip=alive(clip, 0.05),
        upsampler=tiny_upsampler(channels),
    )


def tiny_upsampler(channels: int = CHANNELS, seed: int = 0) -> Upsampler:
    """One that doubles."""
    torch.manual_seed(seed)
    upscale = UNetConfig(
        in_channels=2 * channels,
        out_channels=channels,
        levels=(UNetLevel(width=32, num_blocks=1),),
        time_width=32,
        patch=2,
        middle="none",
    )
    return alive(Upsampler(UpsamplerConfig(picture_channels=channels, factor=2, unet=upscale)), 0.05)


def alive(network: Network, spread: float) -> Network:
    """Move every weight, and train no more."""
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(spread * torch.randn_like(weight))
    return network.eval().requires_grad_(False)


@pytest.fixture
def dalle() -> Dalle1:
    """The whole pipeline."""
    config = Dalle1Config(guidance=2.0, edit_candidates=2, upsampler=UpsamplerSettings())
    return Dalle1(tiny_parts(), config, {"model": "tiny", "sha256": "0" * 64}, "1" * 64)


@pytest.fixture
def tall(dalle: Dalle1) -> Dalle1:
    """The whole pipeline with an upscaler: 32, 64, and twice that."""
    parts = replace(dalle.parts, upscaler=tiny_upsampler(seed=3))
    return Dalle1(parts, replace(dalle.config, upscaler=UpsamplerSettings(steps=1)), dalle.origin, "1" * 64)
