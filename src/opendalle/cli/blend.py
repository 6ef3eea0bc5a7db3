"""`opendalle blend`: what stands between pictures, or between the pictures of sentences."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from opendalle.cli.asked import COMMON, AskedBlend, request_of
from opendalle.cli.drawing import FILES, MODEL, load_pipeline, name_of, places_of, write_samples
from opendalle.cli.pictures_in import picture_or_text


def blend(
    *sources: str,
    model: Annotated[str | None, Parameter(show_default=lambda _: MODEL)] = None,
    size: Annotated[str, Parameter(group=COMMON)] = "256",
    asked: Annotated[AskedBlend, Parameter(name="*")] = AskedBlend(),  # noqa: B008 - frozen, and made once on purpose
    out: Annotated[Path, Parameter(group=FILES)] = Path("out"),
) -> int:
    """Draw what stands between pictures: one by weights, or frames of the way from the first to the last.

    Args:
        sources: Pictures and texts, two or more; a text stands for the picture that the model draws of it.
        model: A bundled model (dalle2), or a model folder.
        size: Pixels, as 256.
        asked: The flags of a Request.
        out: x.png for one picture, x.gif or x.mp4 for frames, or a folder. Nothing is overwritten.

    Returns:
        The exit code.
    """
    request = request_of("blend", size, asked)
    taken, places = [picture_or_text(one) for one in sources], places_of(out, request.frames, animates=True)
    samples = load_pipeline(model).blend(*taken, **request.asked_of("blend"))
    return write_samples(samples, name_of(model), places, request.frames)
