"""A folder of pictures with captions: `cat.png` beside `cat.txt`, one caption a line."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from opendalle.base.errors import BadData, BadPicture, require
from opendalle.data.buckets import Canvas, nearest
from opendalle.data.sets import Example
from opendalle.pictures import fit, picture_size, read_picture

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
CROPS = ("centre", "random", "whole")


@dataclass(frozen=True, kw_only=True)
class FolderSetConfig:
    """How the pictures of a folder are cut."""

    size: int  # side of the square pictures, in pixels
    crop: str = "centre"  # which square of a longer picture: the middle, one by chance, or all of it on nothing
    mirror: float = 0.0  # share of pictures that are mirrored; 0 where left and right carry meaning
    bare: bool = False  # whether pictures may come without a caption; theirs is empty then

    def __post_init__(self) -> None:
        require(1 <= self.size <= 4096, f"size={self.size}", "1 to 4096")
        require(self.crop in CROPS, f"crop {self.crop!r}", "one of " + ", ".join(CROPS))
        require(0.0 <= self.mirror <= 1.0, f"mirror={self.mirror}", "a share from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One picture file and its captions."""

    picture: Path
    captions: tuple[str, ...]  # empty only in a set that may have bare pictures


class FolderSet:
    """A picture set over a folder and its subfolders, in the order of names.

    Args:
        folder: holds pictures (PNG, JPEG, WebP), each beside a `.txt` of the same name with a caption on every line.
        config: how the pictures are cut, and whether they may lack captions.

    Raises:
        BadData: when there is no such folder, no picture, or a picture without caption where it must have one.
    """

    def __init__(self, folder: Path, config: FolderSetConfig) -> None:
        self.folder = Path(folder)
        self.config = config
        self.entries = _entries(self.folder, bare=config.bare)

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.entries)

    def name(self, index: int) -> str:
        """Return the place of picture `index` within the folder, with forward slashes."""
        return self.entries[index].picture.relative_to(self.folder).as_posix()

    @property
    def stamp(self) -> str:
        """Hash of the pictures' names and lengths in bytes; captions and crops do not count."""
        return self._stamp

    @cached_property
    def _stamp(self) -> str:
        told = [(self.name(index), entry.picture.stat().st_size) for index, entry in enumerate(self.entries)]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    def read(self, index: int, rng: np.random.Generator) -> Example:
        """Return one picture with one of its captions.

        Args:
            index: of the picture, in the order of names.
            rng: chooses caption, crop and mirror, in this order, whether they are needed or not.

        Raises:
            BadData: when the picture can no longer be read.
        """
        return self._read(index, rng, self.config.size, self.config.size)

    def members(self, canvases: Sequence[Canvas]) -> Sequence[Sequence[int]]:
        """Return for each canvas the pictures that lose least in it; each picture is in one.

        Args:
            canvases: the shapes.

        Raises:
            BadData: when a picture cannot be read.
        """
        chosen = [nearest(*_size(entry.picture), canvases) for entry in self.entries]
        return [[index for index, one in enumerate(chosen) if one == bucket] for bucket in range(len(canvases))]

    def read_on(self, canvas: Canvas, index: int, rng: np.random.Generator) -> Example:
        """Return one picture cut to a canvas; else as `read`."""
        return self._read(index, rng, canvas.width, canvas.height)

    def _read(self, index: int, rng: np.random.Generator, width: int, height: int) -> Example:
        entry = self.entries[index]
        which, across, down, turned = rng.random(4)
        caption = entry.captions[int(which * len(entry.captions))] if entry.captions else ""
        if self.config.crop != "random":
            across = down = 0.5
        try:
            image = read_picture(entry.picture).convert("RGBA")
        except BadPicture as error:
            raise BadData(error.came, error.wanted, f"Mend or delete {entry.picture}.") from error
        if self.config.crop == "whole":
            image = fit(image, self.config.size)
        image = cut(image, width, height, across, down)
        if turned < self.config.mirror:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return Example(picture=np.asarray(image), caption=caption)


def cut(image: Image.Image, width: int, height: int, across: float, down: float) -> Image.Image:
    """Shrink or enlarge a picture until one side fits, then cut what is too long of the other.

    Args:
        image: RGBA or RGB.
        width: of the result, in pixels.
        height: of the result, in pixels.
        across: where the part that stays lies from left to right, 0 to 1.
        down: where it lies from top to bottom, 0 to 1.
    """
    if image.size == (width, height):
        return image
    scale = min(image.width / width, image.height / height)
    left, top = (image.width - scale * width) * across, (image.height - scale * height) * down
    box = (left, top, min(left + scale * width, image.width), min(top + scale * height, image.height))
    return image.resize((width, height), Image.Resampling.LANCZOS, box=box)  # Pillow weighs colour by alpha itself


def _size(path: Path) -> tuple[int, int]:
    try:
        return picture_size(path)
    except BadPicture as error:
        raise BadData(error.came, error.wanted, f"Mend or delete {path}.") from error


def _entries(folder: Path, bare: bool) -> tuple[Entry, ...]:
    try:
        return _listed(folder, bare)
    except OSError as error:
        place = error.filename or folder
        raise BadData(f"{place} cannot be read ({error.strerror or error})", "what you may read") from None


def _listed(folder: Path, may_be_bare: bool) -> tuple[Entry, ...]:
    if not folder.is_dir():
        raise BadData(f"no folder {folder}", "a folder of pictures with .txt captions")
    pictures = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not pictures:
        raise BadData(f"{folder} holds no pictures", "files ending in " + ", ".join(SUFFIXES))
    bare = [path for path in pictures if not path.with_suffix(".txt").is_file()]
    if bare and not may_be_bare:
        raise BadData(
            f"{len(bare)} of {len(pictures)} pictures without a caption file, such as {_names(bare, folder)}",
            f"{bare[0].with_suffix('.txt').name} beside {bare[0].name}",
        )
    without = set(bare)
    return tuple(
        Entry(picture=path, captions=() if path in without else _captions(path.with_suffix(".txt")))
        for path in pictures
    )


def _captions(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise BadData(f"{path} is not UTF-8", "captions as UTF-8 text", f"Convert {path.name}.") from None
    captions = tuple(line.strip() for line in lines if line.strip())
    if not captions:
        raise BadData(f"{path} is empty", "at least one caption")
    return captions


def _names(paths: Sequence[Path], folder: Path) -> str:
    return ", ".join(str(path.relative_to(folder)) for path in paths[:3])
