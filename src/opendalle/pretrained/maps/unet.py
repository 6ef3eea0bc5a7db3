"""The keys of a U-Net as diffusers names them, whatever model it is part of."""

from collections.abc import Iterator
from typing import cast

import torch
from torch import nn

from opendalle.nn.unet import UNet, UNetBlock, UNetConfig
from opendalle.pretrained.maps.key_table import Row, layer


def unet_rows(config: UNetConfig, ours: str, theirs: str) -> Iterator[Row]:
    """Yield the rows of a U-Net, read off the network itself, built without storage.

    Args:
        config: of our network.
        ours: what its keys begin with here.
        theirs: what its keys begin with there.
    """
    with torch.device("meta"):
        unet = UNet(config)
    yield from layer(f"{ours}conv_in", f"{theirs}conv_in")
    if config.num_learned_steps is not None:
        yield Row(ours=f"{ours}time.table.weight", theirs=(f"{theirs}time_proj.weight",))
    yield from layer(f"{ours}time.linear1", f"{theirs}time_embedding.linear_1")
    yield from layer(f"{ours}time.linear2", f"{theirs}time_embedding.linear_2")
    for side in ("down", "up"):
        level, place = 0, 0  # on the way up, level 0 is the coarsest
        for index, block in enumerate(_blocks(unet, side)):
            level_name = f"{theirs}{side}_blocks.{level}"
            if block.residual.resample == "none":
                names = f"{level_name}.resnets.{place}", f"{level_name}.attentions.{place}"
                place += 1
            else:
                names = f"{level_name}.{side}samplers.0", ""
                level, place = level + 1, 0
            yield from _block(block, f"{ours}{side}.{index}", *names)
    for index, block in enumerate(_blocks(unet, "middle")):
        middle = f"{theirs}mid_block"
        yield from _block(block, f"{ours}middle.{index}", f"{middle}.resnets.{index}", f"{middle}.attentions.{index}")
    yield from layer(f"{ours}norm_out", f"{theirs}conv_norm_out")
    yield from layer(f"{ours}conv_out", f"{theirs}conv_out")


def _blocks(unet: UNet, side: str) -> list[UNetBlock]:
    return [cast(UNetBlock, block) for block in cast(nn.ModuleList, getattr(unet, side))]


def _block(block: UNetBlock, ours: str, residual: str, attention: str) -> Iterator[Row]:
    """Rows of one residual block, and of its attention where it has one."""
    yield from layer(f"{ours}.residual.norm_in", f"{residual}.norm1")
    yield from layer(f"{ours}.residual.conv_in", f"{residual}.conv1")
    yield from layer(f"{ours}.residual.embedding", f"{residual}.time_emb_proj")
    yield from layer(f"{ours}.residual.norm_out", f"{residual}.norm2")
    yield from layer(f"{ours}.residual.conv_out", f"{residual}.conv2")
    if isinstance(block.residual.skip, nn.Conv2d):
        yield from layer(f"{ours}.residual.skip", f"{residual}.conv_shortcut")
    if block.attention is None:
        return
    yield from layer(f"{ours}.attention.norm", f"{attention}.group_norm")
    yield from layer(f"{ours}.attention.attention.qkv", *(f"{attention}.to_{one}" for one in "qkv"))
    if block.attention.attention.context_kv is not None:
        yield from layer(f"{ours}.attention.attention.context_kv", *(f"{attention}.add_{one}_proj" for one in "kv"))
    yield from layer(f"{ours}.attention.attention.out", f"{attention}.to_out.0")
