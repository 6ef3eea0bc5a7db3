"""`opendalle generate`: pictures from a sentence, from a file of sentences, or again from a picture's recipe."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter
from PIL.Image import Image

from opendalle.base.errors import BadModel, BadPicture, BadRequest, OpenDalleError
from opendalle.base.records import Sample
from opendalle.base.request import Request
from opendalle.cli.again import check_inputs, model_of, same_batch, tell_if_different
from opendalle.cli.asked import COMMON, Asked, request_of
from opendalle.cli.console import progress, tell
from opendalle.pictures import next_number, numbered_path, read_recipe, refuse_unwritable, write_gif, write_png

MODEL = "dalle2"
WATCH_FRAMES = 24  # of `--watch`, unless `--previews` says otherwise
WATCH_MS, WATCH_LAST_MS = 80, 1500  # how long a frame is shown, and the finished picture

OTHER_ENDINGS = (".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".svg", ".tif", ".tiff", ".webp")

FILES = Group("Files", sort_key=3)


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where the pictures of one command go."""

    file: Path | None  # the one picture's name
    folder: Path  # else the folder that they are numbered in
    first: int  # the first number

    def path(self, number: int) -> Path:
        """Return the place of picture `number`, counted from 0."""
        return self.file or numbered_path(self.folder, self.first + number)


def generate(
    prompt: str | None = None,
    /,
    *,
    model: Annotated[str | None, Parameter(show_default=lambda _: MODEL)] = None,
    size: Annotated[str, Parameter(group=COMMON)] = "256",
    asked: Annotated[Asked, Parameter(name="*")] = Asked(),  # noqa: B008 - frozen, and made once on purpose
    out: Annotated[Path, Parameter(group=FILES)] = Path("out"),
    prompts: Annotated[Path | None, Parameter(group=FILES, allow_leading_hyphen=True)] = None,
    watch: Annotated[Path | None, Parameter(group=FILES)] = None,
    again: Annotated[Path | None, Parameter(group=FILES)] = None,
    input: Annotated[tuple[Path, ...], Parameter(group=FILES, negative="", show_default=False)] = (),
) -> int:
    """Draw pictures from a sentence, in any language, and print where each one lies.

    Args:
        prompt: What to draw. Quote it; if it begins with a dash, put it last, after --.
        model: A bundled model (dalle2), or a model folder.
        size: Pixels, as 256 or as WIDTHxHEIGHT.
        asked: The flags of a Request.
        out: x.png for one picture, or a folder in which they are numbered on. Nothing is overwritten.
        prompts: A text file, one prompt a line; - is standard input.
        watch: Also write the denoising of one picture as an animation, x.gif.
        again: Make this picture again from the recipe inside it; only --out, --model and --input go with it.
        input: Files that the picture's recipe names, if they do not lie beside it.

    Returns:
        The exit code.

    Raises:
        BadRequest: when the words do not fit together.
    """
    if again is not None:
        if prompt is not None or prompts or watch or size != "256" or asked != Asked():
            raise BadRequest(
                "--again beside a prompt or other flags", "--again PICTURE with --out, --model and --input"
            )
        return _generate_again(again, model, out, input)
    if (prompt is None) == (prompts is None):
        raise BadRequest("no prompt" if prompt is None else "a prompt and --prompts", "a prompt, or --prompts FILE")
    if prompts is not None:
        requests = _requests_of_lines(prompts, size, asked)
    else:
        requests = [request_of(prompt or "", size, asked)]
    num_pictures = sum(request.count for request in requests)
    places = _places(out, num_pictures)
    if watch is not None:
        requests = [_watched(watch, request, num_pictures, places) for request in requests]
    model = MODEL if model is None else model
    return _draw(_load(model), Path(model).name, requests, places, watch)


def _requests_of_lines(file: Path, size: str, asked: Asked) -> list[Request]:
    """Build every Request before the first is drawn, so that a mistake in line 90 costs nothing."""
    name = "standard input" if str(file) == "-" else str(file)
    try:
        data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadRequest(f"{name}, whose byte {error.start + 1} is not UTF-8", "text in UTF-8") from None
    except (OSError, AttributeError) as error:  # AttributeError: standard input was closed before we began
        why = getattr(error, "strerror", None) or "there is none"
        raise BadRequest(f"{name}, which cannot be read ({why})", "a text file, one prompt a line") from None
    requests: list[Request] = []
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            if line.strip():
                requests.append(request_of(line.strip(), size, asked))
        except BadRequest as error:
            raise BadRequest(f"line {number} of {name}: {error.came}", error.wanted, error.todo) from None
    if not requests:
        raise BadRequest(f"no prompt in {name}", "one prompt a line")
    return requests


def _places(out: Path, num_pictures: int) -> Places:
    if out.suffix.lower() == ".png":
        if num_pictures > 1:
            raise BadRequest(f"{num_pictures} pictures for the one name {out}", "a folder, as --out out")
        refuse_unwritable(out)
        return Places(file=out, folder=out.parent, first=0)
    first = next_number(out)
    if not out.is_dir() and out.suffix.lower() in OTHER_ENDINGS:
        raise BadRequest(f"--out {out}", "a name ending in .png, or a folder", "Pictures are PNG.")
    if out.exists() and not out.is_dir():
        raise BadRequest(f"--out {out}, a file", "a name ending in .png, or a folder")
    refuse_unwritable(numbered_path(out, first))
    return Places(file=None, folder=out, first=first)


def _watched(watch: Path, request: Request, num_pictures: int, places: Places) -> Request:
    if watch.suffix.lower() != ".gif" or num_pictures > 1:
        raise BadRequest(f"--watch {watch} of {num_pictures} pictures", "a name ending in .gif, and one picture")
    picture = places.path(0).absolute()
    if picture in watch.absolute().parents or watch.absolute() in picture.parents:
        raise BadRequest(f"--watch {watch} with the picture {places.path(0)}", "a file beside it, not below it")
    refuse_unwritable(watch)
    return request if request.previews else replace(request, previews=WATCH_FRAMES)


def _load(model: str) -> Any:
    from opendalle import pretrained  # torch enters here

    return pretrained.load_pipeline(model)


def _samples(pipeline: Any, request: Request) -> Iterator[Sample]:
    return pipeline.generate(**asdict(request))


def _draw(pipeline: Any, model: str, requests: Sequence[Request], places: Places, watch: Path | None) -> int:
    """Write each picture the moment it is finished; return the exit code."""
    written: list[Path] = []
    try:
        for path in _written(pipeline, model, requests, places, watch):
            written.append(path)
            print(path, flush=True)
    except OpenDalleError as error:
        if not written:
            raise
        tell(f"stopped after {written[-1]}: {error}")  # begun but not done, which is no longer wrong use
        return 1
    return 0


def _written(
    pipeline: Any, model: str, requests: Sequence[Request], places: Places, watch: Path | None
) -> Iterator[Path]:
    total, done, frames = sum(request.count for request in requests), 0, list[Image]()
    with progress("drawing", total) as advance:
        for request in requests:
            before = done
            for sample in _samples(pipeline, request):
                frames += [sample.picture] if watch else []
                if sample.is_preview:
                    continue
                recipe = recipe_of(sample, model)
                yield write_png(sample.picture, places.path(before + sample.index), recipe)
                done += 1
                advance(done, "")
    if watch is not None:
        times = [WATCH_MS] * (len(frames) - 1) + [WATCH_LAST_MS]
        yield write_gif(frames, watch, times)


def recipe_of(sample: Sample, model: str) -> dict[str, Any]:
    """Return what goes into the picture's metadata: who made it, what was asked, and what the pipeline adds.

    Args:
        sample: a finished picture; its own recipe wins, since the pipeline knows best.
        model: the name under which `load` finds the model; no path of this machine.
    """
    from opendalle import __version__

    asked = {"request": asdict(sample.request), "index": sample.index}
    return {"opendalle": __version__, "verb": "generate", "model": model} | asked | sample.recipe


def _generate_again(picture: Path, model: str | None, out: Path, inputs: Sequence[Path]) -> int:
    """Make a picture again; the new file carries the old recipe, so that equal pixels are equal bytes."""
    recipe = read_recipe(picture)
    request, index = same_batch(recipe, picture)
    check_inputs(recipe, picture, inputs)
    places = _places(out, 1)
    name = model_of(recipe, picture) if model is None else model
    try:
        pipeline = _load(name)
    except BadModel as error:
        if model is not None:
            raise
        came = f"the recipe of {picture}, whose model cannot be had ({error.came})"
        raise BadModel(came, error.wanted, "Give --model.") from None
    with progress("drawing", 1):
        for sample in _samples(pipeline, request):
            if sample.index == index and not sample.is_preview:
                tell_if_different(sample, recipe, picture)
                print(write_png(sample.picture, places.path(0), recipe), flush=True)
                return 0
    raise BadPicture(f"the recipe of {picture} asks for a picture that the model does not draw", "a whole recipe")
