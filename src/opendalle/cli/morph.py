"""`opendalle morph`: a picture led along the difference of two texts."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from opendalle.cli.asked import COMMON, AskedMorph, request_of
from opendalle.cli.drawing import FILES, MODEL, load_pipeline, name_of, places_of, write_samples
from opendalle.cli.pictures_in import picture_of


def morph(
    image: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    to: Annotated[str, Parameter(group=COMMON)],
    from_: Annotated[str, Parameter(name="--from", group=COMMON)] = "",
    model: Annotated[str | None, Parameter(show_default=lambda _: MODEL)] = None,
    size: Annotated[str, Parameter(group=COMMON)] = "256",
    asked: Annotated[AskedMorph, Parameter(name="*")] = AskedMorph(),  # noqa: B008 - frozen, and made once on purpose
    out: Annotated[Path, Parameter(group=FILES)] = Path("out"),
) -> int:
    """Draw a picture as a text would have it: what it means is led along the difference of two texts.

    Args:
        image: The picture, of any size; - is standard input.
        to: What it shall become.
        from_: What it shows now; left out: just a picture.
        model: A bundled model (dalle2), or a model folder.
        size: Pixels of the longer side, as 256.
        asked: The flags of a Request.
        out: x.png for one picture, x.gif or x.mp4 for frames, or a folder. Nothing is overwritten.

    Returns:
        The exit code.
    """
    request = request_of("morph", size, asked, from_text=from_, to_text=to)
    given, places = picture_of(image), places_of(out, request.frames, animates=True)
    samples = load_pipeline(model).morph(given, **request.asked_of("morph"))
    return write_samples(samples, name_of(model), places, request.frames)
