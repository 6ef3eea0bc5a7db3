"""A batch of pictures on its way: what is drawn, from what, how long each stage took, and how it is finished."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from PIL import Image
from torch import Generator, Tensor

from opendalle.base.protocols import Hooks
from opendalle.base.records import Sample
from opendalle.base.request import Request
from opendalle.dalle2.parts import Latent, Prompted
from opendalle.editing import SizePlan
from opendalle.pictures import composite, fit_box, from_array

TRANSPARENT_WORDS = ("sticker", "transparent", "贴纸", "透明")  # a prompt that asks for no background


@dataclass(frozen=True)
class Row:
    """One picture of a batch."""

    request: Request
    index: int  # which of the request's pictures
    seed: int  # of its chance


@dataclass(frozen=True)
class Start:
    """What a batch is decoded from."""

    latent: Latent  # one row a picture
    prompted: Prompted  # their captions
    request: Request  # what is asked of the decoder, the verb's own defaults filled in


@dataclass
class Stopwatch:
    """Seconds of each stage of one batch, or of one picture of it that goes on alone."""

    seconds: dict[str, float] = field(default_factory=dict)
    last: float = field(default_factory=time.perf_counter)

    def lap(self, stage: str) -> None:
        """Book the time since the last lap on a stage."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self.last
        self.last = now

    def pause(self) -> None:
        """Begin the next lap now: what a caller does with a picture is not ours."""
        self.last = time.perf_counter()

    def alone(self) -> "Stopwatch":
        """Return one for a picture that leaves its batch, with the batch's seconds on it."""
        return Stopwatch(dict(self.seconds))


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


def by_seed(request: Request) -> list[Row]:
    """Return one row a picture, each with a seed of its own."""
    return [Row(request, index, request.seed + index) for index in range(request.count)]


def by_frame(request: Request, count: int) -> list[Row]:
    """Return one row a picture of a series, all with the same chance: only what is led changes."""
    return [Row(request, index, request.seed) for index in range(count)]


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


def sample_of(
    row: Row,
    picture: Image.Image,
    told: Mapping[str, Any],
    watch: Stopwatch,
    step: int,
    num_steps: int,
    *,
    is_preview: bool = False,
) -> Sample:
    """Put a picture together with all that makes it again.

    Args:
        row: what was asked, and its chance.
        picture: finished, or as it stands.
        told: of the recipe: model, verb and inputs.
        watch: of its batch.
        step: steps done.
        num_steps: steps in all.
        is_preview: whether it is not finished.
    """
    asked = {"request": row.request.asked_of(told["verb"]), "index": row.index, "seed": row.seed}
    return Sample(
        picture=picture,
        request=row.request,
        index=row.index,
        seed=row.seed,
        step=step,
        num_steps=num_steps,
        is_preview=is_preview,
        recipe={**told, **asked},
        seconds=dict(watch.seconds),
    )


def keeps_transparency(request: Request) -> bool:
    """Whether a picture stays transparent where nothing was drawn.

    `auto` follows the prompt: a sticker, or anything asked for as transparent, stays so; all else stands on white.
    A background that the prompt names is drawn by the model and is not touched by either.
    """
    if request.background == "auto":
        return any(word in request.prompt.lower() for word in TRANSPARENT_WORDS)
    return request.background == "transparent"


def preview_steps(previews: int, num_steps: int) -> frozenset[int]:
    """Spread previews evenly over the steps before the last.

    Args:
        previews: how many, 0 for none.
        num_steps: steps in all.
    """
    if previews == 0:
        return frozenset()
    wanted = min(previews, num_steps - 1)
    return frozenset(round((k + 1) * num_steps / (wanted + 1)) for k in range(wanted))
