"""Arrays computed once by a network and read many times, stamped with all that made them.

An embedding is worth something only beside the network that made it: embeddings of one CLIP are noise to a prior of
another.  So the store remembers whose they are, and what they were made from, and refuses everybody else.

    manifest.json         format, stamps, arrays with shape and dtype, shards with rows and sha256
    shard-00000.safetensors, ...
"""

import bisect
import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, Shaped
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from opendalle.base.errors import BadData
from opendalle.checkpoint.files import replace_file, to_json
from opendalle.checkpoint.lock import FolderLock

FORMAT = 1
MANIFEST = "manifest.json"
LENGTHS = "#lengths"  # in a shard, behind the name of an array whose rows differ in length: how long each is


@dataclass(frozen=True, kw_only=True)
class Ragged:
    """Rows of different lengths, one after the other: a caption's states, as many as it has tokens."""

    values: Shaped[np.ndarray, "m *rest"]  # m: the sum of all lengths
    lengths: Int64[np.ndarray, " b"]  # of each row

    @classmethod
    def of(cls, rows: Sequence[Shaped[np.ndarray, "_ *rest"]]) -> "Ragged":
        """Lay rows one after the other.

        Args:
            rows: at least one; all alike but for their lengths.
        """
        return cls(values=np.concatenate(rows), lengths=np.array([len(row) for row in rows], dtype=np.int64))

    @classmethod
    def joined(cls, pieces: "Sequence[Ragged]") -> "Ragged":
        """Lay pieces one after the other."""
        values, lengths = ([getattr(one, name) for one in pieces] for name in ("values", "lengths"))
        return cls(values=np.concatenate(values), lengths=np.concatenate(lengths))


Rows = Mapping[str, Shaped[np.ndarray, "b *rest"] | Ragged]


@dataclass(frozen=True, kw_only=True)
class ArrayInfo:
    """One named array of a store, seen over all rows."""

    dtype: str  # numpy's name, e.g. float16
    shape: tuple[int, ...]  # of one row; of a ragged one, of each of its entries
    is_ragged: bool = False  # whether rows differ in length


def join_rows(pieces: Sequence[Mapping[str, np.ndarray | Ragged]]) -> dict[str, np.ndarray | Ragged]:
    """Join pieces of any numbers of rows, one after the other.

    Args:
        pieces: of the same names, each of the same kind in all of them.
    """
    joined: dict[str, np.ndarray | Ragged] = {}
    for name in pieces[0]:
        parts = [piece[name] for piece in pieces]
        ragged = [one for one in parts if isinstance(one, Ragged)]
        plain = [one for one in parts if not isinstance(one, Ragged)]
        joined[name] = np.concatenate(plain) if plain else Ragged.joined(ragged)
    return joined


class StoreWriter:
    """A store in the making: pieces are added until it is whole, by one process or by several, one after the other.

    The pieces lie in a folder beside `out` (`OUT.pieces`), whose manifest tells of a piece only when it is whole: so
    whatever ends a process leaves all that was added to the next one.

    Args:
        out: folder to make; must not exist.
        stamps: what makes the rows, e.g. {"clip": sha256 of its weights}.
        anew: throw away the pieces of an earlier writer instead of going on with them.

    Raises:
        BadData: when `out` exists, or the pieces that lie there were made with other stamps.
        BadModel: when another process is writing there.
    """

    def __init__(self, out: Path, *, stamps: Mapping[str, str], anew: bool = False) -> None:
        if out.exists():
            raise BadData(f"{out} exists", "a new folder", "Delete it first.")
        self.out, self.folder = out, out.with_name(f"{out.name}.pieces")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = FolderLock(self.folder)
        self._stamps, self._records = dict(stamps), list[dict[str, Any]]()
        self._arrays: dict[str, ArrayInfo] | None = None
        try:
            if not anew and (self.folder / MANIFEST).is_file():
                self._take_up()
        except BaseException:
            self.close()
            raise

    @property
    def rows(self) -> int:
        """How many rows there are so far."""
        return sum(record["rows"] for record in self._records)

    def add(self, rows: Rows) -> None:
        """Add a piece.

        Args:
            rows: the same names, dtypes and shapes in every piece, as many rows each.

        Raises:
            BadData: when the piece does not match those before it, or lengths do not add up.
        """
        number = len(self._records)
        infos = {name: _info(array) for name, array in rows.items()}
        counts = {len(one.lengths if isinstance(one, Ragged) else one) for one in rows.values()}
        if len(counts) != 1 or (self._arrays is not None and infos != self._arrays):
            raise BadData(f"shard {number} with {infos}, rows {sorted(counts)}", f"{self._arrays}, as many rows each")
        path = self.folder / f"shard-{number:05d}.safetensors"
        save_file(_flat(rows), path)
        self._arrays = infos
        self._records.append({"file": path.name, "rows": counts.pop(), "sha256": _sha256(path)})
        arrays = {name: _plain(info) for name, info in infos.items()}
        manifest = {"format": FORMAT, "stamps": self._stamps, "arrays": arrays, "shards": self._records}
        replace_file(self.folder / MANIFEST, to_json(manifest))

    def finish(self) -> None:
        """Give the store its name: from now on it can be read.

        Raises:
            BadData: when there is no row.
        """
        if not self._records:
            raise BadData("no rows", "at least one shard")
        self.close()
        (self.folder / ".lock").unlink(missing_ok=True)
        self.folder.rename(self.out)

    def discard(self) -> None:
        """Delete the pieces."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Let another process go on; harmless when repeated."""
        self._lock.release()

    def _take_up(self) -> None:
        """Go on with an earlier writer's pieces, up to the first one that a crash has damaged."""
        manifest = _manifest(self.folder)
        _refuse_others(self.folder, manifest["stamps"], self._stamps)
        self._arrays = _arrays(manifest)
        for record in manifest["shards"]:
            path = self.folder / record["file"]
            if not path.is_file() or _sha256(path) != record["sha256"]:
                break
            self._records.append(record)


def write_store(out: Path, shards: Iterable[Rows], *, stamps: Mapping[str, str]) -> None:
    """Write a store in one go; it appears at `out` whole or not at all.

    Args:
        out: folder to make; must not exist.
        shards: pieces in order, each a mapping of the same names to arrays with as many rows as each other.
        stamps: what made them, e.g. {"clip": sha256 of its weights}.

    Raises:
        BadData: when `out` exists, there is no row, or the pieces do not match.
    """
    writer = StoreWriter(out, stamps=stamps, anew=True)
    try:
        for rows in shards:
            writer.add(rows)
        writer.finish()
    except BaseException:
        writer.discard()
        raise


class EmbeddingStore:
    """A store, opened for the networks it was made by.

    Args:
        folder: made by `write_store`.
        stamps: of the networks that will use it, and of all else that makes its rows; must equal those it has.
        verify: also compare every shard's sha256, which reads all bytes once.

    Raises:
        BadData: when it is no store, is damaged, or was made with other stamps.
    """

    def __init__(self, folder: Path, *, stamps: Mapping[str, str], verify: bool = False) -> None:
        self.folder = Path(folder)
        manifest = _manifest(self.folder)
        self.stamps: dict[str, str] = manifest["stamps"]
        _refuse_others(self.folder, self.stamps, stamps)
        self.arrays = _arrays(manifest)
        self._files = [self.folder / shard["file"] for shard in manifest["shards"]]
        self._ends = np.cumsum([shard["rows"] for shard in manifest["shards"]]).tolist()
        for path, shard in zip(self._files, manifest["shards"], strict=True):
            if not path.is_file() or (verify and _sha256(path) != shard["sha256"]):
                raise BadData(f"{path} is missing or damaged", "the file its manifest tells of", "Compute it again.")
        self._open: dict[int, Any] = {}
        self._cumulated: dict[tuple[int, str], Int64[np.ndarray, " b"]] = {}

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._ends[-1]

    def row(self, name: str, index: int) -> Shaped[np.ndarray, "*rest"]:
        """Return one row of one array, read from disk; of a ragged array all that it holds, in its own length.

        Args:
            name: one of `arrays`.
            index: 0 <= index < len.

        Raises:
            IndexError: when there is no such row.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect.bisect_right(self._ends, index)
        index -= self._ends[number - 1] if number else 0
        rows, info = self._shard(number).get_slice(name), self.arrays[name]
        if not info.is_ragged:
            return rows[index]
        ends = self._row_ends(number, name)
        first, last = int(ends[index - 1]) if index else 0, int(ends[index])
        # safetensors takes an empty slice at the very end for one that lies outside.
        return rows[first:last] if first < last else np.zeros((0, *info.shape), dtype=info.dtype)

    def array(self, name: str) -> Shaped[np.ndarray, "n *rest"]:
        """Return a whole array, all shards joined; of a ragged array the rows one after the other."""
        return np.concatenate([self._shard(number).get_tensor(name) for number in range(len(self._files))])

    def lengths(self, name: str) -> Int64[np.ndarray, " n"]:
        """Return the length of every row of a ragged array.

        Args:
            name: one of `arrays`, ragged.
        """
        return self.array(name + LENGTHS)

    def _row_ends(self, number: int, name: str) -> Int64[np.ndarray, " b"]:
        """Where each row of a shard's ragged array ends; kept, since rows are read one by one."""
        if (number, name) not in self._cumulated:
            self._cumulated[number, name] = np.cumsum(self._shard(number).get_tensor(name + LENGTHS))
        return self._cumulated[number, name]

    def _shard(self, number: int) -> Any:
        if number not in self._open:
            try:
                self._open[number] = safe_open(self._files[number], framework="numpy")
            except (OSError, SafetensorError) as error:
                raise BadData(f"{self._files[number]} ({error})", "a whole shard", "Compute it again.") from None
        return self._open[number]


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise BadData(f"{folder} ({error})", "a folder of precomputed embeddings") from None
    if manifest.get("format") != FORMAT:
        raise BadData(f"{folder} of format {manifest.get('format')}", f"format {FORMAT}", "Compute it again.")
    return manifest


def _info(array: Shaped[np.ndarray, "b *rest"] | Ragged) -> ArrayInfo:
    if not isinstance(array, Ragged):
        return ArrayInfo(dtype=str(array.dtype), shape=tuple(array.shape[1:]))
    if len(array.values) != array.lengths.sum() or bool((array.lengths < 0).any()):
        raise BadData(f"lengths with the sum {array.lengths.sum()}", f"{len(array.values)}, the number of entries")
    return ArrayInfo(dtype=str(array.values.dtype), shape=tuple(array.values.shape[1:]), is_ragged=True)


def _flat(rows: Rows) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Return the arrays of a shard: a ragged one is two."""
    flat: dict[str, np.ndarray] = {}
    for name, array in rows.items():
        flat[name] = np.ascontiguousarray(array.values if isinstance(array, Ragged) else array)
        if isinstance(array, Ragged):
            flat[name + LENGTHS] = np.ascontiguousarray(array.lengths)
    return flat


def _plain(info: ArrayInfo) -> dict[str, Any]:
    plain = {"dtype": info.dtype, "shape": list(info.shape)}
    return plain | {"ragged": True} if info.is_ragged else plain


def _arrays(manifest: Mapping[str, Any]) -> dict[str, ArrayInfo]:
    return {
        name: ArrayInfo(dtype=info["dtype"], shape=tuple(info["shape"]), is_ragged=info.get("ragged", False))
        for name, info in manifest["arrays"].items()
    }


def _refuse_others(folder: Path, made: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    for name, stamp in wanted.items():
        if made.get(name) != stamp:
            had = f"made with {name} {short_stamp(made[name])}" if name in made else f"whose {name} nobody wrote down"
            todo = f"Compute the embeddings again: delete {folder} first."
            raise BadData(f"{folder}, {had}", f"{name} {short_stamp(stamp)}, which is in use", todo)


def short_stamp(stamp: str) -> str:
    """Return a stamp for a message: of a sha256 the beginning says enough."""
    return stamp[:12] if len(stamp) == 64 else stamp


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
