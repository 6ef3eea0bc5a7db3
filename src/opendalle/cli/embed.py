"""`opendalle embed`: what CLIP makes of a picture or a text, as a file that `generate --embedding` draws from."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from opendalle.cli.drawing import FILES, MODEL, load_pipeline
from opendalle.cli.pictures_in import picture_or_text


def embed(
    what: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    model: Annotated[str | None, Parameter(show_default=lambda _: MODEL)] = None,
    out: Annotated[Path, Parameter(group=FILES)] = Path("z.safetensors"),
) -> int:
    """Write the CLIP embedding of a picture or a text, and print where it lies.

    Args:
        what: A picture, or a text; - is a picture from standard input.
        model: A bundled model (dalle2), or a model folder, whose CLIP is asked.
        out: A name ending in .safetensors. Nothing is overwritten.

    Returns:
        The exit code.
    """
    taken = picture_or_text(what)
    from opendalle.clip.embedded import check_name, write_embedding  # torch enters here

    check_name(out)
    pipeline = load_pipeline(model)
    print(write_embedding(out, pipeline.embed(taken), pipeline.clip_sha256), flush=True)
    return 0
