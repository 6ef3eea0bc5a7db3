"""Whitening: embeddings turned to their principal axes, each brought to unit spread.

A contrastive space is far from round.  Of the emoji CLIP's 256 axes twenty hold nearly all of the spread, yet what
tells one drawing from another lies in the next eighty too, a hundred times smaller: a network that reads the raw vector
needs ages to find it.

Source: unCLIP, arXiv:2204.06125, section 2.2, found the same of its space and kept 319 of 1,024 principal axes for the
autoregressive prior.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from opendalle.base.errors import require

FLOOR = 3e-3  # smallest spread that is brought to one; below it lies what half precision cannot hold


class Whitening(nn.Module):
    """An affine map and its inverse, stored with the weights; the identity until `fit`.

    The axes lie in one row, since storage rounds matrices only: an error of a thousandth along a wide axis would be as
    large as a narrow one.

    Args:
        width: numbers of an embedding.
    """

    mean: Tensor
    axes: Tensor
    std: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("axes", torch.eye(width).flatten())
        self.register_buffer("std", torch.ones(width))

    @torch.no_grad()
    def fit(self, z: Float[Tensor, "n e"], floor: float = FLOOR) -> None:
        """Measure embeddings.

        Args:
            z: many of them.
            floor: axes that spread less are divided by this.

        Raises:
            BadConfig: when there are fewer than two, or the floor is not positive.
        """
        require(len(z) >= 2, f"{len(z)} embeddings", "two or more")
        require(floor > 0, f"a floor of {floor}", "a positive spread")
        mean, axes, std = principal_axes(z)
        self.mean.copy_(mean)
        self.axes.copy_(axes.flatten())
        self.std.copy_(std.clamp_min(floor))

    def forward(self, z: Float[Tensor, "b e"]) -> Float[Tensor, "b e"]:
        """Whiten; a new tensor."""
        return (z - self.mean) @ self._matrix(z) / self.std

    def inverse(self, white: Float[Tensor, "b e"]) -> Float[Tensor, "b e"]:
        """Return the embeddings of whitened ones."""
        return (white * self.std) @ self._matrix(white).T + self.mean

    def _matrix(self, like: Tensor) -> Float[Tensor, "e e"]:
        width = self.mean.shape[0]
        return self.axes.view(width, width).to(like.dtype)


def principal_axes(
    z: Float[Tensor, "n e"],
) -> tuple[Float[Tensor, " e"], Float[Tensor, "e e"], Float[Tensor, " e"]]:
    """Return mean, principal axes (columns, the widest first) and the spread along each, in float64.

    Args:
        z: vectors, one a row.
    """
    mean = z.double().mean(dim=0)
    centred = z.double() - mean
    variance, axes = torch.linalg.eigh(centred.T @ centred / len(z))
    return mean, axes.flip(1), variance.flip(0).clamp_min(0).sqrt()
