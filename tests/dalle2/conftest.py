"""A DALL·E 2 small enough to run a hundred times: random weights, every one of them alive."""

from dataclasses import replace

import pytest
import torch

from opendalle.clip.model import CLIP, CLIPConfig
from opendalle.codec.kl import KLAutoencoder, KLAutoencoderConfig
from opendalle.dalle2.decoder import Decoder, DecoderConfig
from opendalle.dalle2.parts import Dalle2Config, Dalle2Parts
from opendalle.dalle2.pipeline import Dalle2
from opendalle.dalle2.priors.diffusion import DiffusionPrior, DiffusionPriorConfig
from opendalle.nn.transformer import TransformerConfig
from opendalle.nn.unet import UNetConfig, UNetLevel
from opendalle.samplers.settings import StageSettings
from opendalle.tokenizers.bpe import BytePairTokenizer
from opendalle.upsampling.network import Upsampler, UpsamplerConfig
from opendalle.upsampling.settings import UpsamplerSettings

CONTEXT, EMBED, WIDTH = 12, 16, 32


def tiny_parts(seed: int = 0) -> Dalle2Parts:
    """Build all networks with random weights."""
    torch.manual_seed(seed)
    tokenizer = BytePairTokenizer.train(["a red apple", "a blue car", "红苹果"] * 3, 270)
    clip = CLIP(
        CLIPConfig(
            embed=EMBED,
            vocab=tokenizer.vocab_size,
            context=CONTEXT,
            text_width=WIDTH,
            text_depth=1,
            text_heads=2,
            size=16,
            patch=8,
            channels=4,
            picture_width=WIDTH,
            picture_depth=1,
            picture_heads=2,
        )
    )
    prior = DiffusionPrior(
        DiffusionPriorConfig(
            embedding_width=EMBED,
            text_width=WIDTH,
            num_text_tokens=CONTEXT,
            transformer=TransformerConfig(width=WIDTH, depth=2, heads=2, is_causal=True),
        )
    )
    unet = UNetConfig(
        in_channels=3,
        out_channels=3,
        levels=(UNetLevel(width=32, num_blocks=1, has_attention=True),),
        time_width=WIDTH,
        context_width=WIDTH,
        head_width=16,
        middle="none",
    )
    decoder = Decoder(DecoderConfig(embedding_width=EMBED, text_width=WIDTH, text_embedding_width=EMBED, unet=unet))
    codec = KLAutoencoder(KLAutoencoderConfig(picture_size=16, widths=(32, 64), grid_channels=3, decoder_depth=1))
    upscale = UNetConfig(
        in_channels=8,
        out_channels=4,
        levels=(UNetLevel(width=32, num_blocks=1),),
        time_width=WIDTH,
        patch=4,
        middle="none",
    )
    upsampler = Upsampler(UpsamplerConfig(picture_channels=4, factor=4, unet=upscale))
    for network in (clip, prior, decoder, codec, upsampler):
        with torch.no_grad():
            for weight in network.parameters():
                weight.add_(0.05 * torch.randn_like(weight))
        network.eval().requires_grad_(False)
    return Dalle2Parts(tokenizer=tokenizer, clip=clip, prior=prior, decoder=decoder, codec=codec, upsampler=upsampler)


def tiny_config(**decoder: object) -> Dalle2Config:
    """Few steps everywhere."""
    return Dalle2Config(
        prior=StageSettings(prediction="x0", steps=3, clip=5.0),
        decoder=StageSettings(**{"prediction": "v", "steps": 4, "guidance": 3.0} | decoder),  # type: ignore[arg-type]
        upsampler=UpsamplerSettings(prediction="v"),
    )


def tiny_upscaler(seed: int = 3, factor: int = 2) -> Upsampler:
    """One that sees no further than convolutions do, so that it can be cut into windows."""
    torch.manual_seed(seed)
    unet = UNetConfig(
        in_channels=8,
        out_channels=4,
        levels=(UNetLevel(width=8, num_blocks=1),),
        time_width=8,
        patch=factor,
        middle="none",
        norm="cell",
        norm_groups=1,
    )
    network = Upsampler(UpsamplerConfig(picture_channels=4, factor=factor, unet=unet, adds_detail=True))
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return network.eval().requires_grad_(False)


@pytest.fixture
def tall() -> Dalle2:
    """The whole pipeline with an upscaler: 16, 64, and twice that."""
    config = replace(tiny_config(), upscaler=UpsamplerSettings())
    parts = replace(tiny_parts(), upscaler=tiny_upscaler())
    return Dalle2(parts, config, {"model": "tiny", "sha256": "0" * 64})


@pytest.fixture
def dalle() -> Dalle2:
    """The whole pipeline."""
    return Dalle2(tiny_parts(), tiny_config(), {"model": "tiny", "sha256": "0" * 64})
