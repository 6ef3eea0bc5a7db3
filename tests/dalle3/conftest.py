"""A DALL·E 3 small enough to run a hundred times: random weights, every one of them alive."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import pytest
import torch
from torch import nn

from opendalle.clip.embedder import ClipEmbedder
from opendalle.clip.model import CLIP, CLIPConfig
from opendalle.codec.consistency import ConsistencyDecoder, ConsistencyDecoderConfig
from opendalle.codec.kl import KLAutoencoder, KLAutoencoderConfig
from opendalle.dalle3.caption_network import CaptionNetwork, CaptionNetworkConfig
from opendalle.dalle3.captioner import Captioner
from opendalle.dalle3.denoiser import Denoiser, DenoiserConfig
from opendalle.dalle3.parts import Dalle3Config, Dalle3Parts
from opendalle.dalle3.pipeline import Dalle3
from opendalle.dalle3.reading import CaptionReader
from opendalle.dalle3.text_encoder import TextEncoder, TextEncoderConfig
from opendalle.dalle3.transformer import LatentTransformerConfig
from opendalle.nn.unet import UNetConfig, UNetLevel
from opendalle.samplers.settings import StageSettings
from opendalle.tokenizers import BytePairTokenizer, ByteTokenizer
from opendalle.upsampling.network import Upsampler, UpsamplerConfig
from opendalle.upsampling.settings import UpsamplerSettings

CONTEXT = 64
WRITTEN = "{} stands on a green hill under a wide blue sky, with two small white clouds above it and a path before it"

Network = TypeVar("Network", bound=nn.Module)


class Echo:
    """A rewriter that says the prompt and more, and counts how often it is asked."""

    name = "echo"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def rewrite(self, prompts: Sequence[str], *, seeds: Sequence[int]) -> list[str]:
        self.asked += prompts
        return [WRITTEN.format(one) for one in prompts]


def alive(network: Network, spread: float) -> Network:
    """Move every weight, and train no more."""
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(spread * torch.randn_like(weight))
    return network.eval().requires_grad_(False)


def tiny_upsampler(seed: int = 0) -> Upsampler:
    """One that doubles, and sees no further than convolutions do."""
    torch.manual_seed(seed)
    unet = UNetConfig(
        in_channels=8,
        out_channels=4,
        levels=(UNetLevel(width=8, num_blocks=1),),
        time_width=8,
        patch=2,
        middle="none",
        norm="cell",
        norm_groups=1,
    )
    return alive(Upsampler(UpsamplerConfig(picture_channels=4, factor=2, unet=unet, adds_detail=True)), 0.1)


def tiny_embedder() -> ClipEmbedder:
    torch.manual_seed(1)
    tokenizer = BytePairTokenizer.train(["a red apple", "a blue car", "红苹果"] * 3, 270)
    towers: dict[str, int] = {"text_width": 16, "picture_width": 16, "text_depth": 1, "picture_depth": 1}
    heads = {"text_heads": 2, "picture_heads": 2}
    clip = CLIP(
        CLIPConfig(embed=8, vocab=tokenizer.vocab_size, context=12, size=16, patch=8, channels=4, **towers, **heads)
    )
    return ClipEmbedder(alive(clip, 0.1), tokenizer)


def tiny_captioner(embedder: ClipEmbedder) -> Captioner:
    torch.manual_seed(2)
    seen = embedder.clip.picture.states(torch.zeros(1, 4, 16, 16))
    config = CaptionNetworkConfig(
        vocabulary=embedder.tokenizer.vocab_size,
        context=10,
        sight_tokens=seen.shape[1],
        sight_width=seen.shape[2],
        width=16,
        text_depth=1,
        joint_depth=1,
        heads=2,
        embed=8,
    )
    return Captioner({"short": alive(CaptionNetwork(config), 0.3)}, embedder.clip, embedder.tokenizer)


def tiny_parts(**body: Any) -> Dalle3Parts:
    """Build all networks with random weights."""
    embedder = tiny_embedder()
    captioner = tiny_captioner(embedder)
    torch.manual_seed(0)
    encoder = TextEncoder(
        TextEncoderConfig(vocabulary=384, width=16, depth=1, heads=2, head_width=8, hidden=16, num_buckets=8)
    )
    shape = {"channels": 3, "text_width": 16, "width": 16, "depth": 2, "heads": 2, "sinusoid_width": 16}
    denoiser = Denoiser(DenoiserConfig(transformer=LatentTransformerConfig(**shape | {"pools_text": True} | body)))
    codec = KLAutoencoder(
        KLAutoencoderConfig(picture_size=32, widths=(32, 64), grid_channels=3, decoder_depth=1, patch=2)
    )
    return Dalle3Parts(
        reader=CaptionReader(alive(encoder, 0.1), ByteTokenizer(), context=CONTEXT),
        denoiser=alive(denoiser, 0.2),
        codec=alive(codec, 0.05),
        rewriter=Echo(),
        captioner=lambda: captioner,
        clip=lambda: embedder,
        upsampler=tiny_upsampler(),
        upscaler=tiny_upsampler(seed=3),
    )


def tiny_config(side: int = 8) -> Dalle3Config:
    """Few steps; wide and tall grids as DALL·E 3's."""
    long = side * 7 // 4
    return Dalle3Config(
        denoiser=StageSettings(prediction="v", steps=4, guidance=3.0),
        context=CONTEXT,
        shapes=((side, long), (long, side)),
        rewrite="off",
        upsampler=UpsamplerSettings(),
        upscaler=UpsamplerSettings(steps=1),
    )


@pytest.fixture
def dalle() -> Dalle3:
    """The whole pipeline: 32, 64, and twice that; a prompt is rewritten when that is asked for."""
    return Dalle3(tiny_parts(), tiny_config(), {"model": "tiny", "sha256": "0" * 64}, "1" * 64)


@pytest.fixture
def rewriting(dalle: Dalle3) -> Dalle3:
    """The same, whose card says that prompts are rewritten."""
    return Dalle3(dalle.parts, replace(dalle.config, rewrite="own"), dalle.origin)


@pytest.fixture
def consistency(dalle: Dalle3) -> ConsistencyDecoder:
    """One that draws the pipeline's grids."""
    torch.manual_seed(5)
    unet = UNetConfig(
        in_channels=7,
        out_channels=4,
        levels=(UNetLevel(width=8, num_blocks=1),),
        time_width=8,
        patch=2,
        middle="none",
        norm_groups=1,
    )
    means = {"grid_mean": (0.0,) * 3, "grid_std": (1.0,) * 3}
    size = {"picture_size": 32, "picture_channels": 4, "factor": dalle.parts.codec.factor}
    return alive(ConsistencyDecoder(ConsistencyDecoderConfig(unet=unet, **size, **means)), 0.1)
