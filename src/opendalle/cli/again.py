"""`--again PICTURE`: what a picture's recipe asks for, with the inputs that it names, drawn once more."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from reprlib import repr as repr_short
from typing import Any

from PIL.Image import Image

from opendalle.base.errors import BadModel, BadPicture, BadRequest
from opendalle.base.request import VERBS, WANDERING, Request
from opendalle.checkpoint.places import is_plain
from opendalle.cli.console import progress, tell
from opendalle.cli.drawing import drawn_row, load_pipeline, places_of
from opendalle.cli.pictures_in import embedding_of, mask_of
from opendalle.pictures import read_bytes, read_picture, read_recipe, write_png


def make_again(picture: Path, model: str | None, out: Path, inputs: Sequence[Path]) -> int:
    """Make a picture again; the new file carries the old recipe, so that equal pixels are equal bytes.

    Args:
        picture: a PNG that opendalle wrote.
        model: to draw with; None: the one that the recipe names.
        out: where the new picture goes.
        inputs: files that the recipe names, if they do not lie beside the picture.

    Returns:
        The exit code.

    Raises:
        BadModel: when the model cannot be had.
        BadPicture: when the recipe is not whole.
        BadRequest: when an input is missing or another one.
    """
    recipe = read_recipe(picture)
    verb, request, index = same_batch(recipe, picture)
    found = find_inputs(recipe, picture, inputs)
    places = places_of(out, 1)
    name = model_of(recipe, picture) if model is None else model
    try:
        pipeline = load_pipeline(name)
    except BadModel as error:
        if model is not None:
            raise
        came = f"the recipe of {picture}, whose model cannot be had ({error.came})"
        raise BadModel(came, error.wanted, "Give --model.") from None
    given: dict[str, Any] = {}
    if verb == "generate" and found:  # all that a drawing from words can have been given
        given, found = {"embedding": embedding_of(Path(found[0]))}, []
    if "mask" in recipe:
        given["mask"] = mask_of(recipe["mask"], picture)
    samples = getattr(pipeline, verb)(*found, **request.asked_of(verb), **given)
    if verb == "ladder":
        sheet, now = drawn_row(samples, name, len(request.components))
        tell_if_different(sheet, now, recipe, picture)
        print(write_png(sheet, places.path(0), recipe), flush=True)
        return 0
    with progress("drawing", 1):
        for sample in samples:
            if sample.index == index and not sample.is_preview:
                tell_if_different(sample.picture, sample.recipe, recipe, picture)
                print(write_png(sample.picture, places.path(0), recipe), flush=True)
                return 0
    raise BadPicture(f"the recipe of {picture} asks for a picture that the model does not draw", "a whole recipe")


def same_batch(recipe: Mapping[str, Any], picture: Path) -> tuple[str, Request, int]:
    """Return the verb, the Request that draws a picture's batch again, and the picture's index in it.

    Pictures that differ by chance are drawn in consecutive batches from index 0, and picture k uses seed + k; so the
    batch that a picture was in is a request of its own, and the others need not be drawn.  Frames of a way are drawn
    from the first one on.

    Args:
        recipe: as read from the picture.
        picture: its path, for messages.

    Raises:
        BadPicture: when the recipe is of no verb that can be repeated, or not whole.
    """
    verb = recipe.get("verb", "generate")
    if verb not in VERBS:
        raise BadPicture(f"{picture} was made by {repr_short(verb)}", "a picture made by " + ", ".join(VERBS))
    asked, index = recipe.get("request"), recipe.get("index")
    known = {one.name for one in fields(Request)}
    if not isinstance(asked, dict) or not isinstance(index, int) or isinstance(index, bool) or not set(asked) <= known:
        raise BadPicture(f"the recipe of {picture} is not whole", "a picture drawn by this or an older opendalle")
    try:
        request = Request.of(**{"verb": verb, **asked})
    except BadRequest as error:
        raise BadPicture(
            f"the recipe of {picture} asks for what cannot be drawn: {error.came}", error.wanted, error.todo
        ) from None
    request = replace(request, previews=0, rewrite="off")  # the text that was drawn lies in the recipe
    if verb not in WANDERING:
        return verb, request, index
    if not 0 <= index < request.count:
        raise BadPicture(f"the recipe of {picture} tells of picture {index} of {request.count}", "a whole recipe")
    rows = 1 if request.exact else request.batch
    start = index // rows * rows
    count = min(rows, request.count - start)
    return verb, replace(request, seed=request.seed + start, count=count), index - start


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


def find_inputs(recipe: Mapping[str, Any], picture: Path, given: Sequence[Path]) -> list[Path | str]:
    """Find every input that a recipe names: files beside the picture or among those given, by their sha256.

    Args:
        recipe: as read from the picture; its `inputs` are records of `name` and `sha256`, or of `text`.
        picture: its path.
        given: files named by `--input`.

    Returns:
        The inputs in the recipe's order: a path of a file, or a text.

    Raises:
        BadPicture: when the recipe's `inputs` are no such records.
        BadRequest: when one is missing or has another sha256.
    """
    wanted = recipe.get("inputs", [])
    if not isinstance(wanted, list) or not all(_is_record(one) for one in wanted):
        raise BadPicture(f"the recipe of {picture} with inputs = {repr_short(wanted)}", "records of name and sha256")
    by_hash = {hashlib.sha256(read_bytes(path)).hexdigest(): path for path in given}
    strangers = set(by_hash) - {one.get("sha256") for one in wanted}
    found: list[Path | str] = []
    for one in wanted:
        if "text" in one:
            found.append(one["text"])
            continue
        name, sha256 = one["name"], one["sha256"]
        beside = picture.parent / name
        if sha256 in by_hash:
            found.append(by_hash[sha256])
        elif beside.is_file() and hashlib.sha256(read_bytes(beside)).hexdigest() == sha256:
            found.append(beside)
        else:
            raise BadRequest(
                f"no file {name!r} with the sha256 of the recipe", "it beside the picture, or --input FILE"
            )
    if strangers:
        raise BadRequest(f"{len(strangers)} --input that the recipe does not name", "the files that made the picture")
    return found


def _is_record(one: Any) -> bool:
    """Whether an input is a text, or a file's plain name and its sha256: a recipe names files, never places."""
    if isinstance(one, dict) and isinstance(one.get("text"), str):
        return True
    if not isinstance(one, dict) or not isinstance(one.get("name"), str) or not isinstance(one.get("sha256"), str):
        return False
    return is_plain(one["name"]) and len(one["name"].encode(errors="replace")) <= 255


def tell_if_different(made: Image, now: Mapping[str, Any], then: Mapping[str, Any], picture: Path) -> None:
    """Say so when the new pixels are not the old ones, which another machine or another model makes possible."""
    if read_picture(picture).tobytes() == made.tobytes():
        return
    changed = [key for key in now if key in then and now[key] != then[key] and key not in ("request", "index", "batch")]
    why = f" (changed: {', '.join(changed)})" if changed else " (another machine or another version of torch?)"
    tell(f"note: the new picture is not {picture} to the byte{why}")
