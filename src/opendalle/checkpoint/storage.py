"""How weights lie on disk: exact, halved, or a byte a number.

float32    every bit.
bfloat16   matrices rounded to 8 significant bits: relative error at most 2^-8.
int8-row   matrices as whole numbers -127..127 times one float32 scale per row (the first axis: output channel of a
           layer, token of an embedding).  With scale = max|w| / 127 the error is at most scale / 2.

Only matrices, convolutions and embeddings are rounded.  Vectors (biases, gains of norms) are a hundredth of the
bytes and a larger share of the damage, so they stay float32; tables that are not float32 weights (float64, integers,
booleans) stay as they are.  Reading always gives float32 back for what was rounded.
"""

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from opendalle.base.errors import BadModel

Storage = Literal["float32", "bfloat16", "int8-row"]
STORAGES: tuple[str, ...] = get_args(Storage)
SCALE_SUFFIX = "#scale"  # no parameter of a torch module is called so


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
            stored[name], stored[name + SCALE_SUFFIX] = quantise_rows(value.float())
    return stored


def from_storage(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo `to_storage`: float32 for everything that was rounded.

    Args:
        stored: as read from a safetensors file.
    """
    state: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        if name.endswith(SCALE_SUFFIX):
            continue
        scale = stored.get(name + SCALE_SUFFIX)
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


def quantise_rows(weight: Float[Tensor, "rows *rest"]) -> tuple[Int8[Tensor, "rows *rest"], Float[Tensor, " rows"]]:
    """Round each row to whole numbers from -127 to 127 times the row's scale.

    Args:
        weight: float32, finite.

    Returns:
        The whole numbers, and one scale a row; a row of zeros has scale 1.
    """
    scale = weight.flatten(1).abs().amax(1) / 127
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    rows = scale.reshape(-1, *(1,) * (weight.ndim - 1))
    return (weight / rows).round().clamp(-127, 127).to(torch.int8), scale


def dequantise_rows(numbers: Int8[Tensor, "rows *rest"], scale: Float[Tensor, " rows"]) -> Float[Tensor, "rows *rest"]:
    """Return float32 weights from whole numbers and the scale of each row.

    Args:
        numbers: int8.
        scale: float32, positive.
    """
    return numbers.float() * scale.reshape(-1, *(1,) * (numbers.ndim - 1))
