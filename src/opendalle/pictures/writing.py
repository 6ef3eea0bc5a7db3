"""Writing pictures: whole or not at all, and never over somebody's file.

A file is written beside its place under a temporary name, forced to disk, and then given its name in one step that
fails if the name is taken.  A killed process leaves at most a hidden `*.tmp-*` file, never half a picture.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

from PIL import Image

from opendalle.base.errors import BadPicture, BadRequest, OpenDalleError
from opendalle.pictures.recipes import recipe_chunk
from opendalle.pictures.sheets import WHITE, composite

_NUMBERED = re.compile(r"(\d{4,})\.png", re.IGNORECASE)


def write_png(image: Image.Image, path: Path | str, recipe: Mapping[str, Any] | None = None) -> Path:
    """Write a PNG, with its recipe inside.  Missing folders are made.

    Args:
        image: RGB or RGBA (straight alpha).
        path: a name ending in .png that is free.
        recipe: what made the picture, plain JSON data; None writes none.

    Returns:
        The path.

    Raises:
        BadPicture: when the picture has another mode.
        BadRequest: when the name is taken, has another ending, or its folder cannot be written.
    """
    path = Path(path)
    require_ending(path, ".png")
    if not isinstance(image, Image.Image) or image.mode not in ("RGB", "RGBA"):
        came = f"a picture of mode {image.mode}" if isinstance(image, Image.Image) else f"a {type(image).__name__}"
        raise BadPicture(came, "a picture of mode RGB or RGBA", 'Convert it first: picture.convert("RGB").')
    chunk = recipe_chunk(recipe) if recipe is not None else None
    write_whole(path, lambda file: image.save(file, format="PNG", pnginfo=chunk, compress_level=6))
    return path


def write_gif(frames: Sequence[Image.Image], path: Path | str, ms: int | Sequence[int] = 80) -> Path:
    """Write an animation that loops for ever; transparent frames are laid on white.

    Args:
        frames: pictures of one size, first to last.
        path: a name ending in .gif that is free.
        ms: how long each frame is shown, in milliseconds; one number for all, or one each.

    Raises:
        BadPicture: when there is no frame.
        BadRequest: when the name is taken, has another ending, or its folder cannot be written.
    """
    path = Path(path)
    require_ending(path, ".gif")
    if not frames:
        raise BadPicture("an animation of no frames", "one frame or more")
    flat = [composite(frame, WHITE) for frame in frames]
    shown = ms if isinstance(ms, int) else list(ms)
    write_whole(
        path,
        lambda file: flat[0].save(
            file, format="GIF", save_all=True, append_images=flat[1:], duration=shown, loop=0, optimize=False
        ),
    )
    return path


def next_number(folder: Path) -> int:
    """Return the number after the highest of `0001.png`, `0002.png`, ... in a folder; 1 if there is none.

    Args:
        folder: may be missing.

    Raises:
        BadRequest: when its names cannot be read.
    """
    try:
        if not folder.is_dir():
            return 1
        numbers = [int(match[1]) for entry in folder.iterdir() if (match := _NUMBERED.fullmatch(entry.name))]
    except OSError as error:
        raise BadRequest(f"{folder} cannot be read ({error.strerror or error})", "a folder you may read") from None
    return max(numbers, default=0) + 1


def numbered_path(folder: Path, number: int) -> Path:
    """Return the path of picture `number` of a folder: four digits, more when they do not suffice."""
    return folder / f"{number:04d}.png"


def refuse_existing(path: Path) -> None:
    """Raise unless nothing lies at `path`, dangling links included: asked before hours of work, not after.

    Raises:
        BadRequest: when the name is taken.
    """
    if os.path.lexists(path):
        raise BadRequest(f"{path} exists", "a name that is free", "Nothing was overwritten.")


def refuse_unwritable(path: Path) -> None:
    """Raise unless a file or folder could be made at `path` as things stand; nothing is written to find out.

    Nothing may lie there, and its parent, or the nearest folder above that exists, must be one we may write to.

    Args:
        path: of something to be written after long work.

    Raises:
        BadRequest: when the name is taken, too long, below a file, or in a folder that may not be written to.
    """
    refuse_existing(path)
    try:
        with suppress(FileNotFoundError):
            path.lstat()
        above = next((one for one in path.absolute().parents if one.exists()), path)
        fault = "" if above.is_dir() else f"{above} is a file"
    except OSError as error:
        fault = error.strerror or str(error)
    else:
        fault = fault or ("" if os.access(above, os.W_OK | os.X_OK) else f"no right to write in {above}")
    if fault:
        raise BadRequest(f"{path} cannot be written ({fault})", "a folder you may write to")


def require_ending(path: Path, ending: str) -> None:
    """Refuse a name with another ending.

    Args:
        path: the name.
        ending: with its dot, in small letters.

    Raises:
        BadRequest: when it ends in something else.
    """
    if path.suffix.lower() != ending:
        raise BadRequest(f"the name {path.name!r}", f"a name ending in {ending}")


def write_whole(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write a file whole or not at all.

    Args:
        path: a name that is free.
        write: called with the open file.

    Raises:
        BadRequest: when the name is taken, or its folder cannot be written.
        OpenDalleError: whatever `write` raises of it.
    """
    refuse_existing(path)
    work = path.with_name(f".{path.name[:40]}.tmp-{uuid4().hex}")  # a long name would become too long
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with work.open("xb") as file:
            try:
                write(file)
                file.flush()
                os.fsync(file.fileno())
                _give_name(work, path)
            finally:
                work.unlink(missing_ok=True)
    except FileExistsError:
        refuse_existing(path)
        raise BadRequest(f"{path.parent} is a file", "a folder to write into") from None
    except OpenDalleError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        came = f"{path} cannot be written ({getattr(error, 'strerror', None) or error})"
        raise BadRequest(came, "a folder you may write to") from None


def _give_name(work: Path, path: Path) -> None:
    """Name a finished file in one step that fails if the name is taken."""
    if os.name == "nt":
        work.rename(path)  # refuses a taken name by itself there
        return
    try:
        os.link(work, path)  # unlike rename, refuses a taken name
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: claim the name first, then move onto our own claim
        path.open("xb").close()
        work.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
