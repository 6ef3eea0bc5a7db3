"""A batch of pictures on its way: what is drawn, and from what."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Generator

from opendalle.base.jobs import Row, Stopwatch
from opendalle.base.request import Request
from opendalle.dalle2.parts import Latent, Prompted
from opendalle.editing import SizePlan
from opendalle.pictures.work import PictureJob


@dataclass(frozen=True)
class Start:
    """What a batch is decoded from."""

    latent: Latent  # one row a picture
    prompted: Prompted  # their captions
    request: Request  # what is asked of the decoder, the verb's own defaults filled in


Begin = Callable[[Sequence[Row], Sequence[Generator], Stopwatch], Start]  # where a batch's latents come from


@dataclass(frozen=True, kw_only=True)
class Job(PictureJob):
    """Pictures to draw, and where their latents come from."""

    begin: Begin
    plan: SizePlan | None = None  # how the size is made; None: it is drawn natively
