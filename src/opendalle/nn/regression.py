"""The mean of what belongs to a vector: a plain regression on whitened numbers.

A diffusion network must also learn this, as its answer at full noise, and learns it slowly among a thousand others.

Source: residual blocks with the norm first, as a transformer's feed-forward half (arXiv:2002.04745).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from opendalle.nn.whitening import Whitening


class ResidualVector(nn.Module):
    """Norm, two linear layers, added to their input; it starts as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)
        nn.init.zeros_(self.down.weight)

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Add what the two layers make of a vector."""
        return x + self.down(F.gelu(self.up(self.norm(x))))


class VectorRegression(nn.Module):
    """Vector to vector; `whitening` must be fitted to what comes in before training.

    Args:
        width_in: numbers of what comes in.
        width_out: numbers of what goes out.
        width: of the hidden vector.
        depth: residual blocks.
        width_beside: numbers that come beside the vector and are not whitened.
    """

    def __init__(self, width_in: int, width_out: int, width: int, depth: int, width_beside: int = 0) -> None:
        super().__init__()
        self.whitening = Whitening(width_in)
        self.embedding_in = nn.Linear(width_in + width_beside, width)
        self.blocks = nn.Sequential(*(ResidualVector(width) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, width_out)

    def forward(self, x: Float[Tensor, "b d"], beside: Float[Tensor, "b f"] | None = None) -> Float[Tensor, "b e"]:
        """Estimate the mean.

        Args:
            x: vectors, as the whitening was fitted to.
            beside: further numbers of unit spread, width_beside of them.
        """
        return self.read(self.hidden(x, beside))

    def hidden(self, x: Float[Tensor, "b d"], beside: Float[Tensor, "b f"] | None = None) -> Float[Tensor, "b w"]:
        """Return the vector that the mean is read from; arguments as of `forward`."""
        white = self.whitening(x)
        known = white if beside is None else torch.cat([white, beside], dim=1)
        return self.blocks(self.embedding_in(known))

    def read(self, hidden: Float[Tensor, "b w"]) -> Float[Tensor, "b e"]:
        """Read the mean from the hidden vector."""
        return self.out(self.norm(hidden))
