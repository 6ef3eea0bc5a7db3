"""`opendalle vary`: a picture drawn anew, the same in meaning."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from opendalle.cli.asked import COMMON, AskedVary, request_of
from opendalle.cli.drawing import FILES, MODEL, load_pipeline, name_of, places_of, write_samples
from opendalle.cli.pictures_in import picture_of


def vary(
    image: Annotated[str, Parameter(allow_leading_hyphen=True)],
    prompt: str = "",
    /,
    *,
    model: Annotated[str | None, Parameter(show_default=lambda _: MODEL)] = None,
    size: Annotated[str, Parameter(group=COMMON)] = "256",
    asked: Annotated[AskedVary, Parameter(name="*")] = AskedVary(),  # noqa: B008 - frozen, and made once on purpose
    out: Annotated[Path, Parameter(group=FILES)] = Path("out"),
) -> int:
    """Draw a picture anew: the same in meaning, other in what meaning does not fix.

    Args:
        image: The picture, of any size; - is standard input.
        prompt: What it shows, for the decoder to hold on to; may be left out.
        model: A bundled model (dalle2), or a model folder.
        size: Pixels of the longer side, as 256.
        asked: The flags of a Request.
        out: x.png for one picture, or a folder in which they are numbered on. Nothing is overwritten.

    Returns:
        The exit code.
    """
    request = request_of("vary", size, asked, prompt=prompt)
    given, places = picture_of(image), places_of(out, request.count)
    samples = load_pipeline(model).vary(given, **request.asked_of("vary"))
    return write_samples(samples, name_of(model), places, request.count)
