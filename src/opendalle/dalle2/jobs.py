"""A batch of pictures on its way: what is drawn, from what, and how it is finished."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from PIL import Image
from torch import Generator, Tensor

from opendalle.base.jobs import Row, Stopwatch, keeps_transparency
from opendalle.base.protocols import Hooks
from opendalle.base.request import Request
from opendalle.dalle2.parts import Latent, Prompted
from opendalle.pictures import composite, fit_box, from_array


@dataclass(frozen=True)
class Start:
    """What a batch is decoded from."""

    latent: Latent  # one row a picture
    prompted: Prompted  # their captions
    request: Request  # what is asked of the decoder, the verb's own defaults filled in


Begin = Callable[[Sequence[Row], Sequence[Generator], Stopwatch], Start]  # where a batch's latents come from


@dataclass(frozen=True)
class Job:
    """Pictures to draw, and what all of them share."""

    rows: Sequence[Row]
    begin: Begin
    hooks: Hooks
    told: Mapping[str, Any]  # of the recipe: model, verb and inputs
    shape: tuple[int, int] | None = None  # width and height of the one picture that was handed in
    is_clear: bool | None = None  # whether what was handed in is transparent somewhere; None: nothing was


def finished(values: Float[Tensor, "c h w"], job: Job, request: Request) -> Image.Image:
    """Turn what was drawn into a picture, of the shape of the one handed in, before the background asked for.

    Args:
        values: as the networks draw it, in [-1, 1].
        job: what it was drawn for.
        request: background.
    """
    picture = from_array(values.float().cpu().numpy())
    if job.shape is not None:
        picture = picture.crop(fit_box(*job.shape, picture.width))
    keeps = keeps_transparency(request) if job.is_clear is None or request.background != "auto" else job.is_clear
    return picture if keeps else composite(picture)
