"""Rounding with feedback: a matrix is rounded so that its answers stay, not its numbers.

Column after column is rounded to whole steps, and what is rounded off one is taken up by those that still come, as far
as their inputs go together with its own.  How inputs go together is told by their second moments, gathered while the
network was at work: an input that another predicts can make good for the other's error.

Source: Frantar et al., "GPTQ", arXiv:2210.17323, section 3, after Hassibi and Stork, "Optimal Brain Surgeon", 1993.
"""

import torch
from jaxtyping import Float, Int8
from torch import Tensor

LARGEST = 127  # whole number, on both sides of 0
DAMPING = 0.01  # of the mean moment, added to each input's own: what was seen is a sample
BLOCK = 128  # columns whose errors are handed on together


def even_step(weight: Float[Tensor, "rows *rest"], share: float) -> float:
    """Return the step in which a matrix is counted: a share of its numbers' spread, or what its largest one needs.

    Equal steps for all rows cost the least for the same error: of the numbers of a row with a small spread most
    are 0 then, and a Huffman code writes them in little more than a bit.

    Args:
        weight: the matrix.
        share: of the root of the mean square, above 0.
    """
    step = max(share * weight.square().mean().sqrt().item(), weight.abs().max().item() / LARGEST)
    return step if step > 0 else 1.0


def round_with_feedback(
    weight: Float[Tensor, "rows columns"], moments: Float[Tensor, "columns columns"], step: float
) -> Int8[Tensor, "rows columns"]:
    """Round a matrix to whole numbers of steps; errors flow on into the columns that are still to come.

    Args:
        weight: what the layer multiplies its inputs with.
        moments: sum over many inputs of each times each, symmetric.
        step: above 0.

    Returns:
        Whole numbers from -127 to 127.  Inputs that were never seen are rounded plainly.
    """
    left, seen = weight.double(), moments.double()
    own = seen.diagonal().clone()
    own[own == 0] = 1.0
    seen = seen.diagonal_scatter(own + DAMPING * own.mean())
    order = own.argsort(
        descending=True, stable=True
    )  # what matters most first: much is still free to take its error up
    seen, left = seen[order][:, order], left[:, order]
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(seen))
    flow = torch.linalg.cholesky(inverse, upper=True)  # row j: how the error of column j is shared by those after it
    numbers = torch.zeros_like(left)
    for first in range(0, len(order), BLOCK):
        last = min(first + BLOCK, len(order))
        errors = torch.zeros_like(left[:, first:last])
        for column in range(first, last):
            numbers[:, column] = (left[:, column] / step).round().clamp(-LARGEST, LARGEST)
            error = (left[:, column] - step * numbers[:, column]) / flow[column, column]
            left[:, column + 1 : last] -= error[:, None] * flow[column, column + 1 : last]
            errors[:, column - first] = error
        left[:, last:] -= errors @ flow[first:last, last:]
    restored = torch.empty_like(numbers)
    restored[:, order] = numbers
    return restored.to(torch.int8)
