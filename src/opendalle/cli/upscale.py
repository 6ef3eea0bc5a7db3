"""`opendalle upscale`: a picture of any size, enlarged by the upsamplers."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from opendalle.cli.asked import AskedUpscale, request_of
from opendalle.cli.drawing import FILES, MODEL, load_pipeline, name_of, places_of, write_samples
from opendalle.cli.pictures_in import picture_of


def upscale(
    image: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    model: Annotated[str | None, Parameter(show_default=lambda _: MODEL)] = None,
    asked: Annotated[AskedUpscale, Parameter(name="*")] = AskedUpscale(),  # noqa: B008 - frozen, made once on purpose
    out: Annotated[Path, Parameter(group=FILES)] = Path("out"),
) -> int:
    """Enlarge a picture with the upsamplers, in windows, so that memory does not grow with it.

    Args:
        image: The picture, of any size; - is standard input.
        model: A bundled model (dalle2), or a model folder, whose upsampler is asked.
        asked: The flags of a Request.
        out: x.png, or a folder in which pictures are numbered on. Nothing is overwritten.

    Returns:
        The exit code.
    """
    request = request_of("upscale", "256", asked)
    given, places = picture_of(image), places_of(out, 1)
    samples = load_pipeline(model).upscale(given, **request.asked_of("upscale"))
    return write_samples(samples, name_of(model), places, 1)
