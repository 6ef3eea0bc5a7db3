"""`opendalle models`: which models there are, what their cards say, and whether their files are whole."""

import json

from cyclopts import App

from opendalle.base.errors import BadModel
from opendalle.checkpoint import places
from opendalle.checkpoint.files import read_json
from opendalle.cli.console import tell

models = App(
    name="models",
    help="List, show and verify models.",
    help_format="plaintext",
    help_epilogue="Example: opendalle models list",
)


def _sizes() -> list[tuple[str, int]]:
    """Return name and bytes of each bundled model."""
    folders = [places.bundled_folder() / name for name in places.bundled_models()]
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
    folder = places.find_model(model)
    head = read_json(folder / "model.json")
    try:
        shown = {"kind": head["kind"], "parts": sorted(head["parts"]), **head["card"]}
        text = json.dumps(shown, indent=2, ensure_ascii=False)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BadModel(f"a damaged model.json in {folder}", "a model folder") from None
    # What a terminal would obey and what no terminal can show stays JSON, in JSON's own escapes.
    print("".join(one if one.isprintable() or one == "\n" else json.dumps(one)[1:-1] for one in text))
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

    folders = (
        [places.find_model(model)]
        if model is not None
        else [places.bundled_folder() / n for n in places.bundled_models()]
    )
    code = 0
    for folder in folders:
        try:
            print(f"{folder.name:<20} whole  {verify_model(folder).sha256[:16]}")
        except BadModel as error:
            tell(str(error))
            code = 1
    return code
