"""A CLIP embedding as a file: what `embed` writes and `generate --embedding` draws from.

An embedding means something only to the CLIP that made it, so the file says which one that was.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from opendalle.base.axes import Embeddings
from opendalle.base.errors import BadRequest
from opendalle.pictures import read_bytes, refuse_unwritable
from opendalle.pictures.writing import write_whole

ENDING, NAME = ".safetensors", "z"
MAX_BYTES = 2**20


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """An embedding from a file, and how a recipe names it."""

    z: Embeddings  # one row
    clip: str  # sha256 of the CLIP that made it
    name: str  # of the file, without its place
    sha256: str  # of the file's bytes

    def record(self) -> Mapping[str, str]:
        """What a recipe keeps of it."""
        return {"name": self.name, "sha256": self.sha256}


def check_name(path: Path) -> None:
    """Refuse a name that no embedding can be written under, before anything is loaded.

    Args:
        path: as asked for.

    Raises:
        BadRequest: when it has another ending, is taken, or cannot be written.
    """
    if path.suffix.lower() != ENDING:
        raise BadRequest(f"the name {path.name!r}", f"a name ending in {ENDING}")
    refuse_unwritable(path)


def write_embedding(path: Path, z: Embeddings, clip: str) -> Path:
    """Write an embedding.

    Args:
        path: a name ending in .safetensors that is free.
        z: one row.
        clip: sha256 of the CLIP that made it.

    Raises:
        BadRequest: when the name has another ending, is taken, or cannot be written.
    """
    check_name(path)
    data = save({NAME: z.float().cpu().contiguous()}, {"clip": clip})
    write_whole(path, lambda file: file.write(data))
    return path


def read_embedding(path: Path) -> Embedded:
    """Read an embedding.

    Args:
        path: of a file that `write_embedding` wrote.

    Raises:
        BadPicture: when there is no such file, or it is too large.
        BadRequest: when it holds something else.
    """
    data = read_bytes(path, MAX_BYTES)
    try:
        header = int.from_bytes(data[:8], "little")
        tensors = load(data)
        clip = _clip_of(data[8 : 8 + header])
    except (SafetensorError, ValueError, LookupError, TypeError):
        tensors, clip = {}, ""
    z = tensors.get(NAME)
    if z is None or z.ndim != 2 or len(z) != 1 or z.dtype != torch.float32 or not bool(z.isfinite().all()) or not clip:
        raise BadRequest(f"{path}, which holds no embedding", "a file that opendalle embed wrote")
    return Embedded(z=z, clip=clip, name=path.name, sha256=hashlib.sha256(data).hexdigest())


def _clip_of(header: bytes) -> str:
    """Read the stamp from a safetensors header: safetensors' own reader of bytes drops it."""
    return str(json.loads(header)["__metadata__"]["clip"])
