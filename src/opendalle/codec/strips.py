"""The convolutional encoder and decoder computed strip by strip (`nn/strips.py`): any size in a strip's memory.

The attention in the middle sees all cells of the coarsest grid.  Its keys and values are kept whole, and queries ask
them strip by strip; that too gives the numbers of the whole.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from opendalle.codec.convolutional import CellAttention, Decoder, Doubling, Encoder, Halving, Level
from opendalle.nn.strips import Sheet, Strips, norm_of, one_by_one, read


@torch.no_grad()
def decode_by_strips(decoder: Decoder, grid: Float[Tensor, "b g hg wg"], strips: Strips) -> Float[Tensor, "b c h w"]:
    """Draw grids, one picture after the other; no gradient.

    Args:
        decoder: whose numbers are wanted.
        grid: as the decoder itself takes them.
        strips: how large strips are, and where sheets lie.
    """

    def draw(cells: Tensor) -> Tensor:
        conv = decoder.conv_in
        sheet = strips.convolve([strips.sheet_of(cells)], conv, channels=conv.out_channels)
        sheet = _middle(decoder, sheet, strips)
        return decoder.unfold(_end(decoder, _levels(decoder, sheet, strips), strips))

    return one_by_one(lambda k: draw(grid[k : k + 1]), len(grid))


@torch.no_grad()
def encode_by_strips(
    encoder: Encoder, pictures: Float[Tensor, "b c h w"], strips: Strips
) -> Float[Tensor, "b g hg wg"]:
    """Look at pictures, one after the other; no gradient.

    Args:
        encoder: whose numbers are wanted.
        pictures: in [-1, 1], as the encoder itself takes them.
        strips: how large strips are, and where sheets lie.
    """

    def look(picture: Tensor) -> Tensor:
        conv = encoder.conv_in
        sheet = strips.convolve([strips.sheet_of(encoder.fold(picture))], conv, channels=conv.out_channels)
        sheet = _levels(encoder, sheet, strips)
        return _end(encoder, _middle(encoder, sheet, strips), strips)

    return one_by_one(lambda k: look(pictures[k : k + 1]), len(pictures))


def attend_by_strips(attention: CellAttention, sheet: Sheet, strips: Strips) -> Sheet:
    """Let every cell look at every other one.

    Args:
        attention: which one.
        sheet: its cells.
        strips: how large strips are, and where sheets lie.
    """
    norm = norm_of(attention.norm, [sheet])

    def tokens(layer: torch.nn.Module, start: int, stop: int) -> Tensor:
        return rearrange(layer(norm(read([sheet], start, stop))), "b c h w -> b 1 (h w) c")

    keys, values = (tokens(layer, 0, sheet.height) for layer in (attention.key, attention.value))

    def compute(start: int, stop: int) -> Tensor:
        mixed = F.scaled_dot_product_attention(tokens(attention.query, start, stop), keys, values)
        cells = rearrange(mixed, "b 1 (h w) c -> b c h w", w=sheet.width)
        return read([sheet], start, stop) + attention.out(cells)

    height, width, channels = sheet.height, sheet.width, sheet.channels
    pairs = height * width  # kernels that hold a query's pairs with all keys hold so many numbers a cell
    widest = max(pairs, channels)
    return strips.draw(compute, sheet, channels=channels, height=height, width=width, widest=widest)


def _middle(half: Encoder | Decoder, sheet: Sheet, strips: Strips) -> Sheet:
    first, attention, second = half.middle
    sheet = strips.residual(first, [sheet])  # pyright: ignore[reportArgumentType]
    sheet = attend_by_strips(attention, sheet, strips)  # pyright: ignore[reportArgumentType]
    return strips.residual(second, [sheet])  # pyright: ignore[reportArgumentType]


def _end(half: Encoder | Decoder, sheet: Sheet, strips: Strips) -> Tensor:
    norm, _, conv = half.head
    return strips.head(sheet, norm, conv)  # pyright: ignore[reportArgumentType]


def _levels(half: Encoder | Decoder, sheet: Sheet, strips: Strips) -> Sheet:
    for level in half.levels:
        assert isinstance(level, Level)
        for k, block in enumerate(level.blocks):
            sheet = strips.residual(block, [sheet])  # pyright: ignore[reportArgumentType]
            if len(level.attention):
                sheet = attend_by_strips(level.attention[k], sheet, strips)  # pyright: ignore[reportArgumentType]
        if isinstance(level.onward, Doubling):
            sheet = strips.convolve([sheet], level.onward, channels=sheet.channels, how="up")
        elif isinstance(level.onward, Halving):
            sheet = _halved(level.onward, sheet, strips)
    return sheet


def _halved(halving: Halving, sheet: Sheet, strips: Strips) -> Sheet:
    def compute(start: int, stop: int) -> Tensor:
        return halving(read([sheet], 2 * start, min(sheet.height, 2 * stop + 1)))  # one more row than two a cell

    height, width, channels = sheet.height // 2, sheet.width // 2, sheet.channels
    return strips.draw(compute, sheet, channels=channels, height=height, width=width, widest=4 * channels)
