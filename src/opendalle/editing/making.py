"""A size, made as it was planned: what a generation draws, grown, enlarged, cut and shrunk, one record a step.

What draws new ground and what resizes are handed in: this room knows no network.  Pictures leave their batch here and
go on one by one, so that memory is that of one large picture and a window.

Source: the stages to 1024 px: unCLIP, arXiv:2204.06125, section 2.1.  The paper has no wide pictures; DALL·E 3 has.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Generator, Tensor

from opendalle.base.axes import Pictures
from opendalle.base.jobs import Row, Stopwatch
from opendalle.base.records import Sample
from opendalle.base.request import Request
from opendalle.editing.drawing import Draw, extended
from opendalle.editing.ground import carried_on
from opendalle.editing.sizes import Size, SizePlan, Sizes
from opendalle.pictures import from_array, to_array

OPAQUE, OPAQUE_SHARE = 240, 0.95  # alpha of so much of a picture's border that its ground counts as painted

# One picture and a height and width of its shape, larger or smaller -> the picture at last, nothing a step before.
Resize = Callable[[Pictures, tuple[int, int]], Iterator[Pictures | None]]
# What was asked, a picture as it stands, the seconds it took, whether it is a preview -> what is handed out.
Finish = Callable[[Row, Float[Tensor, "c h w"], Stopwatch, bool], Sample]


@dataclass(frozen=True, kw_only=True)
class MakingStep:
    """Where one picture stands on its way."""

    stage: str  # growth, upscaler, or fitting to the size
    picture: Pictures | None = None  # one row, as it stands; None: there is nothing new to show
    is_last: bool = False


class Making:
    """The sizes that a generation makes out of what it draws.

    Args:
        squares: sides of those that it draws, smallest first.
        factors: of the upsamplers that may follow the largest, in order.
        resizing: from the chance of one picture to what resizes it with them.
        longer: wide and tall pictures that it draws, as `Sizes` has them.
    """

    def __init__(
        self,
        squares: Sequence[int],
        factors: Sequence[int],
        resizing: Callable[[Generator], Resize],
        longer: Sequence[Size] = (),
    ) -> None:
        self.squares, self.factors, self.longer = tuple(squares), tuple(factors), tuple(longer)
        self.resizing = resizing

    def plan(self, request: Request, *, can_grow: bool = True) -> SizePlan:
        """Say how a size is made.

        Args:
            request: width and height.
            can_grow: whether what is drawn may grow into a longer picture.

        Raises:
            BadRequest: when it cannot be made; the message lists what can.
        """
        sizes = Sizes(squares=self.squares, longer=self.longer, factors=self.factors, can_grow=can_grow)
        return sizes.plan((request.width, request.height))

    def samples(
        self,
        pictures: Pictures,
        rows: Sequence[Row],
        plan: SizePlan,
        generators: Sequence[Generator],
        watch: Stopwatch,
        *,
        drawing: Callable[[int], Draw],
        finish: Finish,
    ) -> Iterator[Sample]:
        """Finish the pictures of a batch, one by one; with previews, show each before and after every frame it grows.

        Args:
            pictures: as they were drawn.
            rows: what was asked of each.
            plan: from `plan`.
            generators: one a picture; the rest of its chance.
            watch: of the batch.
            drawing: from a picture's place in the batch to what draws new ground beside it.
            finish: what turns a picture as it stands into what is handed out.
        """
        for place, row in enumerate(rows):
            alone = watch.alone()
            resize = self.resizing(generators[place])
            for step in making(pictures[place : place + 1], plan, drawing(place), resize):
                alone.lap(step.stage)
                if step.picture is not None and (step.is_last or row.request.previews):
                    yield finish(row, step.picture[0], alone, not step.is_last)
                    alone.pause()


@torch.no_grad()
def making(drawn: Pictures, plan: SizePlan, draw: Draw, resize: Resize) -> Iterator[MakingStep]:
    """Bring one picture to its size, one record a frame of the growth and a step of the upscaler.

    Args:
        drawn: one row, in [-1, 1].
        plan: how.
        draw: what draws new ground, with its chance inside.
        resize: what enlarges and shrinks, with its chance inside.
    """
    x = drawn
    if plan.extension is not None:
        yield MakingStep(stage="growth", picture=x)
        for x in _growing(drawn, plan, draw):
            yield MakingStep(stage="growth", picture=x)
    if plan.factor > 1:
        if plan.extension is None:
            yield MakingStep(stage="upscaler", picture=x)
        wide, high = plan.large
        for enlarged in resize(x, (high, wide)):
            yield MakingStep(stage="upscaler")
            x = x if enlarged is None else enlarged
    (left, top), (wide, high), (width, height) = plan.corner, plan.cut, plan.size
    *_, x = resize(x[:, :, top : top + high, left : left + wide], (height, width))
    assert x is not None
    if x.shape[1] < drawn.shape[1]:
        x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)  # the ground was opaque, and is
    yield MakingStep(stage="fitting", picture=x, is_last=True)


def _growing(drawn: Pictures, plan: SizePlan, draw: Draw) -> Iterator[Pictures]:
    """Yield the picture when its plain ground has been carried on, and after each frame of what is drawn."""
    assert plan.extension is not None
    carried = carried_on(from_array(drawn[0].float().cpu().numpy()), plan.extension)
    yield torch.from_numpy(to_array(carried.picture))[None].to(drawn.device)
    if carried.left_over is None:
        return
    for state in extended(_on_its_ground(carried.picture), carried.left_over, draw, plan.square):
        yield torch.from_numpy(to_array(state.picture))[None].to(drawn.device)


def _on_its_ground(picture: Image.Image) -> Image.Image:
    """Return a picture without alpha where its border is opaque: there the ground goes on behind what is drawn."""
    if picture.mode == "RGB":
        return picture
    alpha = np.asarray(picture)[..., 3]
    border = np.concatenate([alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]])
    return picture.convert("RGB") if np.quantile(border, 1 - OPAQUE_SHARE) >= OPAQUE else picture
