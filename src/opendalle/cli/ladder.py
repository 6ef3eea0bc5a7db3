"""`opendalle ladder`: a picture rebuilt from few and more principal components of its embedding."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from opendalle.cli.asked import COMMON, AskedLadder, request_of
from opendalle.cli.drawing import FILES, MODEL, load_pipeline, name_of, places_of, write_row
from opendalle.cli.pictures_in import picture_of


def ladder(
    image: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    model: Annotated[str | None, Parameter(show_default=lambda _: MODEL)] = None,
    size: Annotated[str, Parameter(group=COMMON)] = "256",
    asked: Annotated[AskedLadder, Parameter(name="*")] = AskedLadder(),  # noqa: B008 - frozen, and made once on purpose
    out: Annotated[Path, Parameter(group=FILES)] = Path("out"),
) -> int:
    """Rebuild a picture from few and more principal components of its CLIP embedding, side by side.

    Args:
        image: The picture, of any size; - is standard input.
        model: A bundled model (dalle2), or a model folder.
        size: Pixels of the longer side of each rung, as 256.
        asked: The flags of a Request.
        out: x.png, or a folder in which pictures are numbered on. Nothing is overwritten.

    Returns:
        The exit code.
    """
    request = request_of("ladder", size, asked)
    given, places = picture_of(image), places_of(out, 1)
    samples = load_pipeline(model).ladder(given, **request.asked_of("ladder"))
    return write_row(samples, name_of(model), places, len(request.components))
