"""`opendalle edit`: a part of a picture drawn anew, or a picture that grows."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from opendalle.cli.asked import AskedEdit, request_of
from opendalle.cli.drawing import FILES, MODEL, load_pipeline, name_of, places_of, write_samples
from opendalle.cli.pictures_in import picture_of


def edit(
    image: Annotated[str, Parameter(allow_leading_hyphen=True)],
    prompt: str = "",
    /,
    *,
    model: Annotated[str | None, Parameter(show_default=lambda _: MODEL)] = None,
    mask: Annotated[Path | None, Parameter(group=FILES)] = None,
    asked: Annotated[AskedEdit, Parameter(name="*")] = AskedEdit(),  # noqa: B008 - frozen, and made once on purpose
    out: Annotated[Path, Parameter(group=FILES)] = Path("out"),
) -> int:
    """Draw a part of a picture anew, or let it grow; all else stays as it is, to the byte.

    Say where by --mask, --box or --extend.

    Args:
        image: The picture, of any size; - is standard input.
        prompt: What the whole picture shall show; left out: what it shows already.
        model: A bundled model (dalle2), or a model folder.
        mask: A picture of the same size, transparent where to edit (or white, with --mask-white).
        asked: The flags of a Request.
        out: x.png for one picture, or a folder in which they are numbered on. Nothing is overwritten.

    Returns:
        The exit code.
    """
    request = request_of("edit", "256", asked, prompt=prompt)
    given, places = picture_of(image), places_of(out, request.count)
    where = None if mask is None else picture_of(str(mask))
    samples = load_pipeline(model).edit(given, mask=where, **request.asked_of("edit"))
    return write_samples(samples, name_of(model), places, request.count)
