"""A linear layer for few tokens: what a word by word decoder asks for, and matrix libraries are not made for.

With one token a product is as fast as the weights can be read.  With two to some dozens the general routine takes half
as long again, as if thousands of tokens were to come.  Cut into slabs of some rows, the same matrix is a batch of
small products, each of which fits the processor's cache, and which all threads share.  The numbers are the same but
for rounding.
"""

from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

MOST_TOKENS = 64  # so far it was measured to pay
FEWEST_TOKENS, SMALL_SLAB, SLAB = 3, 32, 128  # rows of a slab, at most: for so few tokens, and for more
LEAST_SLAB = 16  # where the rows have no divisor in between, the general routine serves


class ThinLinear(nn.Linear):
    """A linear layer without a bias; for a few tokens on a CPU, while no gradient is computed, slab by slab.

    Args:
        in_features: numbers that come.
        out_features: numbers that leave.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)

    def forward(self, input: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d2"]:
        """Apply the matrix to every token."""
        return thin_linear(input, self.weight)


def thin_linear(tokens: Float[Tensor, "*b d"], weight: Float[Tensor, "d2 d"]) -> Float[Tensor, "*b d2"]:
    """Apply a matrix to every token.

    Args:
        tokens: any number.
        weight: a row for each number that leaves; contiguous.
    """
    rows, width = weight.shape
    count = tokens.numel() // width
    slab = slab_of(rows, SMALL_SLAB if count <= FEWEST_TOKENS else SLAB)
    is_plain = weight.device.type != "cpu" or weight.dtype != torch.float32 or torch.is_autocast_enabled("cpu")
    if is_plain or torch.is_grad_enabled() or not 1 < count <= MOST_TOKENS or slab == 0:
        return F.linear(tokens, weight)
    slabs = weight.view(rows // slab, slab, width).transpose(1, 2)
    products = torch.bmm(tokens.reshape(1, count, width).expand(len(slabs), -1, -1), slabs)  # (slabs, count, slab)
    return products.transpose(0, 1).reshape(*tokens.shape[:-1], rows)


@cache
def slab_of(rows: int, most: int) -> int:
    """Return the largest number that divides the rows and is no larger than a slab may be; 0: there is none.

    Args:
        rows: of a matrix.
        most: rows of a slab.
    """
    return next((slab for slab in range(min(most, rows), LEAST_SLAB - 1, -1) if rows % slab == 0), 0)
