"""Where models lie: the one look-up behind `load`, `--model`, the recipes and `models show`.  No torch.

A bundled model `NAME-emoji` also answers to its short name, `NAME`.
"""

from pathlib import Path

from opendalle.base.errors import BadModel
from opendalle.checkpoint.files import is_there

SHORT_FOR = "-emoji"  # what a short name leaves out


def bundled_folder() -> Path:
    """Where the models lie that ship with the package."""
    return Path(__file__).parents[1] / "bundled"


def bundled_models() -> list[str]:
    """Names of the models that ship with the package, sorted."""
    return sorted(one.parent.name for one in bundled_folder().glob("*/model.json"))


def find_model(name: str | Path, beside: Path | None = None) -> Path:
    """Return the folder of a model.

    Text with a slash in it is a folder, always.  A plain name may mean two things:

    - A `Path` is a folder if there is one, else a bundled model: this is how commands name files.
    - Text is a bundled model if it is a short name (`dalle2`).  A long name that is also a folder here is refused, for
      nobody could tell which one was drawn with.

    Args:
        name: a bundled model, its short name, or a folder.
        beside: the folder of the model that names a sibling; look beside it, then among the bundled models, and
            nowhere else.

    Raises:
        BadModel: when there is no such model, or two.
    """
    if not isinstance(name, str | Path):
        raise BadModel(f"a model named by a {type(name).__name__}", "its name or its folder")
    text = str(name)
    if beside is not None and is_plain(text) and _is_model(beside.parent / text):
        return beside.parent / text
    bundled = _bundled(text)
    here = Path(name) if text and beside is None and _is_model(Path(name)) else None
    if here is not None and bundled is not None and isinstance(name, str) and text == bundled.name:
        if here.resolve() == bundled.resolve():
            return bundled
        raise BadModel(
            f"{text!r}, both a bundled model and a folder here",
            "one of them",
            f"./{text} is the folder, {text.removesuffix(SHORT_FOR)} the bundled one.",
        )
    chosen = bundled or here if isinstance(name, str) else here or bundled
    if chosen is None:
        known = ", ".join(_known()) or "of which none is installed"
        raise BadModel(f"no model {text!r}", f"a bundled model ({known}) or a model folder")
    return chosen


def is_plain(name: str) -> bool:
    """Say whether a name from a file is a name alone, and leads to no other place on any system.

    Args:
        name: any text.
    """
    return bool(name.strip()) and name not in (".", "..") and not set(name) & set("/\\:\0")


def _bundled(name: str) -> Path | None:
    if not is_plain(name):
        return None
    places = (bundled_folder() / name, bundled_folder() / f"{name}{SHORT_FOR}")
    return next((one for one in places if _is_model(one)), None)


def _known() -> list[str]:
    names = bundled_models()
    return sorted({*names, *(name.removesuffix(SHORT_FOR) for name in names)})


def _is_model(folder: Path) -> bool:
    return is_there(folder / "model.json")
