"""The 3x3 convolution, where a U-Net spends nine tenths of its time; on a CPU, when drawing, with fewer products.

Winograd's algorithm F(2x2, 3x3) makes four neighbouring outputs from a tile of 4x4 inputs with 16 products a pair of
channels instead of 36.  Inputs and outputs are transformed by sums and differences alone, the kernel once for all
calls; in between stand 16 matrix products, which every BLAS knows how to run at full speed.

    y = A' [ (G k G') * (B' d B) ] A        d a tile, k a kernel, * entry by entry, summed over the input channels

Its results differ from a plain convolution's in rounding alone: about one unit in the last place of the summed terms.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv:1509.09308, section 4.1.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

SIDE = 4  # of a tile; tiles lie two cells apart
LEAST_GAIN = 80  # in x out / (in + out) channels; below, the transforms cost what the products save
LEAST_WORK = 2 << 20  # in x out channels x tiles of a picture; below, twenty small calls take longer than one
FEWEST_TILES_ANEW = 64  # of a picture, where the kernel is transformed at every call
KEPT_BYTES = 64 << 20  # of the largest transformed kernel that is kept; the few larger ones would double the memory
STRIP_BYTES = 8 << 20  # of transformed tiles handled at a time, so that they stay in the cache


@dataclass(frozen=True)
class Kept:
    """A transformed kernel, and which weights it was made from."""

    tiles: Float[Tensor, "16 i o"]
    weight: Tensor
    address: int  # changes when the weights are moved or cast
    version: int  # changes when they are written to

    @classmethod
    def of(cls, weight: Float[Tensor, "o i 3 3"]) -> "Kept":
        """Transform a kernel."""
        return cls(transform_kernel(weight.detach()), weight, weight.data_ptr(), _version(weight))

    def is_of(self, weight: Float[Tensor, "o i 3 3"]) -> bool:
        """Whether these are the weights, unchanged."""
        return self.weight is weight and self.address == weight.data_ptr() and self.version == _version(weight)


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution that keeps the grid's size; its weights are those of torch's, under the same names.

    With few channels or cells, while gradients are computed, on a GPU, under autocast and for a compiler it is
    torch's own convolution.  Else it transforms its kernel, and keeps a small one (16/9 of the weights' size) until
    the weights change.

    Args:
        in_channels: channels that come.
        out_channels: channels that leave.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=3, padding=1)
        self._kept: Kept | None = None

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h w"]:
        """Convolve a grid."""
        if not self._is_worth_it(input):
            return super().forward(input)
        return convolve_tiles(input, self._transformed(), self.bias)

    def _is_worth_it(self, x: Tensor) -> bool:
        into, out_of, num_tiles = self.in_channels, self.out_channels, x.shape[2] * x.shape[3] // 4
        return (
            into * out_of >= LEAST_GAIN * (into + out_of)
            and into * out_of * num_tiles >= LEAST_WORK
            and (self._keeps() or num_tiles >= FEWEST_TILES_ANEW)
            and x.shape[2] % 2 == x.shape[3] % 2 == 0
            and x.device.type == "cpu"
            and x.dtype == self.weight.dtype == torch.float32
            and not (torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad))
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
        )

    def _keeps(self) -> bool:
        return SIDE * SIDE * self.in_channels * self.out_channels * self.weight.element_size() <= KEPT_BYTES

    def _transformed(self) -> Tensor:
        if not self._keeps():
            return transform_kernel(self.weight.detach())
        if self._kept is None or not self._kept.is_of(self.weight):
            self._kept = Kept.of(self.weight)
        return self._kept.tiles


def _version(weight: Tensor) -> int:
    return 0 if weight.is_inference() else weight._version  # nobody counts writes to tensors of inference mode


def transform_kernel(kernel: Float[Tensor, "o i 3 3"]) -> Float[Tensor, "16 i o"]:
    """Compute G k G' of every pair of channels.

    Args:
        kernel: of a convolution, as torch stores it.
    """
    g = torch.tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], dtype=kernel.dtype)
    tiles = torch.kron(g, g) @ kernel.reshape(-1, 9).T  # read as it lies: half the time goes into memory
    return tiles.view(SIDE * SIDE, *kernel.shape[:2]).transpose(1, 2)


def convolve_tiles(
    x: Float[Tensor, "b i h w"], kernel: Float[Tensor, "16 i o"], bias: Float[Tensor, " o"] | None
) -> Float[Tensor, "b o h w"]:
    """Convolve a grid with a transformed kernel, strip by strip of tile rows.  No gradient.

    Args:
        x: grid of even height and width, read fastest when channels_last.
        kernel: from `transform_kernel`.
        bias: added to every output channel.

    Returns:
        The grid, channels_last.
    """
    batch, width_in, height, width = x.shape
    width_out, rows, columns = kernel.shape[2], height // 2, width // 2
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))  # (b, h + 2, w + 2, i)
    y = x.new_empty(batch, rows, 2, columns, 2, width_out)

    row_bytes = SIDE * SIDE * batch * columns * max(width_in, width_out) * x.element_size()
    num_rows = max(1, min(rows, STRIP_BYTES // row_bytes))  # tile rows a strip
    for start in range(0, rows, num_rows):
        stop = min(start + num_rows, rows)
        tiles = _analyse(padded[:, 2 * start : 2 * stop + 2])
        products = torch.bmm(tiles.view(SIDE * SIDE, -1, width_in), kernel)
        if bias is not None:
            products[SIDE + 1] += bias  # the one entry that reaches all four outputs with weight 1
        _synthesise(products.view(SIDE, SIDE, batch, stop - start, columns, width_out), y[:, start:stop])
    return y.view(batch, height, width, width_out).permute(0, 3, 1, 2)


def _analyse(x: Float[Tensor, "b h2 w2 i"]) -> Float[Tensor, "4 4 b r c i"]:
    """B' d B of every tile of a padded strip: first down the rows, then along them."""
    batch, height, width, channels = x.shape
    rows, columns = height // 2 - 1, width // 2 - 1
    down = x.new_empty(SIDE, batch, rows, width, channels)
    _differences([x[:, k : k + 2 * rows : 2] for k in range(SIDE)], list(down))
    both = x.new_empty(SIDE, SIDE, batch, rows, columns, channels)
    _differences([down[:, :, :, k : k + 2 * columns : 2] for k in range(SIDE)], list(both.unbind(1)))
    return both


def _differences(d: list[Tensor], out: list[Tensor]) -> None:
    """B' d along one axis, whose four places are given apart."""
    torch.sub(d[0], d[2], out=out[0])
    torch.add(d[1], d[2], out=out[1])
    torch.sub(d[2], d[1], out=out[2])
    torch.sub(d[1], d[3], out=out[3])


def _synthesise(m: Float[Tensor, "4 4 b r c o"], y: Float[Tensor, "b r 2 c 2 o"]) -> None:
    """A' m A of every tile, written in place: first down the rows, then along them."""
    half = m.new_empty(2, *m.shape[1:])
    _sums(list(m), list(half))
    by_column = rearrange(y, "b r down c along o -> along down b r c o")
    _sums(list(half.unbind(1)), list(by_column))


def _sums(m: list[Tensor], out: list[Tensor]) -> None:
    """A' m along one axis, whose four places are given apart."""
    torch.add(m[1], m[2], out=out[0])
    out[0] += m[0]
    torch.sub(m[1], m[2], out=out[1])
    out[1] -= m[3]
