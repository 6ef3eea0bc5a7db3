"""Sizes that the cascade does not draw by itself: its squares, grown by outpainting and enlarged by the upscaler.

Pictures leave their batch here and go on one by one, so that memory is that of one large picture and a window.

Source: the stages to 1024 px: unCLIP, arXiv:2204.06125, section 2.1.  The paper has no wide pictures; DALL·E 3 has.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Generator

from opendalle.base.axes import Pictures
from opendalle.base.jobs import Row, Stopwatch, sample_of
from opendalle.base.records import Sample
from opendalle.base.request import Request
from opendalle.dalle2.cascade import Cascade
from opendalle.dalle2.edits import Edits
from opendalle.dalle2.jobs import Job, Start
from opendalle.dalle2.parts import Latent, Prompted
from opendalle.editing import SizePlan, Sizes, carried_on, extended
from opendalle.pictures import from_array, to_array
from opendalle.pictures.finishing import finished
from opendalle.samplers.course import SamplerState
from opendalle.upsampling.cascade import enlarging, reduce_to

OPAQUE, OPAQUE_SHARE = 240, 0.95  # alpha of so much of a picture's border that its ground counts as painted


@dataclass(frozen=True, kw_only=True)
class LargeStep:
    """Where one picture stands on its way."""

    stage: str  # growth, upscaler, or fitting to the size
    picture: Pictures | None = None  # one row, as it stands; None: there is nothing new to show
    is_last: bool = False


class Large:
    """What makes other sizes of one cascade's squares.

    Args:
        cascade: the networks.
        edits: draw the new ground of a picture that grows.
    """

    def __init__(self, cascade: Cascade, edits: Edits) -> None:
        self.cascade, self.edits = cascade, edits
        self.stages = cascade.stages[len(cascade.sizes) - 1 :]  # without those that lead to a native size

    def plan(self, request: Request, *, can_grow: bool) -> SizePlan:
        """Say how a size is made.

        Args:
            request: width and height.
            can_grow: whether a square may grow into a longer picture.

        Raises:
            BadRequest: when it cannot be made; the message lists what can.
        """
        factors = tuple(one.factor for one in self.stages)
        sizes = Sizes(squares=self.cascade.sizes, factors=factors, can_grow=can_grow)
        return sizes.plan((request.width, request.height))

    def samples(
        self,
        pictures: Pictures,
        rows: Sequence[Row],
        job: Job,
        start: Start,
        generators: Sequence[Generator],
        watch: Stopwatch,
        state: SamplerState,
    ) -> Iterator[Sample]:
        """Finish the pictures of a batch, one by one; with previews, show each before and after every frame it grows.

        Args:
            pictures: the squares.
            rows: what was asked of each.
            job: what they were drawn for; its plan says how they go on.
            start: what they were drawn from.
            generators: one a picture; the rest of its chance.
            watch: of the batch.
            state: of the decoder, at its end.
        """
        assert job.plan is not None
        for k, row in enumerate(rows):
            alone = watch.alone()
            for step in self.making(pictures[k : k + 1], job.plan, _row(start, k), generators[k]):
                alone.lap(step.stage)
                if step.picture is None or not (step.is_last or row.request.previews):
                    continue
                values = step.picture[0].float().cpu().numpy()
                picture = finished(values, row.request, shape=job.shape, is_clear=job.is_clear)
                at = (state.step, state.num_steps)
                sample = sample_of(row, picture, job.told, alone, *at, is_preview=not step.is_last)
                if step.is_last:
                    job.hooks.check(sample)
                yield sample
                alone.pause()

    @torch.no_grad()
    def making(self, square: Pictures, plan: SizePlan, start: Start, generator: Generator) -> Iterator[LargeStep]:
        """Bring one square to its size, one record a frame of the growth and a step of the upscaler.

        Args:
            square: one row, in [-1, 1].
            plan: from `plan`.
            start: what it was drawn from, one row.
            generator: the rest of its chance.
        """
        x = square
        if plan.extension is not None:
            yield LargeStep(stage="growth", picture=x)
            for x in self._growing(square, plan, start, generator):
                yield LargeStep(stage="growth", picture=x)
        if plan.factor > 1:
            wide, high = plan.large
            if plan.extension is None:
                yield LargeStep(stage="upscaler", picture=x)
            for step in enlarging(x, (high, wide), self.stages, [generator]):
                yield LargeStep(stage="upscaler")
                x = x if step.pictures is None else step.pictures
        (left, top), (wide, high) = plan.corner, plan.cut
        x = x[:, :, top : top + high, left : left + wide]
        width, height = plan.size
        x = reduce_to(x, (height, width))
        if x.shape[1] < square.shape[1]:
            x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)  # the ground was opaque, and is
        yield LargeStep(stage="fitting", picture=x, is_last=True)

    def _growing(self, square: Pictures, plan: SizePlan, start: Start, generator: Generator) -> Iterator[Pictures]:
        """Yield the picture when its plain ground has been carried on, and after each frame of what is drawn."""
        assert plan.extension is not None
        carried = carried_on(from_array(square[0].float().cpu().numpy()), plan.extension)
        yield torch.from_numpy(to_array(carried.picture))[None].to(square.device)
        if carried.left_over is None:
            return
        draw = self.edits.drawing(start.request, generator, lambda: (start.prompted, start.latent))
        for state in extended(_on_its_ground(carried.picture), carried.left_over, draw, plan.square):
            yield torch.from_numpy(to_array(state.picture))[None].to(square.device)


def _row(start: Start, k: int) -> Start:
    """Return what one picture of a batch was drawn from; the noise has been used."""
    latent, rows = start.latent, torch.tensor([k], device=start.prompted.mask.device)
    prompted: Prompted = start.prompted.rows(rows)
    z = None if latent.z is None else latent.z[k : k + 1]
    return Start(Latent(z, doubt=latent.doubt), prompted, start.request)


def _on_its_ground(picture: Image.Image) -> Image.Image:
    """Return a picture without alpha where its border is opaque: there the ground goes on behind what is drawn."""
    if picture.mode == "RGB":
        return picture
    alpha = np.asarray(picture)[..., 3]
    border = np.concatenate([alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]])
    return picture.convert("RGB") if np.quantile(border, 1 - OPAQUE_SHARE) >= OPAQUE else picture
