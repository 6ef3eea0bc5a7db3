"""Writing pictures: whole or not at all, and never over somebody's file.

A file is written beside its place under a temporary name, forced to disk, and then given its name in one step that
fails if the name is taken.  A killed process leaves at most a hidden `*.tmp-*` file, never half a picture.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

from PIL import Image

from opendalle.base.errors import BadPicture, BadRequest
from opendalle.pictures.recipes import recipe_chunk
from opendalle.pictures.sheets import WHITE, composite

_NUMBERED = re.compile(r"(\d{4,})\.png", re.IGNORECASE)


def write_png(image: Image.Image, path: Path, recipe: Mapping[str, Any] | None = None) -> Path:
    """Write a PNG, with its recipe inside.  Missing folders are made.

    Args:
        image: RGB or RGBA (straight alpha).
        path: a name ending in .png that is free.
        recipe: what made the picture, plain JSON data; None writes none.

    Raises:
        BadRequest: when the name is taken, has another ending, or its folder cannot be written.
    """
    _require_ending(path, ".png")
    chunk = recipe_chunk(recipe) if recipe is not None else None
    _write_whole(path, lambda file: image.save(file, format="PNG", pnginfo=chunk, compress_level=6))
    return path


def write_gif(frames: Sequence[Image.Image], path: Path, ms: int | Sequence[int] = 80) -> Path:
    """Write an animation that loops for ever; transparent frames are laid on white.

    Args:
        frames: pictures of one size, first to last.
        path: a name ending in .gif that is free.
        ms: how long each frame is shown, in milliseconds; one number for all, or one each.

    Raises:
        BadPicture: when there is no frame.
        BadRequest: when the name is taken, has another ending, or its folder cannot be written.
    """
    _require_ending(path, ".gif")
    if not frames:
        raise BadPicture("an animation of no frames", "one frame or more")
    flat = [composite(frame, WHITE) for frame in frames]
    shown = ms if isinstance(ms, int) else list(ms)
    _write_whole(
        path,
        lambda file: flat[0].save(
            file, format="GIF", save_all=True, append_images=flat[1:], duration=shown, loop=0, optimize=False
        ),
    )
    return path


def next_number(folder: Path) -> int:
    """Return the number after the highest of `0001.png`, `0002.png`, ... in a folder; 1 if there is none."""
    if not folder.is_dir():
        return 1
    numbers = (int(match[1]) for entry in folder.iterdir() if (match := _NUMBERED.fullmatch(entry.name)))
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


def _require_ending(path: Path, ending: str) -> None:
    if path.suffix.lower() != ending:
        raise BadRequest(f"the name {path.name!r}", f"a name ending in {ending}")


def _write_whole(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    refuse_existing(path)
    work = path.with_name(f".{path.name}.tmp-{uuid4().hex}")
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
    except OSError as error:
        raise BadRequest(f"{path} cannot be written ({error.strerror})", "a folder you may write to") from None


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
