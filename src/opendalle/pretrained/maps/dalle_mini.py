"""dalle-mini's own weights, as its library for JAX writes them: the same numbers as min-dalle's, otherwise laid out.

    flax_model.msgpack of the model      DalleBart
    flax_model.msgpack of the VQGAN      WordDecoder; its encoder stays behind

Read as nested dicts they differ in three ways, which `plain` undoes and `scanned` does again: all layers lie in one
tensor, with an axis for the layer in front; matrices have inputs before outputs; kernels of convolutions have their
place first.  What then remains is a change of names, which is a table.

Source: dalle-mini (Dayma et al., 2021), flax 0.5; the VQGAN: vqgan-jax (Patil, 2021).
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from opendalle.base.errors import BadModel
from opendalle.codec.convolutional import ConvolutionalConfig
from opendalle.pretrained.maps import min_dalle
from opendalle.pretrained.maps.key_table import KeyTable, Row
from opendalle.pretrained.networks.dalle_bart import DalleBartConfig
from opendalle.pretrained.networks.word_decoder import WordDecoderConfig

LAYERS = {"encoder": "FlaxBartEncoderLayers", "decoder": "FlaxBartDecoderLayers"}  # what all layers lie in
MODULES = {  # of a layer, by min-dalle's names
    "pre_self_attn_layer_norm": "LayerNorm_0",
    "self_attn_layer_norm": "LayerNorm_1",
    "pre_encoder_attn_layer_norm": "LayerNorm_2",
    "encoder_attn_layer_norm": "LayerNorm_3",
    "self_attn": "FlaxBartAttention_0",
    "encoder_attn": "FlaxBartAttention_1",
    "glu": "GLU_0",
    "ln0": "LayerNorm_0",
    "ln1": "LayerNorm_1",
    "fc0": "Dense_0",
    "fc1": "Dense_1",
    "fc2": "Dense_2",
}
UNUSED = "only reads pictures; what draws them does not need it"


def dalle_bart_table(config: DalleBartConfig) -> KeyTable:
    """Return the keys of encoder and decoder, as `plain` gives them.

    Args:
        config: of our network.
    """
    rows = min_dalle.dalle_bart_table(config).rows
    return KeyTable(origin="dalle-mini's model", rows=_renamed(rows, _model_key))


def word_decoder_table(config: WordDecoderConfig) -> KeyTable:
    """Return the keys of the VQGAN, as `plain` gives them.

    Args:
        config: of our network.
    """
    rows = _renamed(min_dalle.word_decoder_table(config).rows, _vqgan_key)
    unused = {f"{name}.{kind}": UNUSED for name in _encoder_layers(config.network) for kind in _kinds(name)}
    return KeyTable(origin="dalle-mini's VQGAN", rows=rows, dropped=unused)


def plain(nested: Mapping[str, Any]) -> dict[str, Tensor]:
    """Lay nested weights out as torch does, one tensor a layer, under their names joined by dots.

    Args:
        nested: dicts in dicts, tensors at the leaves, as the file holds them.

    Raises:
        BadModel: naming a leaf that is no tensor.
    """
    state = dict[str, Tensor]()
    for key, tensor in _leaves(nested, ""):
        if not isinstance(tensor, Tensor):
            raise BadModel(f"{key!r}, a {type(tensor).__name__}", "dicts in dicts, and tensors at the leaves")
        [scan] = [one for one in LAYERS.values() if f".{one}." in key] or [None]
        if scan is None:
            state[key] = _turned(key, tensor)
        else:
            for index, one in enumerate(tensor.unbind()):
                state[key.replace(scan, str(index))] = _turned(key, one)
    return state


def scanned(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Undo `plain`.

    Args:
        state: tensors by their names joined by dots.
    """
    layers, nested = dict[str, list[Tensor]](), dict[str, Any]()
    for key, tensor in state.items():
        file, turned = re.match(r"model\.(encoder|decoder)\.layers\.\d+\.", key), _turned_back(key, tensor)
        if file is None:
            _put(nested, key, turned)
        else:  # in the order of the layers, as the tables name them
            stack = f"model.{file[1]}.layers.{LAYERS[file[1]]}.{key[file.end() :]}"
            layers.setdefault(stack, []).append(turned)
    for key, stack in layers.items():
        _put(nested, key, torch.stack(stack))
    return nested


def _renamed(rows: tuple[Row, ...], rename: Any) -> tuple[Row, ...]:
    return tuple(Row(ours=row.ours, theirs=tuple(rename(key) for key in row.theirs)) for row in rows)


def _model_key(key: str) -> str:
    """Return dalle-mini's name of one of min-dalle's keys of the model."""
    *path, kind = key.split(".")
    if path[-1] == "lm_head":
        return "lm_head.kernel"
    if kind == "weight":
        is_table, is_norm = path[-1].startswith("embed_"), "norm" in path[-1]
        kind = "embedding" if is_table else "scale" if is_norm else "kernel"
    return ".".join(["model", *(MODULES.get(one, one) for one in path), kind])


def _vqgan_key(key: str) -> str:
    """Return dalle-mini's name of one of min-dalle's keys of the detokenizer."""
    if key == "embedding.weight":
        return "quantize.embedding.embedding"
    name, _, kind = key.rpartition(".")
    name = re.sub(r"\b(up|block|attn)\.(\d+)", r"\1_\2", name)
    return f"{name}.{_kinds(name)[0] if kind == 'weight' else kind}"


def _kinds(name: str) -> tuple[str, str]:
    """Return what a layer of the VQGAN consists of."""
    return ("scale" if "norm" in name.rpartition(".")[2] else "kernel", "bias")


def _encoder_layers(config: ConvolutionalConfig) -> Iterator[str]:
    """Names of the layers of the VQGAN's encoder, and of the one between it and the words."""
    yield from ("quant_conv", "encoder.conv_in", "encoder.norm_out", "encoder.conv_out")
    blocks = [("encoder.mid.block_1", False), ("encoder.mid.block_2", False)]
    attentions, before = ["encoder.mid.attn_1"], 1
    for level, growth in enumerate(config.growth):
        for index in range(config.blocks):
            blocks.append((f"encoder.down_{level}.block_{index}", index == 0 and growth != before))
            if config.sides[level] in config.attention_sides:
                attentions.append(f"encoder.down_{level}.attn_{index}")
        if level < len(config.growth) - 1:
            yield f"encoder.down_{level}.downsample.conv"
        before = growth
    for block, widens in blocks:
        yield from (f"{block}.{one}" for one in ("norm1", "conv1", "norm2", "conv2"))
        if widens:
            yield f"{block}.nin_shortcut"
    for attention in attentions:
        yield from (f"{attention}.{one}" for one in ("norm", "q", "k", "v", "proj_out"))


def _turned(key: str, tensor: Tensor) -> Tensor:
    """Outputs before inputs; of a convolution also places last."""
    if not key.endswith(".kernel") or tensor.ndim not in (2, 4):
        return tensor
    return tensor.mT if tensor.ndim == 2 else tensor.permute(3, 2, 0, 1)


def _turned_back(key: str, tensor: Tensor) -> Tensor:
    if not key.endswith(".kernel") or tensor.ndim not in (2, 4):
        return tensor
    return tensor.mT if tensor.ndim == 2 else tensor.permute(2, 3, 1, 0)


def _leaves(nested: Mapping[str, Any], before: str) -> Iterator[tuple[str, Any]]:
    for name, value in nested.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _put(nested: dict[str, Any], key: str, tensor: Tensor) -> None:
    *path, name = key.split(".")
    for one in path:
        nested = nested.setdefault(one, {})
    nested[name] = tensor
