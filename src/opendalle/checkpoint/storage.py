"""How weights lie on disk: exact, halved, a byte a number, or six bits.

float32    every bit.
bfloat16   matrices rounded to 8 significant bits: relative error at most 2^-8.
int8-row   matrices as whole numbers -127..127 times one float32 scale per row (the first axis: output channel of a
           layer, token of an embedding).  With scale = max|w| / 127 the error is at most scale / 2.
int6-row   the same with whole numbers -31..31, four in three bytes: for networks whose answer is a mean, which bear it
           (docs/decisions/0012); a denoiser, asked twenty times in a row, does not.

Only matrices, convolutions and embeddings are rounded.  Vectors (biases, gains of norms) are a hundredth of the
bytes and a larger share of the damage, so they stay float32; tables that are not float32 weights (float64, integers,
booleans) stay as they are.  Reading always gives float32 back for what was rounded.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int8, UInt8
from torch import Tensor

from opendalle.base.errors import BadModel

Storage = Literal["float32", "bfloat16", "int8-row", "int6-row"]
STORAGES: tuple[str, ...] = get_args(Storage)
SCALE_SUFFIX, SHAPE_SUFFIX = "#scale", "#shape"  # no parameter of a torch module is called so
LARGEST = {"int8-row": 127, "int6-row": 31}  # whole number


def to_storage(state: Mapping[str, Tensor], storage: str) -> dict[str, Tensor]:
    """Round a state dict to its form on disk.

    Args:
        state: name -> tensor, on any device.
        storage: one of STORAGES.

    Returns:
        Contiguous CPU copies that share no memory, as safetensors wants them.

    Raises:
        BadModel: for an unknown storage, or weights that are not finite.
    """
    if storage not in STORAGES:
        raise BadModel(f"storage {storage!r}", "one of " + ", ".join(STORAGES))
    stored: dict[str, Tensor] = {}
    for name, tensor in state.items():
        value = tensor.detach().to("cpu", copy=True).contiguous()
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise BadModel(f"weights {name!r} with NaN or infinity", "finite weights", "Go back to an earlier save.")
        if not is_rounded(value, storage):
            stored[name] = value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
        elif storage == "bfloat16":
            stored[name] = value.bfloat16()
        else:
            numbers, stored[name + SCALE_SUFFIX] = quantise_rows(value.float(), LARGEST[storage])
            stored[name] = numbers
            if storage == "int6-row":
                stored[name], stored[name + SHAPE_SUFFIX] = pack_six(numbers), torch.tensor(numbers.shape)
    return stored


def from_storage(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo `to_storage`: float32 for everything that was rounded.

    Args:
        stored: as read from a safetensors file.
    """
    state: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        if name.endswith((SCALE_SUFFIX, SHAPE_SUFFIX)):
            continue
        scale, shape = stored.get(name + SCALE_SUFFIX), stored.get(name + SHAPE_SUFFIX)
        if shape is not None:
            tensor = unpack_six(tensor, shape.tolist())
        if scale is not None:
            tensor = dequantise_rows(tensor, scale)
        state[name] = tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
    return state


def is_rounded(tensor: Tensor, storage: str) -> bool:
    """Say whether a storage rounds this tensor: float weights of two axes or more.

    Args:
        tensor: any tensor.
        storage: one of STORAGES.
    """
    weights = tensor.dtype in (torch.float32, torch.float16, torch.bfloat16)
    return storage != "float32" and weights and tensor.ndim >= 2 and tensor.numel() > 0


def quantise_rows(
    weight: Float[Tensor, "rows *rest"], largest: int = 127
) -> tuple[Int8[Tensor, "rows *rest"], Float[Tensor, " rows"]]:
    """Round each row to whole numbers times the row's scale.

    Args:
        weight: float32, finite.
        largest: whole number, on both sides of 0.

    Returns:
        The whole numbers, and one scale a row; a row of zeros has scale 1.
    """
    scale = weight.flatten(1).abs().amax(1) / largest
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    rows = scale.reshape(-1, *(1,) * (weight.ndim - 1))
    return (weight / rows).round().clamp(-largest, largest).to(torch.int8), scale


def dequantise_rows(numbers: Int8[Tensor, "rows *rest"], scale: Float[Tensor, " rows"]) -> Float[Tensor, "rows *rest"]:
    """Return float32 weights from whole numbers and the scale of each row.

    Args:
        numbers: int8.
        scale: float32, positive.
    """
    return numbers.float() * scale.reshape(-1, *(1,) * (numbers.ndim - 1))


def pack_six(numbers: Int8[Tensor, "rows *rest"]) -> UInt8[Tensor, " bytes"]:
    """Put four whole numbers into three bytes.

    Args:
        numbers: -32 to 31.
    """
    flat = (numbers.flatten().to(torch.int32) + 32).view(-1)
    flat = torch.nn.functional.pad(flat, (0, -len(flat) % 4)).view(-1, 4)
    word = flat[:, 0] | flat[:, 1] << 6 | flat[:, 2] << 12 | flat[:, 3] << 18
    return torch.stack([word & 255, word >> 8 & 255, word >> 16], dim=1).to(torch.uint8).flatten()


def unpack_six(packed: UInt8[Tensor, " bytes"], shape: Sequence[int]) -> Int8[Tensor, "rows *rest"]:
    """Undo `pack_six`.

    Args:
        packed: three bytes for four numbers.
        shape: of the numbers.

    Raises:
        BadModel: when there are fewer or more bytes than the shape needs.
    """
    count = math.prod(shape)
    if packed.ndim != 1 or packed.dtype != torch.uint8 or len(packed) != -(-count // 4) * 3:
        raise BadModel(f"{len(packed)} bytes for {count} numbers of six bits", "three bytes for four numbers")
    three = packed.view(-1, 3).to(torch.int32)
    word = three[:, 0] | three[:, 1] << 8 | three[:, 2] << 16
    flat = torch.stack([word >> shift & 63 for shift in (0, 6, 12, 18)], dim=1).flatten()[:count] - 32
    return flat.to(torch.int8).reshape(tuple(shape))
