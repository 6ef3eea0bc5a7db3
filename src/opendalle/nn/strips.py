"""A convolutional network computed strip by strip: the whole picture's numbers in a strip's memory.

Tiles of a picture are another picture wherever a group norm or an attention looks at all of it.  So it is not the
picture that is cut here but every layer: a layer is computed over one strip of rows after the other, each with the
rows beside it that its convolution sees, and is finished before the next layer begins.  Nothing is computed twice but
those few rows, and the result is that of one pass over the whole, up to rounding.

Between layers a grid lies whole, as a sheet: where the network is, or elsewhere (`keep="cpu"` beside a GPU, which then
holds weights and strips alone).  While a sheet is written the mean and variance of its channels are gathered, which is
all that a group norm wants to know of the whole, also of several sheets that are read as one.

Source: merging of means and variances: Chan, Golub and LeVeque, "Algorithms for Computing the Sample Variance", The
    American Statistician 37 (1983), eq. 2.1; group normalization: arXiv:1803.08494, eq. 1.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Shaped
from torch import Tensor, nn

from opendalle.base.errors import require
from opendalle.nn.residual import Resample, ResidualBlock, resample
from opendalle.nn.unet import UNet

Layer = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Sheet:
    """A whole grid of one picture, and what a norm wants to know of it."""

    cells: Float[Tensor, "1 c h w"]
    mean: Float64[Tensor, " c"]  # of each channel
    variance: Float64[Tensor, " c"]  # of each channel
    device: torch.device  # where strips of it are computed; the cells may lie elsewhere

    @property
    def height(self) -> int:
        """Rows."""
        return self.cells.shape[2]

    @property
    def width(self) -> int:
        """Columns."""
        return self.cells.shape[3]

    @property
    def channels(self) -> int:
        """Numbers a cell."""
        return self.cells.shape[1]


class Moments:
    """Mean and variance of every channel, gathered strip by strip in double precision."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = self.squares = torch.zeros((), dtype=torch.float64)  # squares: of the deviations from the mean

    def add(self, strip: Float[Tensor, "1 c h w"]) -> None:
        """Take in a strip."""
        exact = strip.to(torch.promote_types(strip.dtype, torch.float32))
        variance, mean = (one[0].cpu().double() for one in torch.var_mean(exact, dim=(2, 3), correction=0))
        new, before = strip.shape[2] * strip.shape[3], self.count
        self.count += new
        apart = mean - self.mean
        self.mean = self.mean + apart * new / self.count
        self.squares = self.squares + variance * new + apart.square() * before * new / self.count


@dataclass(frozen=True, kw_only=True)
class Strips:
    """How large strips are and where sheets lie; its methods compute layers.

    On the network's device a layer takes a handful of strips; the rest are its weights, and the sheets if they are
    kept there: two of the finest grid for a plain chain of layers, and for a U-Net all that is handed across.
    """

    max_bytes: int = 64 << 20  # of one strip of the wider side of a layer; two rows at least are computed at a time
    keep: torch.device | str | None = None  # where sheets lie between layers; None: where the network is

    def __post_init__(self) -> None:
        require(self.max_bytes > 0, f"max_bytes is {self.max_bytes}", "a positive number")

    def sheet_of(self, grid: Float[Tensor, "1 c h w"]) -> Sheet:
        """Lay down what a network is given.

        Args:
            grid: on the network's device.
        """
        moments = Moments()
        moments.add(grid)
        kept = grid if self.keep is None else grid.to(self.keep)
        return Sheet(kept, moments.mean, moments.squares / moments.count, grid.device)

    def draw(
        self,
        compute: Callable[[int, int], Tensor],
        like: Sheet,
        *,
        channels: int,
        height: int,
        width: int,
        widest: int,
        over: Tensor | None = None,
    ) -> Sheet:
        """Fill a sheet, strip by strip.

        Args:
            compute: from first and last row (exclusive) to that strip, on the network's device.
            like: a sheet of the same network.
            channels: of the new sheet.
            height: of the new sheet.
            width: of the new sheet.
            widest: numbers that computing one cell takes, which decides how many rows a strip has.
            over: cells that nobody will read again, of the new sheet's size; None: new ones.
        """
        where = like.device if self.keep is None else self.keep
        cells = over
        if cells is None:
            size, dtype = (1, channels, height, width), like.cells.dtype
            cells = torch.empty(size, dtype=dtype, device=where, memory_format=torch.channels_last)
        moments = Moments()
        for start, stop in self._spans(height, width * widest * cells.element_size()):
            strip = compute(start, stop)
            cells[:, :, start:stop] = strip
            moments.add(strip)
        return Sheet(cells, moments.mean, moments.squares / moments.count, like.device)

    def _spans(self, height: int, row_bytes: int) -> Iterator[tuple[int, int]]:
        rows = max(2, self.max_bytes // row_bytes // 2 * 2)  # even: the fast convolution wants it
        for start in range(0, height, rows):
            yield start, min(start + rows, height)

    def convolve(
        self,
        sheets: Sequence[Sheet],
        layer: Layer,
        *,
        channels: int,
        how: Resample = "none",
    ) -> Sheet:
        """Compute a layer whose one convolution sees a cell's neighbours and pads with zeros.

        Args:
            sheets: what it reads, as the channels of one grid.
            layer: takes some rows of it; the padding that it puts beside them is cut away.
            channels: that it gives.
            how: whether it doubles or halves the grid first.
        """
        source = sheets[0]
        height, width = resampled(source.height, how), resampled(source.width, how)

        def compute(start: int, stop: int) -> Tensor:
            return window(sheets, layer, start, stop, how=how, halo=1)

        widest = max(read_for(sheets, how), channels)
        return self.draw(compute, source, channels=channels, height=height, width=width, widest=widest)

    def _finish(self, sheet: Sheet, layer: Layer, plus: Callable[[int, int], Tensor], widest: int) -> Sheet:
        """Compute a layer as `convolve` does, add something, and write over what it reads."""
        above: list[Tensor] = []  # the row over the strip, as it was

        def compute(start: int, stop: int) -> Tensor:
            rows = torch.cat([*above, read([sheet], start, min(sheet.height, stop + 1))], dim=2)
            first, last = len(above), len(above) + stop - start
            above[:] = [rows[:, :, last - 1 : last].clone()]
            return layer(rows)[:, :, first:last] + plus(start, stop)

        size = {"channels": sheet.channels, "height": sheet.height, "width": sheet.width}
        return self.draw(compute, sheet, **size, widest=max(widest, sheet.channels), over=sheet.cells)

    def residual(
        self, block: ResidualBlock, sheets: Sequence[Sheet], embedding: Float[Tensor, "1 d"] | None = None
    ) -> Sheet:
        """Compute a residual block; arguments as its own, with sheets that are read as one grid."""
        how, vector = block.resample, None
        if block.embedding is not None and embedding is not None:
            vector = block.embedding(F.silu(embedding))[:, :, None, None]
        norm_in = norm_of(block.norm_in, sheets)

        def first(x: Tensor) -> Tensor:
            hidden = block.conv_in(resample(F.silu(norm_in(x)), how))
            return hidden + vector if vector is not None and block.conditioning == "add" else hidden

        channels = block.conv_out.out_channels
        hidden = self.convolve(sheets, first, channels=channels, how=how)
        norm_out = norm_of(block.norm_out, [hidden])

        def second(x: Tensor) -> Tensor:
            normed = norm_out(x)
            if vector is not None and block.conditioning == "scale-shift":
                scale, shift = vector.chunk(2, dim=1)
                normed = torch.addcmul(shift, normed, 1 + scale)
            return block.conv_out(block.dropout(F.silu(normed)))

        def skip(start: int, stop: int) -> Tensor:
            return window(sheets, lambda x: block.skip(resample(x, how)), start, stop, how=how)

        return self._finish(hidden, second, skip, read_for(sheets, how))

    def head(self, sheet: Sheet, norm: nn.Module, conv: nn.Conv2d) -> Float[Tensor, "1 c h w"]:
        """Compute the usual end of a network: norm, SiLU, convolution.

        Args:
            sheet: what comes.
            norm: of its channels.
            conv: 3x3, padded.
        """
        normed = norm_of(norm, [sheet])
        drawn = self.convolve([sheet], lambda x: conv(F.silu(normed(x))), channels=conv.out_channels)
        return drawn.cells.to(sheet.device)

    @torch.no_grad()
    def unet(self, network: UNet, x: Float[Tensor, "b c h w"], t: Shaped[Tensor, " b"]) -> Float[Tensor, "b c2 h w"]:
        """Compute a U-Net without attention, one picture after the other; no gradient.

        Args:
            network: the U-Net.
            x: noised grids; height and width are multiples of network.config.multiple.
            t: diffusion step of each.

        Raises:
            BadConfig: when the U-Net attends: its cells would look at all others.
        """
        config = network.config
        attends = config.middle == "attention" or any(level.has_attention for level in config.levels)
        require(not attends, "a U-Net with attention", "one of convolutions alone")
        return one_by_one(lambda k: self._unet(network, x[k : k + 1], t[k : k + 1]), len(x))

    def _unet(self, network: UNet, x: Tensor, t: Tensor) -> Tensor:
        patch, time = network.config.patch, network.time(t)
        start = [self.sheet_of(x if patch == 1 else F.pixel_unshuffle(x, patch))]
        sheet = self.convolve(start, network.conv_in, channels=network.conv_in.out_channels)
        del start  # a sheet is let go as soon as it was read: nothing else bounds the memory
        handed = [sheet]
        for block in network.down:
            sheet = self.residual(block.residual, [sheet], time)  # pyright: ignore[reportArgumentType]
            handed.append(sheet)
        for block in network.middle:
            sheet = self.residual(block.residual, [sheet], time)  # pyright: ignore[reportArgumentType]
        for block in network.up:
            sheets = [sheet, handed.pop()] if block.takes_handed else [sheet]
            sheet = self.residual(block.residual, sheets, time)  # pyright: ignore[reportArgumentType]
            del sheets
        drawn = self.head(sheet, network.norm_out, network.conv_out)
        return drawn if patch == 1 else F.pixel_shuffle(drawn, patch)  # which would copy


def one_by_one(draw: Callable[[int], Tensor], count: int) -> Float[Tensor, "b c h w"]:
    """Draw pictures one after the other, and copy none that is alone.

    Args:
        draw: from a number to that picture.
        count: pictures, at least one.
    """
    drawn = [draw(k) for k in range(count)]
    return drawn[0] if count == 1 else torch.cat(drawn)


def resampled(side: int, how: Resample) -> int:
    """Return the side of a grid that was doubled, halved or left alone."""
    return {"none": side, "up": 2 * side, "down": side // 2}[how]


def read_for(sheets: Sequence[Sheet], how: Resample) -> int:
    """Return how many numbers a layer reads, or makes of them first, for a cell of its result.

    Args:
        sheets: what it reads.
        how: whether it doubles or halves them.
    """
    return sum(one.channels for one in sheets) * (4 if how == "down" else 1)


def read(sheets: Sequence[Sheet], start: int, stop: int) -> Float[Tensor, "1 c h w"]:
    """Read rows of sheets as the channels of one grid, on the network's device.

    Args:
        sheets: of one size.
        start: first row.
        stop: row behind the last.
    """
    rows = [one.cells[:, :, start:stop].to(one.device) for one in sheets]
    return rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)


def window(
    sheets: Sequence[Sheet], layer: Layer, start: int, stop: int, *, how: Resample = "none", halo: int = 0
) -> Float[Tensor, "1 c h w"]:
    """Compute some rows of a layer.

    Args:
        sheets: what it reads.
        layer: takes rows, gives rows; near its first and last row it may be wrong where the picture goes on.
        start: first row that is wanted.
        stop: row behind the last.
        how: whether the layer doubles or halves the grid.
        halo: rows that it sees beside its own: of its result, or when it doubles of its source.
    """
    height = sheets[0].height
    if how == "up":
        low, high = max(0, start // 2 - halo), min(height, -(-stop // 2) + halo)
        first = 2 * low
    elif how == "down":
        low, high = max(0, 2 * (start - halo)), min(height, 2 * (stop + halo))
        first = low // 2
    else:
        low, high = max(0, start - halo), min(height, stop + halo)
        first = low
    return layer(read(sheets, low, high))[:, :, start - first : stop - first]


def norm_of(norm: nn.Module, sheets: Sequence[Sheet]) -> Layer:
    """Return a norm that knows the whole and may be given any part of it.

    Args:
        norm: a group norm, or one that looks at each cell alone.
        sheets: read as the channels of one grid.
    """
    if not isinstance(norm, nn.GroupNorm):
        return norm
    mean, variance = (
        torch.cat(parts).view(norm.num_groups, -1)
        for parts in ([one.mean for one in sheets], [one.variance for one in sheets])
    )
    centre = mean.mean(dim=1, keepdim=True)
    whole = (variance + (mean - centre).square()).mean(dim=1, keepdim=True)
    weight, bias = (one.detach().cpu().double().view(norm.num_groups, -1) for one in (norm.weight, norm.bias))
    scale = weight / (whole + norm.eps).sqrt()
    shift = bias - centre * scale
    dtype = torch.promote_types(sheets[0].cells.dtype, torch.float32)
    scale, shift = (one.to(dtype).to(sheets[0].device).view(1, -1, 1, 1) for one in (scale, shift))
    return lambda x: torch.addcmul(shift, x.to(dtype), scale).to(x.dtype)
