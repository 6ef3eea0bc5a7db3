"""The tiler: run a convolution-only network over a picture window by window, in memory that a window bounds.

A convolution's output depends on its input only as far as the network's reach.  Windows that overlap by at least the
reach on each side, and keep only their middle, give the very picture that one pass over the whole would give.  A
network that reaches everywhere (through a norm over the whole picture, say) has no such overlap; windows can then be
blended, which hides the seams and is not exact.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from opendalle.base.axes import Pictures, Steps
from opendalle.base.errors import BadRequest, require


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """How to cut a picture; lengths are in pixels of the smallest input.

    Raises:
        BadConfig: when windows would overlap altogether or lie off the multiples.
    """

    tile: int = 128  # side of a window; memory grows with its square
    overlap: int = 16  # context on each inner side of a window; at least the network's reach, for the exact picture
    multiple: int = 1  # windows start at multiples of it: the factor by which the network shrinks inside
    blend: bool = False  # fade windows into each other across the overlap, instead of cutting the context away

    def __post_init__(self) -> None:
        require(self.multiple >= 1, f"multiple is {self.multiple}", "at least 1")
        require(self.tile % self.multiple == 0, f"tile is {self.tile}", f"a multiple of {self.multiple}")
        require(self.overlap >= 0, f"overlap is {self.overlap}", "0 or more")
        require(self.stride > 0, f"tile {self.tile} with overlap {self.overlap}", "a tile of more than two overlaps")

    @property
    def stride(self) -> int:
        """Distance between the starts of neighbouring windows."""
        return (self.tile - 2 * self.overlap) // self.multiple * self.multiple


@dataclass(frozen=True, kw_only=True)
class Span:
    """One window along one axis."""

    start: int
    stop: int
    keep_start: int  # what is kept of it when context is cut away
    keep_stop: int
    weights: tuple[float, ...]  # share of each of its pixels in the blend; all windows' shares sum to 1


def spans(length: int, tiling: Tiling) -> tuple[Span, ...]:
    """Cut one axis into windows of equal size that cover it; the last is moved back to end where the axis ends.

    Args:
        length: pixels along the axis.
        tiling: how to cut.

    Raises:
        BadRequest: when the axis is not a multiple of what the network needs.
    """
    if length % tiling.multiple:
        raise BadRequest(f"a side of {length} pixels", f"a multiple of {tiling.multiple}")
    size = min(tiling.tile, length)
    starts = [*range(0, length - size, tiling.stride), length - size]
    margin, ramp = tiling.overlap / 2, max(tiling.overlap, 1)  # outermost pixels saw the window's edge: share 0
    raw: list[list[float]] = []
    total = [0.0] * length
    for start in starts:
        before = [1.0 if start == 0 else (i + 0.5 - margin) / ramp for i in range(size)]
        after = [1.0 if start + size == length else (size - i - 0.5 - margin) / ramp for i in range(size)]
        weights = [min(1.0, max(0.0, min(one, other))) for one, other in zip(before, after, strict=True)]
        raw.append(weights)
        for i, weight in enumerate(weights):
            total[start + i] += weight
    cuts = [0, *(start + tiling.overlap for start in starts[1:]), length]
    return tuple(
        Span(
            start=start,
            stop=start + size,
            keep_start=cuts[i],
            keep_stop=cuts[i + 1],
            weights=tuple(weight / total[start + k] for k, weight in enumerate(raw[i])),
        )
        for i, start in enumerate(starts)
    )


def run_tiled(
    network: Callable[..., Tensor], *inputs: Float[Tensor, "b _ _ _"], tiling: Tiling
) -> Float[Tensor, "b _ _ _"]:
    """Run a network over pictures window by window.

    Args:
        network: takes one window of each input, in order, and returns pictures of an integer multiple of the smallest
            input's size.  It sees windows of one and the same shape.
        inputs: pictures of one scene, their sides integer multiples of the smallest one's.
        tiling: how to cut.

    Returns:
        What `network(*inputs)` would have returned; exactly so if it reaches no further than the overlap.

    Raises:
        BadRequest: when the inputs do not fit each other or the multiple.
    """
    height, width = min((one.shape[2], one.shape[3]) for one in inputs)
    factors = [_factor(one, height, width) for one in inputs]
    result: Tensor | None = None
    for row in spans(height, tiling):
        for column in spans(width, tiling):
            windows = [
                one[:, :, f * row.start : f * row.stop, f * column.start : f * column.stop]
                for one, f in zip(inputs, factors, strict=True)
            ]
            drawn = network(*windows)
            scale = drawn.shape[2] // (row.stop - row.start)
            if result is None:
                result = drawn.new_zeros(*drawn.shape[:2], scale * height, scale * width)
            _lay(result, drawn, row, column, scale, tiling.blend)
    if result is None:
        raise BadRequest("a picture without pixels", "at least one pixel")
    return result


def _factor(picture: Tensor, height: int, width: int) -> int:
    """How many times larger a picture is than the smallest input."""
    factor = picture.shape[2] // height
    if picture.shape[2:] != (factor * height, factor * width):
        raise BadRequest(f"a picture of {tuple(picture.shape[2:])} beside one of {(height, width)}", "a whole multiple")
    return factor


def _lay(result: Tensor, drawn: Tensor, row: Span, column: Span, scale: int, blend: bool) -> None:
    """Put one finished window where it belongs."""
    if blend:
        down = torch.tensor(row.weights).repeat_interleave(scale).to(drawn)
        across = torch.tensor(column.weights).repeat_interleave(scale).to(drawn)
        place = result[:, :, scale * row.start : scale * row.stop, scale * column.start : scale * column.stop]
        place += drawn * down[:, None] * across
        return
    rows, columns = (slice(scale * span.keep_start, scale * span.keep_stop) for span in (row, column))
    inner = [
        slice(scale * (span.keep_start - span.start), scale * (span.keep_stop - span.start)) for span in (row, column)
    ]
    result[:, :, rows, columns] = drawn[:, :, inner[0], inner[1]]


@dataclass(frozen=True, kw_only=True)
class TiledNetwork:
    """A convolution-only denoising network that runs tiled; stands wherever the network itself would.

    Args:
        network: `network(x_t, t, **conditioning) -> output`.
        tiling: how to cut.
        maps: those of its keywords that are pictures, and are cut along with x_t.
    """

    network: Callable[..., Tensor]
    tiling: Tiling
    maps: Sequence[str] = ()

    def __call__(self, x_t: Float[Tensor, "b c h w"], t: Steps, **conditioning: Any) -> Tensor:
        """Run the network over x_t and its maps, window by window."""
        maps = [name for name in self.maps if conditioning.get(name) is not None]
        whole = {name: value for name, value in conditioning.items() if name not in maps}

        def on_windows(x_t: Tensor, *windows: Tensor) -> Tensor:
            return self.network(x_t, t, **whole, **dict(zip(maps, windows, strict=True)))

        return run_tiled(on_windows, x_t, *(conditioning[name] for name in maps), tiling=self.tiling)


def measure_reach(network: Callable[[Tensor], Tensor], picture: Pictures, multiple: int = 1) -> int:
    """How far, in input pixels, an output pixel of a network can see: the overlap that makes tiling exact.

    Measured by following gradients back from a block in the middle of the output.

    Args:
        network: takes and returns pictures; its activations must let gradients through, as SiLU and GELU do.
        picture: a picture of random values, large enough that the reach does not touch its border.
        multiple: the factor by which the network shrinks inside; the block has this side, so that every phase is seen.

    Raises:
        BadRequest: when the reach goes to the border, so that it may be larger still.
    """
    seen = picture.detach().clone().requires_grad_()
    with torch.enable_grad():
        drawn = network(seen)
        scale = drawn.shape[2] // seen.shape[2]
        block = [slice(scale * start, scale * (start + multiple)) for start in _middles(seen, multiple)]
        (gradient,) = torch.autograd.grad(drawn[:, :, block[0], block[1]].square().sum(), seen)
    touched = gradient.abs().amax(dim=(0, 1)) > 0
    reach = 0
    for axis, start in enumerate(_middles(seen, multiple)):
        lit = touched.any(dim=1 - axis).nonzero()
        first, last = int(lit[0]), int(lit[-1])
        if first == 0 or last == len(touched.any(dim=1 - axis)) - 1:
            raise BadRequest("a network that reaches the border of the picture", "a larger picture to measure it on")
        reach = max(reach, start - first, last - (start + multiple - 1))
    return reach


def _middles(picture: Tensor, multiple: int) -> Iterator[int]:
    """Start of the middle block along both axes, on a multiple."""
    for side in picture.shape[2:]:
        yield side // 2 // multiple * multiple
