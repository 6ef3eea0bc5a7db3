"""From a picture of any size to one of a size asked for: upsamplers one after the other, drawn in windows.

Between two steps of a stage only the noised picture is kept whole, twice; enlarged pictures and whatever a network
computes exist for one window at a time.  The noise is drawn for the whole picture before it is cut, and windows overlap
by as much as the network sees, so tiles give the very picture that one pass over the whole would give.  Only a network
that sees everywhere, through a group norm, has no such overlap: its windows are faded into each other.

Source: the chain of upsamplers and its DDIM steps: unCLIP, arXiv:2204.06125, section 2.1 and appendix C, table 3.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor

from opendalle.base.axes import Pictures
from opendalle.base.errors import BadRequest, require
from opendalle.base.rng import normal_like_rows
from opendalle.diffusion.grids import check_grid
from opendalle.diffusion.predictions import Prediction, check_prediction
from opendalle.diffusion.schedules import Schedule
from opendalle.samplers.guided import GuidedDenoise
from opendalle.samplers.sample import sample
from opendalle.samplers.tiler import Tiling, run_tiled
from opendalle.upsampling.network import Upsampler

TILE = 1024  # side of a window in large pixels, at most, when nobody says otherwise
MOST_PIXELS = 4096 * 4096  # of any picture drawn on the way
CUBIC_REACH = 2  # small pixels that enlarging looks at on each side
BLEND = 16  # overlap in small pixels of windows that are faded into each other


@dataclass(frozen=True, kw_only=True)
class UpsamplerStage:
    """One upsampler, how it was trained and how it is sampled: by DDIM, whose steps need nothing but the last state."""

    upsampler: Upsampler
    base: int  # side of the small pictures that it was trained for, in pixels
    schedule: Schedule  # of its training
    grid: tuple[int, ...]  # falling steps of the schedule to visit
    prediction: Prediction = "x0"  # what it was trained to say
    clip: float | None = 1.0  # the data lie within +- this; None: no known range

    def __post_init__(self) -> None:
        require(self.base >= 1, f"base is {self.base}", "at least 1 pixel")
        require(self.clip is None or self.clip > 0, f"clip is {self.clip}", "a positive range, or None")
        check_grid(self.grid, self.schedule.num_steps)
        check_prediction(self.prediction, self.schedule)

    @property
    def factor(self) -> int:
        """How much larger the side becomes."""
        return self.upsampler.config.factor


@dataclass(frozen=True, kw_only=True)
class EnlargeStep:
    """Where an enlargement stands."""

    step: int  # steps done, from 1
    num_steps: int  # steps in all
    pictures: Pictures | None = None  # the result, in the last record


def plan_stages(
    small: tuple[int, int], large: tuple[int, int], stages: Sequence[UpsamplerStage]
) -> tuple[UpsamplerStage, ...]:
    """Choose the upsamplers that a picture goes through, in order.

    It begins with the one whose small pictures are nearest in size, goes on with those after it, and repeats the last
    until the picture is at least as large as asked.

    Args:
        small: height and width of the picture, in pixels.
        large: height and width wanted; the same shape, to within a pixel.
        stages: from the smallest pictures to the largest.

    Returns:
        None where the picture is large enough already.

    Raises:
        BadRequest: when the shapes differ, there is no stage, or the picture would become too large on the way.
    """
    (height, width), (high, wide) = small, large
    if min(*small, *large) < 1 or min(abs(high - height * wide / width), abs(wide - width * high / height)) > 1:
        fitting = f"{wide}x{max(1, round(height * wide / max(width, 1)))}"
        raise BadRequest(f"a picture of {width}x{height} to be {wide}x{high}", f"the same shape, as {fitting}")
    if high <= height and wide <= width:
        return ()
    if not stages:
        raise BadRequest("no upsampler", "at least one, to enlarge a picture")
    distances = [abs(math.log(max(small) / stage.base)) for stage in stages]
    index, chosen = distances.index(min(distances)), list[UpsamplerStage]()
    while height < high or width < wide:
        stage = stages[min(index + len(chosen), len(stages) - 1)]
        chosen.append(stage)
        height, width = height * stage.factor, width * stage.factor
        if height * width > MOST_PIXELS:
            came = f"a picture of {small[1]}x{small[0]} to be {wide}x{high}, drawn at {width}x{height} on the way"
            raise BadRequest(came, f"at most {MOST_PIXELS} pixels", "Ask for a smaller size.")
    return tuple(chosen)


def enlarging(
    pictures: Pictures,
    size: tuple[int, int],
    stages: Sequence[UpsamplerStage],
    generators: Sequence[Generator],
    *,
    tile: int = TILE,
) -> Iterator[EnlargeStep]:
    """Enlarge pictures, one after the other, window by window; one record a sampling step.  Stop iterating to cancel.

    Args:
        pictures: RGB or premultiplied RGBA in [-1, 1], of any size.
        size: height and width wanted, of the same shape.
        stages: from the smallest pictures to the largest.
        generators: one a picture; all noise comes from it.
        tile: side of a window in large pixels, at most; memory grows with its square, never with the picture's.

    Raises:
        BadRequest: at once, when `plan_stages` refuses, channels or generators do not fit, or no window fits the tile.
    """
    plan = plan_stages((pictures.shape[2], pictures.shape[3]), size, stages)
    if pictures.shape[1] not in (3, 4):
        raise BadRequest(f"pictures of {pictures.shape[1]} channels", "3 (RGB) or 4 (premultiplied RGBA)")
    if len(generators) != len(pictures):
        raise BadRequest(f"{len(generators)} generators", f"{len(pictures)}, one a picture")
    side = max(pictures.shape[2:])
    for stage in plan:
        side *= stage.factor
        tiling_of(stage, side, tile)
    return _enlarging(pictures, size, plan, generators, tile)


def enlarged(
    pictures: Pictures,
    size: tuple[int, int],
    stages: Sequence[UpsamplerStage],
    generators: Sequence[Generator],
    *,
    tile: int = TILE,
) -> Float[Tensor, "b c h2 w2"]:
    """Enlarge pictures and return them; arguments and errors are those of `enlarging`."""
    result = None
    for step in enlarging(pictures, size, stages, generators, tile=tile):
        result = step.pictures
    assert result is not None
    return result


def resizing(
    stages: Sequence[UpsamplerStage], generator: Generator
) -> Callable[[Pictures, tuple[int, int]], Iterator[Pictures | None]]:
    """Return what brings one picture to a size of its own shape, larger or smaller, for those who know no upsampler.

    Args:
        stages: from the smallest pictures to the largest.
        generator: all noise comes from it.

    Returns:
        A function of picture, and height and width, that yields the picture at last and nothing a step before.
    """

    def resize(picture: Pictures, size: tuple[int, int]) -> Iterator[Pictures | None]:
        return (step.pictures for step in enlarging(picture, size, stages, [generator]))

    return resize


@torch.no_grad()
def _enlarging(
    pictures: Pictures,
    size: tuple[int, int],
    plan: Sequence[UpsamplerStage],
    generators: Sequence[Generator],
    tile: int,
) -> Iterator[EnlargeStep]:
    done, rows = 0, list[Tensor]()
    as_network = [_Channels(pictures.shape[1], stage.upsampler.config.picture_channels) for stage in plan]
    total = len(pictures) * sum(len(stage.grid) * one.passes for stage, one in zip(plan, as_network, strict=True))
    for row, generator in enumerate(generators):
        x = pictures[row : row + 1]
        for stage, channels in zip(plan, as_network, strict=True):
            drawn = []
            for part in channels.split(x):
                last = part
                for state in _draw(part, stage, generator, tile):
                    last, done = state, done + 1
                    if done < total:
                        yield EnlargeStep(step=done, num_steps=total)
                drawn.append(last)
            x = channels.join(drawn)
        rows.append(reduce_to(x, size))
    yield EnlargeStep(step=max(total, 1), num_steps=max(total, 1), pictures=torch.cat(rows))


def _draw(small: Pictures, stage: UpsamplerStage, generator: Generator, tile: int) -> Iterator[Tensor]:
    """Yield what one stage makes of one picture after each of its steps; the last is the large picture."""
    height, width = small.shape[2:]
    multiple = _multiple(stage)
    # Borders are repeated until the network's grids fit; what it draws there is cut away again.
    small = F.pad(small, (0, -width % multiple, 0, -height % multiple), mode="replicate")
    shorter, longer = sorted(stage.factor * side for side in small.shape[2:])
    tiling = tiling_of(stage, longer, tile, shorter)
    shape = (small.shape[1], stage.factor * small.shape[2], stage.factor * small.shape[3])
    x_t = normal_like_rows([generator], shape, small.device).to(small.dtype)
    clip = None if stage.clip is None else (-stage.clip, stage.clip)
    for done in range(len(stage.grid)):

        def one_step(x_t: Tensor, small: Tensor, left: tuple[int, ...] = stage.grid[done:]) -> Tensor:
            denoise = GuidedDenoise(
                stage.upsampler,
                {"enlarged": stage.upsampler.condition(small)},
                schedule=stage.schedule,
                prediction=stage.prediction,
                clip=clip,
                consistent_eps=True,
            )
            return next(sample(denoise, x_t, left, schedule=stage.schedule)).x_t

        x_t = run_tiled(one_step, x_t, small, tiling=tiling)
        yield x_t if done + 1 < len(stage.grid) else _in_range(x_t, stage.factor * height, stage.factor * width)


def tiling_of(stage: UpsamplerStage, length: int, tile: int, shorter: int = 0) -> Tiling:
    """Cut as few windows as the largest allowed one lets, all as small as their number lets; in small pixels.

    Windows are square, so they stay as large as the shorter side where that need not be cut at all.

    Args:
        stage: whose network sees as far as windows overlap.
        length: the picture's longer side, in large pixels.
        tile: side of a window in large pixels, at most.
        shorter: the picture's shorter side, in large pixels.

    Raises:
        BadRequest: when what the network sees leaves nothing of a window.
    """
    multiple, reach = _multiple(stage), stage.upsampler.config.unet.reach
    seen = BLEND if reach is None else -(-reach // stage.factor) + CUBIC_REACH
    overlap = -(-seen // multiple) * multiple
    most, whole = tile // stage.factor // multiple * multiple, -(-length // stage.factor // multiple) * multiple
    if most < 2 * overlap + multiple and most < whole:
        least = stage.factor * (2 * overlap + multiple)
        raise BadRequest(f"a tile of {tile} pixels", f"at least {least}, for what this upsampler sees around it")
    if whole <= most:
        return Tiling(tile=max(whole, 2 * overlap + multiple), overlap=overlap, multiple=multiple)
    windows = -(-(whole - 2 * overlap) // (most - 2 * overlap))
    inner = -(-(whole - 2 * overlap) // windows // multiple) * multiple
    uncut = -(-shorter // stage.factor // multiple) * multiple
    side = max(inner + 2 * overlap, uncut if uncut <= most else 0)
    return Tiling(tile=side, overlap=overlap, multiple=multiple, blend=reach is None)


def _multiple(stage: UpsamplerStage) -> int:
    """What sides of small pictures must be multiples of, so that the network's grids fit the large ones."""
    return math.lcm(stage.upsampler.config.unet.multiple, stage.factor) // stage.factor


def _in_range(x: Pictures, height: int, width: int) -> Float[Tensor, "b c h2 w2"]:
    """Cut to size and into the range; colour is no brighter than alpha lets it be."""
    x = x[:, :, :height, :width].clamp(-1, 1)
    return torch.cat([torch.minimum(x[:, :3], x[:, 3:]), x[:, 3:]], dim=1) if x.shape[1] == 4 else x


def reduce_to(pictures: Pictures, size: tuple[int, int]) -> Float[Tensor, "b c h2 w2"]:
    """Make pictures smaller: by the mean of squares where the size divides theirs, else by a cubic kernel.

    Args:
        pictures: in [-1, 1].
        size: height and width wanted, at most theirs.
    """
    height, width = pictures.shape[2:]
    if (height, width) == size:
        return pictures
    if height % size[0] == width % size[1] == 0:
        return F.avg_pool2d(pictures, (height // size[0], width // size[1]))
    smaller = F.interpolate(pictures, size=size, mode="bicubic", antialias=True, align_corners=False)
    return _in_range(smaller, *size)


@dataclass(frozen=True)
class _Channels:
    """How pictures meet a network of other channels: absent alpha is full, alpha without room a grey picture."""

    picture: int
    network: int

    @property
    def passes(self) -> int:
        return 2 if self.picture > self.network else 1

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        if self.picture < self.network:
            return (torch.cat([x, torch.ones_like(x[:, :1])], dim=1),)
        return (x[:, :3], x[:, 3:].expand(-1, 3, -1, -1)) if self.picture > self.network else (x,)

    def join(self, drawn: Sequence[Tensor]) -> Tensor:
        if self.picture > self.network:
            both = torch.cat([drawn[0], drawn[1].mean(dim=1, keepdim=True)], dim=1)
            return _in_range(both, *both.shape[2:])
        return drawn[0][:, : self.picture]
