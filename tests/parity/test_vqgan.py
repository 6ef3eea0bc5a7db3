"""VQGAN's halves and its codebook against diffusers' VQModel, which has the published layout."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from opendalle.codec.convolutional import ConvolutionalConfig
from opendalle.codec.vqgan import VQGAN, VQGANConfig

diffusers = pytest.importorskip("diffusers")

NETWORK = ConvolutionalConfig(
    picture_size=32, grid_channels=6, width=8, growth=(1, 2, 2), blocks=2, attention_sides=(8,), norm_groups=4
)
CONFIG = VQGANConfig(network=NETWORK, vocabulary=24, code_width=5)
BLOCK = {"norm1": "norm_in", "conv1": "conv_in", "norm2": "norm_out", "conv2": "conv_out", "conv_shortcut": "skip"}
ATTENTION = {"group_norm": "norm", "to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "out"}
TOP = {
    "post_quant_conv": "from_codes",
    "quant_conv": "to_codes",
    "quantize.embedding": "codebook.words",
    "encoder.conv_norm_out": "encoder.head.0",
    "encoder.conv_out": "encoder.head.2",
    "decoder.conv_norm_out": "decoder.head.0",
    "decoder.conv_out": "decoder.head.2",
}


def theirs() -> Any:
    """Build diffusers' network of the same shape, with random weights everywhere."""
    torch.manual_seed(0)
    network = diffusers.VQModel(
        block_out_channels=(8, 16, 16),
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"),
        layers_per_block=2,
        latent_channels=6,
        norm_num_groups=4,
        num_vq_embeddings=24,
        vq_embed_dim=5,
    )
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.3)
    return network.eval()


def ours_of(name: str) -> str:
    """Return our name of one of their weights."""
    for old, new in TOP.items():
        name = name.replace(old, new)
    for old, new in (
        ("down_blocks", "levels"),
        ("up_blocks", "levels"),
        ("resnets", "blocks"),
        ("attentions", "attention"),
    ):
        name = name.replace(old, new)
    for where in ("downsamplers.0", "upsamplers.0"):
        name = name.replace(where, "onward")
    for old, new in (
        ("mid_block.blocks.0", "middle.0"),
        ("mid_block.attention.0", "middle.1"),
        ("mid_block.blocks.1", "middle.2"),
    ):
        name = name.replace(old, new)
    for old, new in (*BLOCK.items(), *ATTENTION.items()):
        name = name.replace(f".{old}.", f".{new}.")
    return name


def test_the_same_words_and_pictures_as_another_library() -> None:
    reference, network = theirs(), VQGAN(CONFIG).eval()
    wanted = network.state_dict()
    state: dict[str, Tensor] = {ours_of(name): value for name, value in reference.state_dict().items()}
    assert set(state) == set(wanted)
    network.load_state_dict({name: value.view_as(wanted[name]) for name, value in state.items()})
    pictures = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        cells = reference.encode(pictures).latents
        torch.testing.assert_close(network.cells(pictures), cells, atol=1e-4, rtol=1e-4)
        found, _, (_, _, numbers) = reference.quantize(cells)
        tokens = network.codebook.nearest(cells)
        torch.testing.assert_close(tokens.flatten(), numbers)
        torch.testing.assert_close(network.codebook.look_up(tokens), found)
        drawn = reference.decode(cells).sample
        torch.testing.assert_close(network.draw(found), drawn, atol=1e-4, rtol=1e-4)


def test_the_published_size() -> None:
    with torch.device("meta"):
        reference = diffusers.VQModel(
            block_out_channels=(128, 128, 256, 256, 512),
            down_block_types=(*("DownEncoderBlock2D",) * 4, "AttnDownEncoderBlock2D"),
            up_block_types=("AttnUpDecoderBlock2D", *("UpDecoderBlock2D",) * 4),
            layers_per_block=2,
            latent_channels=256,
            num_vq_embeddings=1024,
        )
        network = VQGAN(VQGANConfig())
    counts = [sum(weight.numel() for weight in one.parameters()) for one in (network, reference)]
    assert counts[0] == counts[1]
