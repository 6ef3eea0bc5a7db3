"""Captions that were written anew, on disk beside a set whose own captions are never touched.

    captions/
      about.json                       of which set, by whom, with which settings, in how many pieces
      00000-of-00012-3f2a9c1b.jsonl    one line a caption: name, kind, language, text, score
      ...

A piece holds all captions of a run of pictures, in the order of the set.  It is written whole or not at all, and no two
pieces share anything: so several processes write one shelf without knowing of each other, a killed one loses the
piece that it was at, and shelves are merged by copying files into one folder.  The letters in a piece's name are a hash
of `about.json`: the piece of another captioner never passes for one of this shelf.

A picture that could not be read has one line with its name and an `error` instead.
"""

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from opendalle.base.errors import BadData, require
from opendalle.checkpoint.files import replace_file, to_json
from opendalle.data.sets import Example, NamedSet

FORMAT = 1
ABOUT = "about.json"
FOLDER = "captions"  # beside the pictures, unless another place is asked for
KINDS, LANGUAGES = ("short", "descriptive"), ("en", "zh")


@dataclass(frozen=True, kw_only=True)
class ShelfConfig:
    """What is written of every picture."""

    kinds: tuple[str, ...] = KINDS  # of captions
    languages: tuple[str, ...] = ("en",)  # each kind in each of them
    piece: int = 256  # pictures of one file: what a crash can lose

    def __post_init__(self) -> None:
        for name, chosen, known in (("kinds", self.kinds, KINDS), ("languages", self.languages, LANGUAGES)):
            require(
                bool(chosen) and set(chosen) <= set(known) and len(set(chosen)) == len(chosen),
                f"{name} {', '.join(chosen) or 'none'}",
                "some of " + ", ".join(known) + ", each once",
            )
        require(self.piece >= 1, f"pieces of {self.piece} pictures", "at least 1")

    @property
    def voices(self) -> tuple[tuple[str, str], ...]:
        """Every (kind, language), in the order of a picture's lines."""
        return tuple(itertools.product(self.kinds, self.languages))


@dataclass(frozen=True, kw_only=True)
class CaptionLine:
    """One caption of one picture; a line of a piece."""

    name: str  # of the picture, as its set has it
    kind: str = ""  # one of KINDS
    language: str = ""  # one of LANGUAGES
    text: str = ""
    score: float | None = None  # log likelihood of the text after the picture, in nats
    error: str | None = None  # why there is no caption

    def record(self) -> dict[str, Any]:
        """Return the line as plain data."""
        if self.error is not None:
            return {"name": self.name, "error": self.error}
        return {name: value for name, value in vars(self).items() if name != "error"}


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One of several processes that write a shelf together."""

    number: int = 1  # from 1
    count: int = 1  # of them

    def __post_init__(self) -> None:
        require(1 <= self.number <= self.count, f"shard {self.number}/{self.count}", "1/N to N/N, as 2/8")

    def owns(self, piece: int) -> bool:
        """Say whether a piece is this process's work."""
        return piece % self.count == self.number - 1


class ShelfWriter:
    """A shelf in the making.

    Args:
        folder: of the shelf; made if missing.
        pictures: the set.
        config: what is written of every picture.
        writer: who writes and how, as plain data: name and sha256 of the captioner, decoding, seed.

    Raises:
        BadData: when a shelf of another set, captioner or setting lies there.
    """

    def __init__(self, folder: Path, pictures: NamedSet, config: ShelfConfig, writer: Mapping[str, Any]) -> None:
        self.folder, self.config, self.num_pictures = folder, config, len(pictures)
        if folder.exists() and not folder.is_dir():
            raise BadData(f"{folder}, a file", "a folder for captions")
        about = {
            "format": FORMAT,
            "set": pictures.stamp,
            "num_pictures": len(pictures),
            "piece": config.piece,
            "kinds": list(config.kinds),
            "languages": list(config.languages),
            "writer": dict(writer),
        }
        if (folder / ABOUT).is_file():
            _refuse_others(folder, about_shelf(folder), json.loads(to_json(about)))
        else:
            if folder.is_dir() and any(folder.glob("*.jsonl")):
                raise BadData(f"{folder}, which holds captions but no {ABOUT}", "a whole shelf, or an empty folder")
            folder.mkdir(parents=True, exist_ok=True)
            replace_file(folder / ABOUT, to_json(about))  # of several that begin at once, each writes the same
        self._files = _files(folder)

    @property
    def num_pieces(self) -> int:
        """How many pieces the whole shelf has."""
        return len(self._files)

    def missing(self, shard: Shard | None = None) -> list[int]:
        """Return the pieces that are still to be written, in order.

        Args:
            shard: only those that are its work; None: all.
        """
        return [
            piece
            for piece, path in enumerate(self._files)
            if (shard is None or shard.owns(piece)) and not path.is_file()
        ]

    def rows(self, piece: int) -> range:
        """Return the pictures of a piece, by their index in the set."""
        return _rows(piece, self.config.piece, self.num_pictures)

    def write(self, piece: int, lines: Sequence[CaptionLine]) -> None:
        """Write a piece, in one go.

        Args:
            piece: its number.
            lines: of its pictures in their order, each one in every voice or with an error.
        """
        path = self._files[piece]
        for draft in path.parent.glob(f".{path.name}.draft-*"):  # of a process that was killed at this piece
            draft.unlink(missing_ok=True)
        text = "".join(json.dumps(line.record(), ensure_ascii=False) + "\n" for line in lines)
        replace_file(path, text.encode("utf-8", "backslashreplace"))


class CaptionShelf:
    """A shelf to read from: alternatives to each caption of a set.

    Args:
        folder: that a `ShelfWriter` filled.
        pictures: the set that it is wanted for; may be shorter than the one that was captioned.

    Raises:
        BadData: when there is no shelf, it is of another set, not finished, or damaged.
    """

    def __init__(self, folder: Path, pictures: NamedSet) -> None:
        self.folder = Path(folder)
        self.about = about_shelf(self.folder)
        if self.about["set"] != pictures.stamp or self.about["num_pictures"] < len(pictures):
            raise BadData(
                f"{folder}, captions of {self.about['num_pictures']} pictures of the set {self.about['set'][:12]}",
                f"captions of the {len(pictures)} pictures of {pictures.stamp[:12]}",
                "Write them: opendalle data caption",
            )
        self.kinds, self.languages = tuple(self.about["kinds"]), tuple(self.about["languages"])
        self._pictures, self._files = pictures, _files(self.folder)
        if absent := [path.name for path in self._files if not path.is_file()]:
            came = f"{folder} without {len(absent)} of {len(self._files)} pieces, such as {absent[0]}"
            raise BadData(came, "a finished shelf", "Go on with: opendalle data caption")
        self.num_errors = 0
        self._starts = np.concatenate([self._read(piece) for piece in range(len(self._files))])

    def __len__(self) -> int:
        """Return the number of captioned pictures, those without a caption among them."""
        return len(self._starts)

    @property
    def stamp(self) -> str:
        """Hash of all captions, of the set, and of who wrote them."""
        digest = hashlib.sha256(to_json(self.about))
        for path in self._files:
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def lines(self, index: int) -> tuple[CaptionLine, ...]:
        """Return all captions of a picture; none where it could not be read.

        Args:
            index: of the picture in its set.
        """
        start, stop = self._starts[index]
        with self._files[index // self.about["piece"]].open("rb") as file:
            file.seek(start)
            lines = [CaptionLine(**json.loads(line)) for line in file.read(stop - start).splitlines()]
        return tuple(line for line in lines if line.error is None)

    def caption(self, index: int, example: Example, kind: str, language: str, rng: Any) -> str | None:
        """Return one caption of a picture; None where there is none.  A source of blended captions.

        Args:
            index: of the picture in its set.
            example: not looked at.
            kind: one of `kinds`.
            language: one of `languages`.
            rng: not asked.
        """
        return next((one.text for one in self.lines(index) if (one.kind, one.language) == (kind, language)), None)

    def _read(self, piece: int) -> Int64[np.ndarray, "b 2"]:
        """Check a piece, and return where each picture's lines begin and end."""
        path, voices = self._files[piece], list(itertools.product(self.kinds, self.languages))
        rows = _rows(piece, self.about["piece"], self.about["num_pictures"])
        places, begin, end, own = list[tuple[int, int]](), 0, 0, list[CaptionLine]()
        try:
            for raw in path.read_bytes().splitlines(keepends=True):
                own.append(CaptionLine(**json.loads(raw)))
                end += len(raw)
                if own[-1].error is None and len(own) < len(voices):
                    continue
                self._check(rows[len(places)], own, voices)
                self.num_errors += own[-1].error is not None
                places.append((begin, end))
                begin, own = end, []
        except (TypeError, ValueError, LookupError, OSError) as error:
            raise BadData(f"{path} ({error})", "a whole piece", "Delete it and write it again.") from None
        if own or len(places) != len(rows):
            came = f"{path} with captions of {len(places)} pictures"
            raise BadData(came, f"of {len(rows)}", "Delete it and write it again.")
        return np.array(places, dtype=np.int64).reshape(-1, 2)

    def _check(self, index: int, lines: Sequence[CaptionLine], voices: Sequence[tuple[str, str]]) -> None:
        """Refuse lines that are not those of a picture, each voice once and in order."""
        name = self._pictures.name(index) if index < len(self._pictures) else lines[0].name
        is_whole = (
            len(lines) == 1 if lines[-1].error is not None else [(one.kind, one.language) for one in lines] == voices
        )
        if not is_whole or any(line.name != name for line in lines):
            raise ValueError(f"lines of {lines[-1].name!r} where those of {name!r} belong")


def about_shelf(folder: Path) -> dict[str, Any]:
    """Return what a shelf says of itself: its set, pieces, kinds, languages and writer.

    Args:
        folder: of the shelf.

    Raises:
        BadData: when there is none of this format.
    """
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        known = about["format"] == FORMAT and isinstance(about["set"], str) and about["piece"] >= 1
        known = known and about["num_pictures"] >= 1 and isinstance(about["writer"], dict)
    except (OSError, ValueError, LookupError, TypeError) as error:
        todo = "Write it: opendalle data caption"
        raise BadData(f"{folder} ({error})", f"a folder of captions with its {ABOUT}", todo) from None
    if not known:
        raise BadData(f"{folder} of format {about['format']!r}", f"format {FORMAT}", "Write it again.")
    return about


def _files(folder: Path) -> list[Path]:
    """Return the places of all pieces, there or not."""
    about = about_shelf(folder)
    count = -(-about["num_pictures"] // about["piece"])
    mark = hashlib.sha256(to_json(about)).hexdigest()[:8]
    return [folder / f"{piece:05d}-of-{count:05d}-{mark}.jsonl" for piece in range(count)]


def _rows(piece: int, size: int, num_pictures: int) -> range:
    return range(piece * size, min((piece + 1) * size, num_pictures))


def _refuse_others(folder: Path, had: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for name, value in wanted.items():
        if had.get(name) != value:
            todo = f"Choose another --out, or delete {folder}."
            raise BadData(f"{folder}, begun with {name} {_short(had.get(name))}", f"{name} {_short(value)}", todo)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else text[:200] + " ..."
