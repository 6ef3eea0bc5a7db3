"""Files that are either wholly there or not there at all.

A crash may fall between any two system calls.  So nothing is ever written where a reader looks: a draft is written
beside it, every byte is pushed to the disk (fsync), and one rename, which file systems do in one piece, makes it
visible.  What a crash leaves behind is a hidden draft that no reader opens.
"""

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from reprlib import repr as repr_short
from typing import Any

from opendalle.base.errors import BadModel

DRAFT = re.compile(r"\..+\.(draft|old)-[0-9a-f]{8}")
_BINARY = getattr(os, "O_BINARY", 0)  # Windows would translate line ends without it


def write_file(path: Path, payload: bytes) -> dict[str, Any]:
    """Write a new file, push it to the disk, and describe it as a manifest does.

    Args:
        path: must not exist yet.
        payload: the whole content.

    Returns:
        `{"bytes": length, "sha256": hexadecimal digest}` of what was meant to be written.

    Raises:
        OSError: when the disk refuses; the file may then hold a part of the payload.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o644)
    try:
        rest = memoryview(payload)
        while rest:  # a disk may take less than it is offered
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return {"bytes": len(payload), "sha256": hashlib.sha256(payload).hexdigest()}


def replace_file(path: Path, payload: bytes) -> None:
    """Give a file a new content in one piece: readers see the old one or the new one, whole.

    Args:
        path: may or may not exist.
        payload: the whole new content.
    """
    draft = _beside(path, "draft")
    try:
        write_file(draft, payload)
        draft.replace(path)
        sync_folder(path.parent)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def new_folder(final: Path, replace: bool = False) -> Iterator[Path]:
    """Fill a draft folder; it takes its final name when the block ends well and vanishes when it does not.

    Args:
        final: the name that readers will look for.
        replace: allow `final` to exist; the old folder is moved aside, then deleted.

    Yields:
        The draft, empty, a hidden sibling of `final` (a rename must stay within one file system).

    Raises:
        BadModel: when `final` exists and `replace` is False.
    """
    if final.exists() and not replace:
        raise BadModel(f"{final}, which exists already", "a new folder", "Choose another name, or ask to replace it.")
    final.parent.mkdir(parents=True, exist_ok=True)
    draft = _beside(final, "draft")
    draft.mkdir()
    try:
        yield draft
        for folder in (*(one for one in sorted(draft.rglob("*")) if one.is_dir()), draft):
            sync_folder(folder)
        _publish(draft, final)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def remove_folder(folder: Path) -> None:
    """Delete a folder so that no reader can ever meet half of it: rename first, then delete.

    Args:
        folder: an existing folder.
    """
    doomed = _beside(folder, "old")
    folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def remove_drafts(parent: Path) -> None:
    """Delete what crashed writers left behind.  Only for the one process that owns `parent`.

    Args:
        parent: the folder whose hidden drafts go.
    """
    for one in parent.iterdir():
        if DRAFT.fullmatch(one.name):
            shutil.rmtree(one, ignore_errors=True) if one.is_dir() else one.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Push a folder's own entries (names, renames) to the disk.

    Args:
        folder: an existing folder.
    """
    if os.name == "nt":  # Windows opens no folders; its renames are journalled
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def to_json(value: Any) -> bytes:
    """Write plain data as JSON text that a person can read and a diff can follow.

    Args:
        value: dicts, lists, text, numbers; no NaN, which JSON does not know.
    """
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: the file.

    Raises:
        BadModel: when it is missing, is not JSON, or is no object.
    """
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise BadModel(f"no file {path}", "a folder that opendalle wrote") from None
    except OSError as error:
        raise BadModel(f"{path}, which cannot be read ({error.strerror or error})", "a file you may read") from None
    except (ValueError, RecursionError) as error:
        raise BadModel(f"{path}, which is unreadable ({error})", "JSON as opendalle writes it") from None
    if not isinstance(value, dict):
        raise BadModel(f"{path}, which holds a {type(value).__name__}", "a JSON object")
    return value


def checked(root: Path, name: str, entry: Any) -> Path:
    """Return the path of a listed file after comparing its size and sha256 with its manifest entry.

    Args:
        root: the folder that the manifest speaks of.
        name: relative path with forward slashes, as listed.
        entry: what `write_file` returned when the file was made.

    Raises:
        BadModel: when the name leads out of the folder or the file is not the one that was written.
    """
    path = root / inside(name)
    advice = "The folder is damaged: copy it again, or write it again."
    try:
        return _compared(path, name, entry, advice)
    except OSError as error:
        raise BadModel(f"{path}, which cannot be read ({error.strerror or error})", "a file you may read") from None


def _compared(path: Path, name: str, entry: Any, advice: str) -> Path:
    if not isinstance(entry, dict) or {"bytes", "sha256"} - set(entry):
        raise BadModel(f"a manifest whose entry of {name} is {repr_short(entry)}", "its bytes and sha256", advice)
    if path.is_symlink() or not path.is_file():
        raise BadModel(f"no file {path}", "every file that the manifest lists", advice)
    if (size := path.stat().st_size) != entry["bytes"]:
        raise BadModel(f"{path} of {size} bytes", f"{entry['bytes']} bytes", advice)
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != entry["sha256"]:
        raise BadModel(f"{path} with sha256 {digest[:12]}…", f"{str(entry['sha256'])[:12]}…", advice)
    return path


def is_there(path: Path) -> bool:
    """Say whether a file is there; what the system will not let us look at is an error, not an absence.

    Args:
        path: of the file.

    Raises:
        BadModel: when a folder on the way may not be entered.
    """
    try:
        return path.is_file()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # so no file can be there
            return False
        raise BadModel(f"{path}, which cannot be read ({error.strerror or error})", "a file you may read") from None


def inside(name: str) -> str:
    """Return a listed name that stays within its folder.

    Args:
        name: relative path with forward slashes.

    Raises:
        BadModel: for absolute names, `..`, backslashes, colons, hidden or empty parts.
    """
    parts = PurePosixPath(name).parts
    if not parts or "/".join(parts) != name or any(not re.fullmatch(r"\w[\w.\-]*", part) for part in parts):
        raise BadModel(f"the file name {name!r}", "a plain name inside the folder")
    return name


def _publish(draft: Path, final: Path) -> None:
    old = _beside(final, "old") if final.exists() else None
    if old:  # no system renames onto a full folder; this is the one moment in which a kill leaves only `old`
        final.rename(old)
    try:
        draft.rename(final)
    except BaseException:
        if old:
            old.rename(final)
        raise
    sync_folder(final.parent)
    if old:
        shutil.rmtree(old, ignore_errors=True)


def _beside(path: Path, word: str) -> Path:
    return path.with_name(f".{path.name}.{word}-{secrets.token_hex(4)}")
