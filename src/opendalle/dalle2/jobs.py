"""A batch of pictures on its way: what is drawn, and from what."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Generator

from opendalle.base.jobs import Row, Stopwatch
from opendalle.base.protocols import Hooks
from opendalle.base.request import Request
from opendalle.dalle2.parts import Latent, Prompted
from opendalle.editing import SizePlan


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
    plan: SizePlan | None = None  # how the size is made; None: it is drawn natively
