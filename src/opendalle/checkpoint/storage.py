"""How weights lie on disk: exact, halved, or as whole numbers that are written shortly.

float32    every bit.
bfloat16   matrices rounded to 8 significant bits: relative error at most 2^-8.
int8-row   matrices as whole numbers -127..127 times one float32 scale per row (the first axis: output channel of a
           layer, token of an embedding).  With scale = max|w| / 127 the error is at most scale / 2.
even-step  matrices as whole numbers times one step for all rows, a fifth of the spread of their numbers, rounded with
           feedback: what is rounded off one column, others make good, as far as what passes through the layer says
           that they can (docs/decisions/0015).  Matrices of which nothing is known lie as int8-row.

The weights of a row follow a bell curve, so small numbers are many and large ones few.  They lie as Huffman codes, in
zlib's format: about 7.2 bits a number as int8-row, 4.4 as even-step, and not a bit is lost
(docs/decisions/0013).  A tensor with a NAME#shape beside it lies so; one without lies a byte a number, as a small one
does, and as all did in folders of format 1.

Only matrices, convolutions and embeddings are rounded.  Vectors (biases, gains of norms) are a hundredth of the
bytes and a larger share of the damage, so they stay float32; tables that are not float32 weights (float64, integers,
booleans) stay as they are.  Reading always gives float32 back for what was rounded.
"""

import math
import zlib
from collections.abc import Mapping
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int8, UInt8
from torch import Tensor

from opendalle.base.errors import BadModel
from opendalle.checkpoint.feedback import LARGEST, even_step, round_with_feedback

Storage = Literal["float32", "bfloat16", "int8-row", "even-step"]
STORAGES: tuple[str, ...] = get_args(Storage)
SCALE_SUFFIX, SHAPE_SUFFIX = "#scale", "#shape"  # no parameter of a torch module is called so
EVEN_SHARE = 0.2  # of the spread of a matrix's numbers, that one step is
_SHAPE_COSTS = 128  # bytes of a file that one more small tensor takes, its name and place included
_MEMORY = 9  # the most zlib may take: longer blocks, fewer code tables
_MOST_AXES = 8  # of a packed tensor
_MOST_NUMBERS_A_BYTE = 8  # a Huffman code has a bit at least


def to_storage(
    state: Mapping[str, Tensor], storage: str, moments: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Round a state dict to its form on disk.

    Args:
        state: name -> tensor, on any device.
        storage: one of STORAGES.
        moments: of the inputs of layers, by the name of their weights; read by even-step alone.

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
        elif storage == "even-step" and moments is not None and name in moments:
            step = even_step(value.float(), EVEN_SHARE)
            numbers = round_with_feedback(value.flatten(1).float(), moments[name], step).reshape(value.shape)
            stored[name + SCALE_SUFFIX] = torch.full((len(value),), step)
            stored |= lay_down(name, numbers)
        else:
            numbers, stored[name + SCALE_SUFFIX] = quantise_rows(value.float())
            stored |= lay_down(name, numbers)
    return stored


def from_storage(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo `to_storage`: float32 for everything that was rounded.

    Args:
        stored: as read from a safetensors file.

    Raises:
        BadModel: when packed numbers are damaged, or numbers, shape and scales do not fit together.
    """
    state: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        if name.endswith((SCALE_SUFFIX, SHAPE_SUFFIX)):
            continue
        scale, shape = stored.get(name + SCALE_SUFFIX), stored.get(name + SHAPE_SUFFIX)
        if shape is not None:
            tensor = unpack(name, tensor, shape)
        if scale is not None or shape is not None:
            tensor = dequantise_rows(tensor, _fitting(name, tensor, scale))
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
    weight: Float[Tensor, "rows *rest"],
) -> tuple[Int8[Tensor, "rows *rest"], Float[Tensor, " rows"]]:
    """Round each row to whole numbers times the row's scale.

    Args:
        weight: float32, finite.

    Returns:
        The whole numbers, and one scale a row; a row of zeros has scale 1.
    """
    scale = weight.flatten(1).abs().amax(1) / LARGEST
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    rows = scale.reshape(-1, *(1,) * (weight.ndim - 1))
    return (weight / rows).round().clamp(-LARGEST, LARGEST).to(torch.int8), scale


def dequantise_rows(numbers: Int8[Tensor, "rows *rest"], scale: Float[Tensor, " rows"]) -> Float[Tensor, "rows *rest"]:
    """Return float32 weights from whole numbers and the scale of each row.

    Args:
        numbers: int8.
        scale: float32, positive.
    """
    return numbers.float().mul_(scale.reshape(-1, *(1,) * (numbers.ndim - 1)))


def lay_down(name: str, numbers: Int8[Tensor, "rows *rest"]) -> dict[str, Tensor]:
    """Return whole numbers as they lie on disk: packed, or as they are where packing gains nothing.

    Args:
        name: of the weights.
        numbers: int8, on the CPU.
    """
    packed = pack(numbers)
    if len(packed) + _SHAPE_COSTS >= numbers.numel() or numbers.ndim > _MOST_AXES:
        return {name: numbers}
    return {name: packed, name + SHAPE_SUFFIX: torch.tensor(numbers.shape)}


def pack(numbers: Int8[Tensor, "rows *rest"]) -> UInt8[Tensor, " bytes"]:
    """Write whole numbers as Huffman codes, frequent ones short: a stream of zlib's.

    The same zlib writes the same bytes.  Another one may write others, of the same numbers.

    Args:
        numbers: int8, on the CPU.
    """
    # Weights repeat no phrases: looking for them only wastes time and, with few bits, space.
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS, _MEMORY, zlib.Z_HUFFMAN_ONLY)
    packed = packer.compress(numbers.contiguous().numpy().data) + packer.flush()
    return torch.frombuffer(bytearray(packed), dtype=torch.uint8)


def unpack(name: str, packed: Tensor, shape: Tensor) -> Int8[Tensor, "rows *rest"]:
    """Undo `pack`, inflating no more than the shape asks for, whatever the bytes would become.

    Args:
        name: of the weights, for the error.
        packed: uint8, bytes of zlib's.
        shape: int64, of the numbers.

    Raises:
        BadModel: when the shape is none, or the bytes do not hold just so many numbers.
    """
    if packed.ndim != 1 or packed.dtype != torch.uint8:
        raise BadModel(f"weights {name!r} as {_looks(packed)}", "packed bytes, since a shape lies beside them")
    if shape.ndim != 1 or shape.dtype != torch.int64 or not 2 <= len(shape) <= _MOST_AXES:
        raise BadModel(f"weights {name!r} with a shape that is {_looks(shape)}", f"int64, of 2 to {_MOST_AXES} sizes")
    sizes = shape.tolist()
    count = math.prod(sizes)
    if min(sizes) < 1 or count > len(packed) * _MOST_NUMBERS_A_BYTE:
        raise BadModel(f"weights {name!r} of shape {sizes} in {len(packed)} bytes", "a shape that they can fill")
    reader, trouble = zlib.decompressobj(), "another number of them"
    try:
        # Room for one more than there should be: without it the stream's end stays unread.
        numbers = reader.decompress(packed.contiguous().numpy().data, count + 1)
    except zlib.error as error:
        numbers, trouble = b"", str(error)
    if len(numbers) != count or not reader.eof or reader.unused_data:
        raise BadModel(
            f"weights {name!r}, whose bytes are not {count} packed numbers ({trouble})",
            "them as opendalle packs them",
            "Get the model again.",
        )
    return torch.frombuffer(bytearray(numbers), dtype=torch.int8).reshape(sizes)


def _fitting(name: str, numbers: Tensor, scale: Tensor | None) -> Tensor:
    whole = numbers.dtype == torch.int8 and numbers.ndim >= 2
    if scale is None or not whole or scale.dtype != torch.float32 or scale.shape != numbers.shape[:1]:
        scales = "no scales" if scale is None else f"scales {_looks(scale)}"
        raise BadModel(f"weights {name!r} as {_looks(numbers)} with {scales}", "int8 numbers, a float32 scale a row")
    return scale


def _looks(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {list(tensor.shape)[:_MOST_AXES]}"
