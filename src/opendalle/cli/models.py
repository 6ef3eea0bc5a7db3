"""`opendalle models`: which models there are, what their cards say, and whether their files are whole."""

import json
from pathlib import Path
from typing import Any

from cyclopts import App

from opendalle.base.errors import BadModel
from opendalle.cli.console import tell

models = App(
    name="models",
    help="List, show and verify models.",
    help_format="plaintext",
    help_epilogue="Example: opendalle models list",
)


def bundled_folder() -> Path:
    """Return the folder of the models that ship with the package."""
    return Path(__file__).parents[1] / "bundled"


def folder_of_model(name: str) -> Path:
    """Return the folder of a bundled model (`dalle2` is `dalle2-emoji`) or of a path; no torch is needed for that.

    Args:
        name: what `--model` accepts.

    Raises:
        BadModel: when there is no such model.
    """
    bundled = bundled_folder()
    plain = bool(name) and name == Path(name).name and name not in (".", "..")
    candidates = [bundled / name, bundled / f"{name}-emoji"] if plain else []
    for folder in (*candidates, Path(name)):
        if (folder / "model.json").is_file():
            return folder
    raise BadModel(f"no model {name!r}", "a bundled model or a model folder", "opendalle models list shows the first.")


def _sizes() -> list[tuple[str, int]]:
    """Return name and bytes of each bundled model."""
    folders = sorted(path.parent for path in bundled_folder().glob("*/model.json"))
    return [(one.name, sum(file.stat().st_size for file in one.rglob("*") if file.is_file())) for one in folders]


@models.command(name="list", help_epilogue="Example: opendalle models list")
def list_() -> int:
    """List the models that ship with the package.

    Returns:
        The exit code.
    """
    for name, size in _sizes():
        print(f"{name:<20} {size / 2**20:6.1f} MiB")
    return 0


@models.command(help_epilogue="Example: opendalle models show dalle2")
def show(model: str = "dalle2", /) -> int:
    """Print a model's card: kind, parts, data, recipe, licence, scores and limits.

    Args:
        model: A bundled model, or a model folder.

    Returns:
        The exit code.

    Raises:
        BadModel: when there is no such model, or its card cannot be read.
    """
    folder = folder_of_model(model)
    try:
        head: dict[str, Any] = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        shown = {"kind": head["kind"], "parts": sorted(head["parts"]), **head["card"]}
    except (OSError, ValueError, KeyError, TypeError):
        raise BadModel(f"a damaged model.json in {folder}", "a model folder") from None
    print(json.dumps(shown, indent=2, ensure_ascii=False))
    return 0


@models.command(help_epilogue="Example: opendalle models verify")
def verify(model: str | None = None, /) -> int:
    """Compare every file of a model with its sha256; without a name, of all bundled models.

    Args:
        model: A bundled model, or a model folder.

    Returns:
        The exit code: 1 when a model is damaged.
    """
    from opendalle.checkpoint.folder import verify_model  # torch enters here

    folders = [folder_of_model(model)] if model is not None else [bundled_folder() / name for name, _ in _sizes()]
    code = 0
    for folder in folders:
        try:
            print(f"{folder.name:<20} whole  {verify_model(folder).sha256[:16]}")
        except BadModel as error:
            tell(str(error))
            code = 1
    return code
