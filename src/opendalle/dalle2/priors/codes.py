"""Codes: a picture embedding as a short sentence of whole numbers, and back.

An embedding is turned to its principal axes, the widest first; only as many are kept as hold all but a hundredth of
its spread, and along each the training pictures are divided into buckets of equally many.  The number of its bucket is
the code; the mean of its bucket is what the code says.

Source: unCLIP, arXiv:2204.06125, section 2.2: 319 of 1,024 axes at an error under 1 %, 1,024 buckets, widest axis
first.  Left open there, chosen here: buckets hold equally many pictures (not equally long), a code is read back as its
bucket's mean, and the error is measured as a share of the spread around the mean, which is stricter than of the length.
"""

from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from opendalle.base.axes import Embeddings
from opendalle.base.errors import require
from opendalle.nn.whitening import principal_axes

LARGEST_ERROR = 0.01  # of the spread that may be lost with the axes left out


def num_axes_for(z: Embeddings, error: float = LARGEST_ERROR) -> int:
    """Return how few principal axes keep the mean squared error below a share of the spread.

    Args:
        z: many embeddings.
        error: that share.
    """
    variance = principal_axes(z)[2].square()
    lost = 1 - variance.cumsum(dim=0) / variance.sum()
    return int((lost >= error).sum()) + 1


class EmbeddingCodes(nn.Module):
    """Embeddings to codes and back; to be fitted before use.

    All numbers lie in single rows, since storage rounds matrices only: buckets in the crowd of the middle are narrower
    than a 127th of the widest.

    Args:
        embedding_width: e, of CLIP's joint space.
        num_codes: axes kept.
        num_buckets: values of a code.
    """

    mean: Tensor
    axes: Tensor
    edges: Tensor
    values: Tensor

    def __init__(self, embedding_width: int, num_codes: int, num_buckets: int) -> None:
        super().__init__()
        require(1 <= num_codes <= embedding_width, f"{num_codes} codes", f"1 to {embedding_width}")
        require(num_buckets >= 2, f"{num_buckets} buckets", "two or more")
        self.shape = (embedding_width, num_codes, num_buckets)
        self.register_buffer("mean", torch.zeros(embedding_width))
        self.register_buffer("axes", torch.eye(embedding_width)[:, :num_codes].flatten())
        even = torch.linspace(-1, 1, 2 * num_buckets + 1)  # until `fit`: buckets of equal length
        self.register_buffer("edges", even[2:-2:2].repeat(num_codes))
        self.register_buffer("values", even[1::2].repeat(num_codes))

    @torch.no_grad()
    def fit(self, z: Embeddings, error: float = LARGEST_ERROR) -> None:
        """Measure axes, buckets and their means.

        Args:
            z: the training pictures' embeddings.
            error: share of the spread that may be lost with the axes left out.

        Raises:
            BadConfig: when more is lost, or there are fewer embeddings than buckets.
        """
        width, num_codes, num_buckets = self.shape
        require(len(z) >= num_buckets, f"{len(z)} embeddings for {num_buckets} buckets", "as many at least")
        mean, axes, spread = principal_axes(z)
        lost = (spread[num_codes:].square().sum() / spread.square().sum()).item()
        came = f"{num_codes} of {width} axes, which lose {lost:.2%} of the spread"
        require(lost < error, came, f"less than {error:.2%}", f"Keep {num_axes_for(z, error)} axes.")
        ordered = ((z.double() - mean) @ axes[:, :num_codes]).sort(dim=0).values  # along each axis by itself
        starts = [number * len(z) // num_buckets for number in range(num_buckets + 1)]
        inner = torch.tensor(starts[1:-1])
        edges = (ordered[inner - 1] + ordered[inner]) / 2
        parts = [ordered[first:last].mean(dim=0) for first, last in pairwise(starts)]
        self.mean.copy_(mean)
        self.axes.copy_(axes[:, :num_codes].flatten())
        self.edges.copy_(edges.T.flatten())
        self.values.copy_(torch.stack(parts, dim=1).flatten())

    def encode(self, z: Embeddings) -> Int[Tensor, "b n"]:
        """Return the codes of embeddings, the widest axis first."""
        return self.buckets(self.along(z))

    def along(self, z: Embeddings) -> Float[Tensor, "b n"]:
        """Return how far embeddings lie along the axes that are kept, from the mean."""
        width, num_codes, _ = self.shape
        return (z.float() - self.mean) @ self.axes.view(width, num_codes)

    def buckets(self, along: Float[Tensor, "b n"]) -> Int[Tensor, "b n"]:
        """Return the codes of places along the axes, as `along` gives them."""
        edges = self.edges.view(along.shape[1], -1)
        return torch.searchsorted(edges, along.T.contiguous()).T.contiguous()

    def decode(self, codes: Int[Tensor, "b n"]) -> Float[Tensor, "b e"]:
        """Return the embeddings that codes stand for; what lies along the axes left out is their mean."""
        width, num_codes, _ = self.shape
        along = self.values.view(num_codes, -1).gather(1, codes.T).T
        return along @ self.axes.view(width, num_codes).T + self.mean
