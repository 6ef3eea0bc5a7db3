"""What `--again` needs to know of a recipe: the same request, the same batch, the same inputs."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from reprlib import repr as repr_short
from typing import Any

from opendalle.base.errors import BadPicture, BadRequest
from opendalle.base.records import Sample
from opendalle.base.request import Request
from opendalle.checkpoint.places import is_plain
from opendalle.cli.console import tell
from opendalle.pictures import read_bytes, read_picture


def same_batch(recipe: Mapping[str, Any], picture: Path) -> tuple[Request, int]:
    """Return the Request that draws a picture's batch again, and the picture's index in it.

    Pictures are drawn in consecutive batches from index 0, and picture k uses seed + k; so the batch that a picture
    was in is a request of its own, and the others need not be drawn.

    Args:
        recipe: as read from the picture.
        picture: its path, for messages.

    Raises:
        BadPicture: when the recipe is not one of `generate`, or not whole.
    """
    if recipe.get("verb", "generate") != "generate":
        raise BadPicture(f"{picture} was made by {repr_short(recipe['verb'])}", "a picture made by generate")
    asked, index = recipe.get("request"), recipe.get("index")
    known = {one.name for one in fields(Request)}
    if not isinstance(asked, dict) or not isinstance(index, int) or isinstance(index, bool) or not set(asked) <= known:
        raise BadPicture(f"the recipe of {picture} is not whole", "a picture drawn by this or an older opendalle")
    try:
        request = Request.of(**asked)
    except BadRequest as error:
        raise BadPicture(
            f"the recipe of {picture} asks for what cannot be drawn: {error.came}", error.wanted, error.todo
        ) from None
    if not 0 <= index < request.count:
        raise BadPicture(f"the recipe of {picture} tells of picture {index} of {request.count}", "a whole recipe")
    rows = 1 if request.exact else request.batch
    start = index // rows * rows
    count = min(rows, request.count - start)
    return replace(request, seed=request.seed + start, count=count, previews=0), index - start


def model_of(recipe: Mapping[str, Any], picture: Path) -> str:
    """Return the name of the model that drew a picture; never a place, for the picture may be a stranger's.

    Args:
        recipe: as read from the picture.
        picture: its path, for messages.

    Raises:
        BadPicture: when the recipe names no model, or a place.
    """
    name = recipe.get("model")
    if not isinstance(name, str) or not is_plain(name):
        came = "does not say which model drew it" if name is None else f"names as its model {repr_short(name)}"
        raise BadPicture(f"the recipe of {picture} {came}", "the plain name of a model", "Give --model.")
    return name


def check_inputs(recipe: Mapping[str, Any], picture: Path, given: Sequence[Path]) -> None:
    """Find every input file that a recipe names, beside the picture or among those given, by its sha256.

    Args:
        recipe: as read from the picture; its `inputs` are records of `name` and `sha256`.
        picture: its path.
        given: files named by `--input`.

    Raises:
        BadPicture: when the recipe's `inputs` are no such records.
        BadRequest: when one is missing or has another sha256.
    """
    wanted = recipe.get("inputs", [])
    if not isinstance(wanted, list) or not all(_is_record(one) for one in wanted):
        raise BadPicture(f"the recipe of {picture} with inputs = {repr_short(wanted)}", "records of name and sha256")
    given_hashes = {hashlib.sha256(read_bytes(path)).hexdigest() for path in given}
    for one in wanted:
        name, sha256 = one["name"], one["sha256"]
        beside = picture.parent / name
        found = beside.is_file() and hashlib.sha256(read_bytes(beside)).hexdigest() == sha256
        if not found and sha256 not in given_hashes:
            raise BadRequest(
                f"no file {name!r} with the sha256 of the recipe", "it beside the picture, or --input FILE"
            )
    if strangers := given_hashes - {one["sha256"] for one in wanted}:
        raise BadRequest(f"{len(strangers)} --input that the recipe does not name", "the files that made the picture")


def _is_record(one: Any) -> bool:
    """Whether an input is named by a file's plain name and its sha256: a recipe names files, never places."""
    if not isinstance(one, dict) or not isinstance(one.get("name"), str) or not isinstance(one.get("sha256"), str):
        return False
    return is_plain(one["name"]) and len(one["name"].encode(errors="replace")) <= 255


def tell_if_different(sample: Sample, recipe: Mapping[str, Any], picture: Path) -> None:
    """Say so when the new pixels are not the old ones, which another machine or another model makes possible."""
    if read_picture(picture).tobytes() == sample.picture.tobytes():
        return
    now, then = sample.recipe, recipe
    changed = [key for key in now if key in then and now[key] != then[key] and key not in ("request", "index", "batch")]
    why = f" (changed: {', '.join(changed)})" if changed else " (another machine or another version of torch?)"
    tell(f"note: the new picture is not {picture} to the byte{why}")
