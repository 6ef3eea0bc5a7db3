"""`opendalle generate`: pictures from a sentence, from a file of sentences, or again from a picture's recipe."""

import sys
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from PIL import Image

from opendalle.base.errors import BadRequest
from opendalle.base.request import Request
from opendalle.cli.again import make_again
from opendalle.cli.asked import COMMON, Asked, request_of
from opendalle.cli.console import progress
from opendalle.cli.drawing import FILES, MODEL, Places, load_pipeline, name_of, name_written, places_of, recipe_of
from opendalle.cli.pictures_in import embedding_of
from opendalle.cli.rewriting import tell_rewriting, upsampler_of
from opendalle.pictures import refuse_unwritable, resize, write_gif, write_png

if TYPE_CHECKING:
    from opendalle.dalle3.rewriting.upsampler import PromptUpsampler

WATCH_FRAMES = 24  # of `--watch`, unless `--previews` says otherwise
WATCH_MS, WATCH_LAST_MS = 80, 1500  # how long a frame is shown, and the finished picture


def generate(
    prompt: str | None = None,
    /,
    *,
    model: Annotated[str | None, Parameter(show_default=lambda _: MODEL)] = None,
    size: Annotated[str, Parameter(group=COMMON)] = "256",
    asked: Annotated[Asked, Parameter(name="*")] = Asked(),  # noqa: B008 - frozen, and made once on purpose
    chat_url: Annotated[str | None, Parameter(group=COMMON)] = None,
    chat_model: Annotated[str | None, Parameter(group=COMMON)] = None,
    out: Annotated[Path, Parameter(group=FILES)] = Path("out"),
    embedding: Annotated[Path | None, Parameter(group=FILES)] = None,
    prompts: Annotated[Path | None, Parameter(group=FILES, allow_leading_hyphen=True)] = None,
    watch: Annotated[Path | None, Parameter(group=FILES)] = None,
    again: Annotated[Path | None, Parameter(group=FILES)] = None,
    input: Annotated[tuple[Path, ...], Parameter(group=FILES, negative="", show_default=False)] = (),
) -> int:
    """Draw pictures from a sentence, in any language, and print where each one lies.

    Args:
        prompt: What to draw. Quote it; if it begins with a dash, put it last, after --.
        model: A bundled model (dalle2), or a model folder.
        size: Pixels, as 256 or as WIDTHxHEIGHT; what the model cannot make is refused with a list of what it can.
        asked: The flags of a Request.
        chat_url: For --rewrite http: the address of a chat model, as http://127.0.0.1:8080/v1; a key that it wants is
            read from OPENDALLE_CHAT_KEY.
        chat_model: For --rewrite http: the model's name there. For --rewrite local: its folder.
        out: x.png for one picture, or a folder in which they are numbered on. Nothing is overwritten.
        embedding: Draw from this file, written by embed, instead of asking the prior; the prompt may be left out.
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
        others = (prompt, prompts, watch, embedding, chat_url, chat_model)
        if any(one is not None for one in others) or size != "256" or asked != Asked():
            raise BadRequest(
                "--again beside a prompt or other flags", "--again PICTURE with --out, --model and --input"
            )
        return make_again(again, model, out, input)
    if embedding is not None and prompts is None:
        prompt = prompt or ""
    if (prompt is None) == (prompts is None):
        raise BadRequest("no prompt" if prompt is None else "a prompt and --prompts", "a prompt, or --prompts FILE")
    if prompts is not None:
        requests = _requests_of_lines(prompts, size, asked)
    else:
        requests = [request_of("generate", size, asked, prompt=prompt or "", may_be_silent=embedding is not None)]
    num_pictures = sum(request.count for request in requests)
    places = places_of(out, num_pictures)
    if watch is not None:
        requests = [_watched(watch, request, num_pictures, places) for request in requests]
    given = {} if embedding is None else {"embedding": embedding_of(embedding)}
    upsampler = upsampler_of(requests[0].rewrite, chat_url, chat_model)
    return name_written(_written(load_pipeline(model), name_of(model), requests, given, places, watch, upsampler))


def _requests_of_lines(file: Path, size: str, asked: Asked) -> list[Request]:
    """Build every Request before the first is drawn, so that a mistake in line 90 costs nothing."""
    if getattr(asked, "revised_prompt", ""):
        raise BadRequest("--prompts with --revised-prompt", "one of them: the second is of one prompt")
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
                requests.append(request_of("generate", size, asked, prompt=line.strip()))
        except BadRequest as error:
            raise BadRequest(f"line {number} of {name}: {error.came}", error.wanted, error.todo) from None
    if not requests:
        raise BadRequest(f"no prompt in {name}", "one prompt a line")
    return requests


def _watched(watch: Path, request: Request, num_pictures: int, places: Places) -> Request:
    if watch.suffix.lower() != ".gif" or num_pictures > 1:
        raise BadRequest(f"--watch {watch} of {num_pictures} pictures", "a name ending in .gif, and one picture")
    picture = places.path(0).absolute()
    if picture in watch.absolute().parents or watch.absolute() in picture.parents:
        raise BadRequest(f"--watch {watch} with the picture {places.path(0)}", "a file beside it, not below it")
    refuse_unwritable(watch)
    return request if request.previews else replace(request, previews=WATCH_FRAMES)


def _written(
    pipeline: Any,
    model: str,
    requests: Sequence[Request],
    given: Mapping[str, Any],
    places: Places,
    watch: Path | None,
    upsampler: "PromptUpsampler | None",
) -> Generator[Path, None, None]:
    total, done, frames = sum(request.count for request in requests), 0, list[Image.Image]()
    with progress("drawing", total) as advance:
        for request in requests:
            before = done
            request, told = _revised(request, upsampler)
            for sample in pipeline.generate(**request.asked_of("generate"), **given):
                frames += [sample.picture] if watch else []
                if sample.is_preview:
                    continue
                recipe = recipe_of(sample, model) | told
                if sample.index == 0:
                    tell_rewriting(sample, recipe)
                yield write_png(sample.picture, places.path(before + sample.index), recipe)
                done += 1
                advance(done, "")
    if watch is not None:
        times = [WATCH_MS] * (len(frames) - 1) + [WATCH_LAST_MS]
        yield write_gif([_laid_on(frame, frames[-1].size) for frame in frames], watch, times)


def _revised(request: Request, upsampler: "PromptUpsampler | None") -> tuple[Request, dict[str, Any]]:
    """Rewrite a prompt just before it is drawn, so that the first picture need not wait for the last prompt."""
    if upsampler is None:
        return request, {}
    from opendalle.dalle3.rewriting.revising import revise

    (revised,) = revise([request], upsampler)
    return revised.request, revised.told


def _laid_on(frame: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Bring a preview to the finished picture's size: a square that is yet to grow lies in the middle of it."""
    larger = min(size[0] / frame.width, size[1] / frame.height)
    width, height = round(larger * frame.width), round(larger * frame.height)
    ground = Image.new("RGBA", size)
    ground.paste(resize(frame, width, height), ((size[0] - width) // 2, (size[1] - height) // 2))
    return ground
