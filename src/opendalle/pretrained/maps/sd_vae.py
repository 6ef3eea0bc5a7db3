"""The keys of Stable Diffusion's autoencoders, in the three ways in which they are written down.

    compvis         the original checkpoints: `first_stage_model.decoder.up.3.block.0.conv1.weight`
    diffusers-old   the folders of its first years, whose attention speaks of query, key, value and proj_attn
    diffusers       the folders of today: to_q, to_k, to_v, to_out.0

An original checkpoint holds a whole generation; `first_stage` takes the autoencoder out of it.  Its levels count from
the finest on both ways, those of diffusers in the order in which the picture meets them; its attention is 1x1
convolutions, as ours, where diffusers has matrices.

Source: Rombach et al., arXiv:2112.10752, and its published checkpoints.
"""

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Literal, cast

import torch
from torch import Tensor, nn

from opendalle.codec.convolutional import Decoder, Encoder, Level
from opendalle.codec.latent import LatentAutoencoder, LatentAutoencoderConfig
from opendalle.nn.residual import ResidualBlock
from opendalle.pretrained.maps.key_table import KeyTable, Row, layer

Dialect = Literal["diffusers", "diffusers-old", "compvis"]
Half = Literal["encoder", "decoder"]

FIRST_STAGE = "first_stage_model."  # what the autoencoder's keys begin with in a whole checkpoint
TRAINED_WITH = "loss."  # critic and perceptual features, which some checkpoints of the autoencoder alone still hold

ATTENTION: Mapping[Dialect, tuple[str, str, str, str, str]] = MappingProxyType(  # norm, query, key, value, out
    {
        "diffusers": ("group_norm", "to_q", "to_k", "to_v", "to_out.0"),
        "diffusers-old": ("group_norm", "query", "key", "value", "proj_attn"),
        "compvis": ("norm", "q", "k", "v", "proj_out"),
    }
)


def latent_table(config: LatentAutoencoderConfig, dialect: Dialect = "diffusers") -> KeyTable:
    """Return the keys of an autoencoder.

    Args:
        config: of our network.
        dialect: how theirs are written down.
    """
    rows = [row for half in ("encoder", "decoder") for row in half_rows(config, half, dialect)]
    return KeyTable(origin=f"an autoencoder written by {dialect}", rows=tuple(rows))


def half_rows(config: LatentAutoencoderConfig, half: Half, dialect: Dialect) -> Iterable[Row]:
    """Return the rows of the encoder or the decoder, with the 1x1 convolution at the grid's side of it.

    Args:
        config: of our network.
        half: which one.
        dialect: how their keys are written down.
    """
    with torch.device("meta"):
        network = LatentAutoencoder(config)
    rows = list(_half(getattr(network, half), half, dialect))
    if config.is_mixed:
        rows += layer(*(("to_posterior", "quant_conv") if half == "encoder" else ("from_grid", "post_quant_conv")))
    return rows


def first_stage(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take the autoencoder out of an original checkpoint; of one that holds nothing else, what it was trained with.

    Args:
        state: all its weights.
    """
    prefix = FIRST_STAGE if any(key.startswith(FIRST_STAGE) for key in state) else ""
    own = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
    return {key: tensor for key, tensor in own.items() if not key.startswith(TRAINED_WITH)}


def _half(network: Encoder | Decoder, half: Half, dialect: Dialect) -> Iterator[Row]:
    is_original = dialect == "compvis"
    yield from layer(f"{half}.conv_in", f"{half}.conv_in")
    for place, level in enumerate(network.levels):
        yield from _level(cast(Level, level), f"{half}.levels.{place}", half, place, len(network.levels), dialect)
    middle = f"{half}.mid" if is_original else f"{half}.mid_block"
    first, second = ("block_1", "block_2") if is_original else ("resnets.0", "resnets.1")
    blocks = cast(list[ResidualBlock], [network.middle[0], network.middle[2]])
    yield from _block(blocks[0], f"{half}.middle.0", f"{middle}.{first}", dialect)
    yield from _attention(f"{half}.middle.1", f"{middle}.{'attn_1' if is_original else 'attentions.0'}", dialect)
    yield from _block(blocks[1], f"{half}.middle.2", f"{middle}.{second}", dialect)
    yield from layer(f"{half}.head.0", f"{half}.{'norm_out' if is_original else 'conv_norm_out'}")
    yield from layer(f"{half}.head.2", f"{half}.conv_out")


def _level(level: Level, ours: str, half: Half, place: int, count: int, dialect: Dialect) -> Iterator[Row]:
    way, onward = ("down", "downsample") if half == "encoder" else ("up", "upsample")
    if dialect == "compvis":
        theirs = f"{half}.{way}.{place if half == 'encoder' else count - 1 - place}"
        block, attention = f"{theirs}.block", f"{theirs}.attn"
    else:
        theirs = f"{half}.{way}_blocks.{place}"
        block, attention, onward = f"{theirs}.resnets", f"{theirs}.attentions", f"{onward}rs.0"
    for k, one in enumerate(level.blocks):
        yield from _block(cast(ResidualBlock, one), f"{ours}.blocks.{k}", f"{block}.{k}", dialect)
    for k in range(len(level.attention)):
        yield from _attention(f"{ours}.attention.{k}", f"{attention}.{k}", dialect)
    if level.onward is not None:
        yield from layer(f"{ours}.onward.conv", f"{theirs}.{onward}.conv")


def _block(block: ResidualBlock, ours: str, theirs: str, dialect: Dialect) -> Iterator[Row]:
    for one, other in (("norm_in", "norm1"), ("conv_in", "conv1"), ("norm_out", "norm2"), ("conv_out", "conv2")):
        yield from layer(f"{ours}.{one}", f"{theirs}.{other}")
    if isinstance(block.skip, nn.Conv2d):
        yield from layer(f"{ours}.skip", f"{theirs}.{'nin_shortcut' if dialect == 'compvis' else 'conv_shortcut'}")


def _attention(ours: str, theirs: str, dialect: Dialect) -> Iterator[Row]:
    norm, *others = ATTENTION[dialect]
    yield from layer(f"{ours}.norm", f"{theirs}.{norm}")
    trailing = 0 if dialect == "compvis" else 2
    for name, other in zip(("query", "key", "value", "out"), others, strict=True):
        yield Row(ours=f"{ours}.{name}.weight", theirs=(f"{theirs}.{other}.weight",), num_trailing=trailing)
        yield Row(ours=f"{ours}.{name}.bias", theirs=(f"{theirs}.{other}.bias",))
