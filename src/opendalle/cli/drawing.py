"""What every verb that draws shares: where pictures go, how they are written, and what their recipes tell."""

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cyclopts import Group
from PIL.Image import Image

from opendalle.base.errors import BadRequest, OpenDalleError
from opendalle.base.records import Sample
from opendalle.cli.console import progress, tell
from opendalle.pictures import contact_sheet, next_number, numbered_path, refuse_unwritable, write_animation, write_png
from opendalle.pictures.animation import ANIMATIONS

MODEL = "dalle2"
FILES = Group("Files", sort_key=3)
OTHER_ENDINGS = (".avif", ".bmp", ".jpeg", ".jpg", ".svg", ".tif", ".tiff", ".webp")


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where the pictures of one command go."""

    file: Path | None  # the one picture's name
    folder: Path  # else the folder that they are numbered in
    first: int  # the first number

    def path(self, number: int) -> Path:
        """Return the place of picture `number`, counted from 0."""
        return self.file or numbered_path(self.folder, self.first + number)

    @property
    def is_animation(self) -> bool:
        """Whether all pictures go into one file, as its frames."""
        return self.file is not None and self.file.suffix.lower() in ANIMATIONS


def places_of(out: Path, num_pictures: int, *, animates: bool = False) -> Places:
    """Decide where pictures go, and refuse a place that cannot be before anything is drawn.

    Args:
        out: as typed: x.png for one picture, a folder for any number, and for frames x.gif or x.mp4.
        num_pictures: that will be written.
        animates: whether the pictures are frames.

    Raises:
        BadRequest: when the place is taken, cannot be written, or does not fit the pictures.
    """
    ending = out.suffix.lower()
    if ending == ".png" or (animates and ending in ANIMATIONS):
        if ending == ".png" and num_pictures > 1:
            raise BadRequest(f"{num_pictures} pictures for the one name {out}", "a folder, as --out out")
        refuse_unwritable(out)
        return Places(file=out, folder=out.parent, first=0)
    first = next_number(out)
    if not out.is_dir() and ending in (*OTHER_ENDINGS, *ANIMATIONS):
        wanted = (
            "a name ending in .png, .gif or .mp4, or a folder" if animates else "a name ending in .png, or a folder"
        )
        raise BadRequest(f"--out {out}", wanted, "Pictures are PNG.")
    if out.exists() and not out.is_dir():
        raise BadRequest(f"--out {out}, a file", "a name ending in .png, or a folder")
    refuse_unwritable(numbered_path(out, first))
    return Places(file=None, folder=out, first=first)


def load_pipeline(model: str | None) -> Any:
    """Load a generation; torch enters here.

    Args:
        model: a bundled name or a folder; None: the default.
    """
    from opendalle import pretrained

    return pretrained.load_pipeline(MODEL if model is None else model)


def name_of(model: str | None) -> str:
    """Return the name that a recipe gives a model: no path of this machine."""
    return Path(MODEL if model is None else model).name


def write_samples(samples: Iterator[Sample], model: str, places: Places, total: int) -> int:
    """Write each picture the moment it is finished, or all of them as one animation; return the exit code.

    Args:
        samples: from a pipeline.
        model: its name, for the recipes.
        places: where pictures go.
        total: how many there will be.

    Raises:
        OpenDalleError: when it comes before the first picture.
    """
    return name_written(_written(samples, model, places, total))


def name_written(paths: Generator[Path, None, None]) -> int:
    """Print the place of each picture the moment it is written; return the exit code.

    Args:
        paths: writes one picture, or one animation, for each path that it yields.

    Raises:
        OpenDalleError: when it comes before the first picture.
    """
    written: list[Path] = []
    try:
        with closing(paths):
            for path in paths:
                written.append(path)
                print(path, flush=True)
    except OpenDalleError as error:
        if not written:
            raise
        tell(f"stopped after {written[-1]}: {error}")  # begun but not done, which is no longer wrong use
        return 1
    return 0


def _written(samples: Iterator[Sample], model: str, places: Places, total: int) -> Generator[Path, None, None]:
    frames: list[Image] = []
    with progress("drawing", total) as advance:
        for sample in samples:
            if sample.is_preview:
                continue
            if places.is_animation:
                frames.append(sample.picture)
            else:
                yield write_png(sample.picture, places.path(sample.index), recipe_of(sample, model))
            advance(sample.index + 1, "")
    if places.is_animation and places.file is not None:
        yield write_animation(frames, places.file)


def write_row(samples: Iterator[Sample], model: str, places: Places, total: int) -> int:
    """Write all pictures side by side, as one; return the exit code.  Arguments are those of `write_samples`."""
    sheet, recipe = drawn_row(samples, model, total)
    print(write_png(sheet, places.path(0), recipe), flush=True)
    return 0


def drawn_row(samples: Iterator[Sample], model: str, total: int) -> tuple[Image, dict[str, Any]]:
    """Return pictures side by side, and the recipe of all.  Arguments are those of `write_samples`."""
    kept: list[Sample] = []
    with progress("drawing", total) as advance:
        for sample in samples:
            if not sample.is_preview:
                kept.append(sample)
                advance(len(kept), "")
    return contact_sheet([one.picture for one in kept], columns=len(kept)), recipe_of(kept[0], model)


def recipe_of(sample: Sample, model: str) -> dict[str, Any]:
    """Return what goes into the picture's metadata: who made it, what was asked, and what the pipeline adds.

    Args:
        sample: a finished picture; its own recipe wins, since the pipeline knows best.
        model: the name under which `load` finds the model; no path of this machine.
    """
    from opendalle import __version__

    verb = sample.recipe.get("verb", "generate")
    asked = {"request": sample.request.asked_of(verb), "index": sample.index}
    return {"opendalle": __version__, "verb": verb, "model": model} | asked | sample.recipe
