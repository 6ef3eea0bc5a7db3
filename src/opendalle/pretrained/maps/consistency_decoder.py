"""The keys of DALL·E 3's consistency decoder, in the two ways in which it is published.

    openai      the tensors of the TorchScript archive: `blocks.down_0_conv_0.f_1.w`
    diffusers   the folder of ConsistencyDecoderVAE, which also holds the encoder of Stable Diffusion 1's autoencoder

That encoder is no part of the decoder: the table knows its keys and lets them go; `sd_vae` loads it with its own.  The
archive's names are told after the conversions that others published; the archive itself was not at hand.

Source: Betker et al., "Improving Image Generation with Better Captions", appendix B; the decoder published with it.
"""

from collections.abc import Iterator
from types import MappingProxyType
from typing import Literal, cast

import torch
from torch import nn

from opendalle.codec.consistency import ConsistencyDecoderConfig
from opendalle.codec.latent import LATENT_PRESETS, LatentAutoencoderConfig
from opendalle.nn.unet import UNet, UNetBlock
from opendalle.pretrained.maps.key_table import KeyTable, Row
from opendalle.pretrained.maps.sd_vae import half_rows
from opendalle.pretrained.maps.unet import unet_rows

Dialect = Literal["diffusers", "openai"]


def consistency_table(
    config: ConsistencyDecoderConfig,
    dialect: Dialect = "diffusers",
    *,
    encoder: LatentAutoencoderConfig = LATENT_PRESETS["sd-1"],
) -> KeyTable:
    """Return the keys of a consistency decoder.

    Args:
        config: of our network.
        dialect: how theirs are written down.
        encoder: of the autoencoder whose encoder lies beside it in a diffusers folder.
    """
    if dialect == "openai":
        return KeyTable(origin="OpenAI's consistency decoder", rows=tuple(_archive(config)))
    spare = [key for row in half_rows(encoder, "encoder", "diffusers") for key in row.theirs]
    return KeyTable(
        origin="a consistency decoder written by diffusers",
        rows=tuple(unet_rows(config.unet, "unet.", "decoder_unet.")),
        dropped=MappingProxyType(dict.fromkeys(spare, "of the autoencoder's encoder, which is loaded with its own")),
    )


def _archive(config: ConsistencyDecoderConfig) -> Iterator[Row]:
    with torch.device("meta"):
        unet = UNet(config.unet)
    if config.unet.num_learned_steps is not None:
        yield Row(ours="unet.time.table.weight", theirs=("embed_time.emb.weight",))
    yield from _layer("unet.time.linear1", "embed_time.f_1")
    yield from _layer("unet.time.linear2", "embed_time.f_2")
    yield from _layer("unet.conv_in", "embed_image.f")
    for side in ("down", "up"):
        levels = range(len(config.unet.levels))
        counted = iter(levels if side == "down" else reversed(levels))  # both ways from the finest
        level, place = next(counted), 0
        for index, block in enumerate(_blocks(unet, side)):
            if block.residual.resample == "none":
                yield from _block(block, f"unet.{side}.{index}", f"blocks.{side}_{level}_conv_{place}")
                place += 1
            else:
                yield from _block(block, f"unet.{side}.{index}", f"blocks.{side}_{level}_{side}samp")
                level, place = next(counted), 0
    for index, block in enumerate(_blocks(unet, "middle")):
        yield from _block(block, f"unet.middle.{index}", f"blocks.mid_{index}")
    yield from _layer("unet.norm_out", "output.gn", gain="g")
    yield from _layer("unet.conv_out", "output.f")


def _blocks(unet: UNet, side: str) -> list[UNetBlock]:
    return [cast(UNetBlock, block) for block in cast(nn.ModuleList, getattr(unet, side))]


def _block(block: UNetBlock, ours: str, theirs: str) -> Iterator[Row]:
    ours = f"{ours}.residual"
    yield from _layer(f"{ours}.embedding", f"{theirs}.f_t")
    yield from _layer(f"{ours}.norm_in", f"{theirs}.gn_1", gain="g")
    yield from _layer(f"{ours}.conv_in", f"{theirs}.f_1")
    yield from _layer(f"{ours}.norm_out", f"{theirs}.gn_2", gain="g")
    yield from _layer(f"{ours}.conv_out", f"{theirs}.f_2")
    if isinstance(block.residual.skip, nn.Conv2d):
        yield from _layer(f"{ours}.skip", f"{theirs}.f_s")


def _layer(ours: str, theirs: str, gain: str = "w") -> Iterator[Row]:
    """Rows of a layer whose weight and bias have names of one letter."""
    yield Row(ours=f"{ours}.weight", theirs=(f"{theirs}.{gain}",))
    yield Row(ours=f"{ours}.bias", theirs=(f"{theirs}.b",))
