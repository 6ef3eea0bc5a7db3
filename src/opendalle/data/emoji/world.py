"""A world folder: every drawing and every word of the emoji world, ready to be read.

concepts.json        one record a concept: names, keywords, group, colours, held-out marks, row of each style
sprites-64.npy       uint8 (n, 64, 64, 4), straight alpha; memory-mapped
sprites-256/STYLE/HEXCODE.png    the same drawings at 256 px
vectors.zip          STYLE/HEXCODE.svg, those of them that are vectors; worlds built earlier lack it
manifest.json        packages, versions, licences, settings, and a hash of the words and drawings
"""

import json
import threading
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from opendalle.base.errors import BadData

FORMAT = 1
SMALL_SIZE = 64
VECTORS = "vectors.zip"


@dataclass(frozen=True, kw_only=True)
class Concept:
    """One thing with a name, and where its drawings are."""

    hexcode: str  # key; code points joined by '-'
    family: str  # shared by near-duplicates; splits never tear a family
    names: Mapping[str, str]  # language -> name
    keywords: Mapping[str, tuple[str, ...]]  # en, zh -> search words
    group: str
    subgroup: str
    rows: Mapping[str, int]  # style -> row of sprites-64.npy
    colours: Mapping[str, tuple[str, ...]]  # style -> basic colours that fill the drawing, largest first
    held_out: bool  # never trained on, in any style
    held_out_styles: tuple[str, ...]  # styles that training never sees of it


class World:
    """A world folder, opened.  Nothing is read into memory but the words; drawings are paged in when used.

    Args:
        folder: made by `build_world`.

    Raises:
        BadData: when the folder is not a world of this format.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        try:
            self.manifest: dict[str, Any] = json.loads((self.folder / "manifest.json").read_text(encoding="utf-8"))
            records = json.loads((self.folder / "concepts.json").read_text(encoding="utf-8"))
            self.sprites: UInt8[np.ndarray, "n 64 64 4"] = np.load(
                self.folder / "sprites-64.npy", mmap_mode="r", allow_pickle=False
            )
        except (FileNotFoundError, ValueError) as error:
            raise BadData(
                f"{self.folder} ({error})", "a finished emoji world folder", "Run: opendalle data emoji"
            ) from None
        if self.manifest.get("format") != FORMAT:
            raise BadData(f"world format {self.manifest.get('format')}", f"format {FORMAT}", "Build the world again.")
        self.concepts: tuple[Concept, ...] = tuple(concept_of_record(record) for record in records)
        self.concept_of: dict[str, Concept] = {concept.hexcode: concept for concept in self.concepts}
        self.styles: tuple[str, ...] = tuple(self.manifest["styles"])

    def sprite(self, hexcode: str, style: str, size: int = SMALL_SIZE) -> UInt8[np.ndarray, "h w 4"]:
        """Return one drawing, RGBA with straight alpha.

        Args:
            hexcode: key of the concept.
            style: one of the concept's `rows`.
            size: 64 (from the array) or 256 (from its PNG).
        """
        if size == SMALL_SIZE:
            return np.asarray(self.sprites[self.concept_of[hexcode].rows[style]])
        with Image.open(self.folder / "sprites-256" / style / f"{hexcode}.png") as image:
            return np.asarray(image.convert("RGBA"))

    def vectors(self) -> "Vectors":
        """Open the drawings that are kept as vectors.

        Raises:
            BadData: when the world was built without them.
        """
        return Vectors(self.folder / VECTORS)

    @property
    def stamp(self) -> str:
        """Hash of all words and drawings: two worlds with the same stamp are the same."""
        return self.manifest["stamp"]


class Vectors:
    """The drawings of a world as SVG documents, each unpacked when it is asked for.

    Args:
        path: the world's `vectors.zip`.

    Raises:
        BadData: when there is no such file, or it is damaged.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = zipfile.ZipFile(path)
        except (FileNotFoundError, zipfile.BadZipFile):
            raise BadData(
                f"{path.parent}, a world without a whole {path.name}",
                "a world that keeps its drawings as vectors",
                "Build it again: opendalle data emoji",
            ) from None
        self._names = frozenset(self._file.namelist())
        self._lock = threading.Lock()  # a thread that makes batches ahead may ask too

    def has(self, hexcode: str, style: str) -> bool:
        """Whether a concept is there as a vector of this style."""
        return vector_name(hexcode, style) in self._names

    def svg(self, hexcode: str, style: str) -> str:
        """Return one drawing.

        Args:
            hexcode: key of the concept.
            style: of the drawing.

        Raises:
            BadData: when there is no such vector, or it is damaged.
        """
        name = vector_name(hexcode, style)
        try:
            with self._lock:
                return self._file.read(name).decode("utf-8")
        except (KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise BadData(
                f"{name} ({error})", "a vector of this world", "Build it again: opendalle data emoji"
            ) from None


def vector_name(hexcode: str, style: str) -> str:
    """Name a drawing inside `vectors.zip`."""
    return f"{style}/{hexcode}.svg"


def concept_of_record(record: dict[str, Any]) -> Concept:
    """Read a concept as `concepts.json` holds it."""
    fields: dict[str, Any] = dict(record)
    for name in ("keywords", "colours"):
        fields[name] = {key: tuple(value) for key, value in fields[name].items()}
    fields["held_out_styles"] = tuple(fields["held_out_styles"])
    return Concept(**fields)


def record_of_concept(concept: Concept) -> dict[str, Any]:
    """Turn a concept into what `concepts.json` holds."""
    return asdict(concept)
