"""Arrays computed once by a network and read many times, stamped with that network's hash.

An embedding is worth something only beside the network that made it: embeddings of one CLIP are noise to a prior of
another.  So the store remembers whose they are and refuses everybody else.

    manifest.json         format, stamp of the network, arrays with shape and dtype, shards with rows and sha256
    shard-00000.safetensors, ...
"""

import bisect
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from opendalle.base.errors import BadData

FORMAT = 1
Rows = Mapping[str, Shaped[np.ndarray, "b *rest"]]


@dataclass(frozen=True, kw_only=True)
class ArrayInfo:
    """One named array of a store, seen over all rows."""

    dtype: str  # numpy's name, e.g. float16
    shape: tuple[int, ...]  # of one row


def write_store(out: Path, shards: Iterable[Rows], *, stamps: Mapping[str, str]) -> None:
    """Write a store; it appears at `out` whole or not at all.

    Args:
        out: folder to make; must not exist.
        shards: pieces in order, each a mapping of the same names to arrays with as many rows as each other.
        stamps: what made them, e.g. {"clip": sha256 of its weights}.

    Raises:
        BadData: when `out` exists, there is no row, or the pieces do not match.
    """
    if out.exists():
        raise BadData(f"{out} exists", "a new folder", "Delete it first.")
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        known: dict[str, ArrayInfo] | None = None
        records = []
        for number, rows in enumerate(shards):
            infos = {name: ArrayInfo(dtype=str(a.dtype), shape=tuple(a.shape[1:])) for name, a in rows.items()}
            counts = {len(array) for array in rows.values()}
            if len(counts) != 1 or (known is not None and infos != known):
                raise BadData(f"shard {number} with {infos}, rows {sorted(counts)}", f"{known}, as many rows each")
            known = infos
            name = f"shard-{number:05d}.safetensors"
            save_file({key: np.ascontiguousarray(array) for key, array in rows.items()}, work / name)
            records.append({"file": name, "rows": counts.pop(), "sha256": _sha256(work / name)})
        if known is None:
            raise BadData("no rows", "at least one shard")
        arrays = {name: {"dtype": info.dtype, "shape": list(info.shape)} for name, info in known.items()}
        manifest = {"format": FORMAT, "stamps": dict(stamps), "arrays": arrays, "shards": records}
        with (work / "manifest.json").open("w", encoding="utf-8") as file:
            json.dump(manifest, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        work.rename(out)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


class EmbeddingStore:
    """A store, opened for the networks it was made by.

    Args:
        folder: made by `write_store`.
        stamps: hashes of the networks that will use it; must equal those it was made by.
        verify: also compare every shard's sha256, which reads all bytes once.

    Raises:
        BadData: when it is no store, is damaged, or was made by another network.
    """

    def __init__(self, folder: Path, *, stamps: Mapping[str, str], verify: bool = False) -> None:
        self.folder = Path(folder)
        manifest = _manifest(self.folder)
        self.stamps: dict[str, str] = manifest["stamps"]
        for name, stamp in stamps.items():
            if self.stamps.get(name) != stamp:
                raise BadData(
                    f"{self.folder} made by {name} {str(self.stamps.get(name))[:12]}",
                    f"the {name} in use, {stamp[:12]}",
                    "Compute the embeddings again with it.",
                )
        self.arrays = {
            name: ArrayInfo(dtype=info["dtype"], shape=tuple(info["shape"]))
            for name, info in manifest["arrays"].items()
        }
        self._files = [self.folder / shard["file"] for shard in manifest["shards"]]
        self._ends = np.cumsum([shard["rows"] for shard in manifest["shards"]]).tolist()
        for path, shard in zip(self._files, manifest["shards"], strict=True):
            if not path.is_file() or (verify and _sha256(path) != shard["sha256"]):
                raise BadData(f"{path} is missing or damaged", "the file its manifest tells of", "Compute it again.")
        self._open: dict[int, Any] = {}

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._ends[-1]

    def row(self, name: str, index: int) -> Shaped[np.ndarray, "*rest"]:
        """Return one row of one array, read from disk.

        Args:
            name: one of `arrays`.
            index: 0 <= index < len.

        Raises:
            IndexError: when there is no such row.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect.bisect_right(self._ends, index)
        start = self._ends[number - 1] if number else 0
        return self._shard(number).get_slice(name)[index - start]

    def array(self, name: str) -> Shaped[np.ndarray, "n *rest"]:
        """Return a whole array, all shards joined."""
        return np.concatenate([self._shard(number).get_tensor(name) for number in range(len(self._files))])

    def _shard(self, number: int) -> Any:
        if number not in self._open:
            try:
                self._open[number] = safe_open(self._files[number], framework="numpy")
            except (OSError, SafetensorError) as error:
                raise BadData(f"{self._files[number]} ({error})", "a whole shard", "Compute it again.") from None
        return self._open[number]


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise BadData(f"{folder} ({error})", "a folder of precomputed embeddings") from None
    if manifest.get("format") != FORMAT:
        raise BadData(f"{folder} of format {manifest.get('format')}", f"format {FORMAT}", "Compute it again.")
    return manifest


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
