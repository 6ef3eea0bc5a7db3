"""The linear prior: z_t times a matrix, found in one step.

What a caption's embedding tells of its pictures' is to a large part a rotation and a shift, and least squares finds
both without any training.  Ridge regression adds a penalty on large weights, lest the narrow axes be fitted to noise;
how much of it serves best is asked of pairs that the fit has not seen.

Source: ridge regression, Hoerl and Kennard 1970; that a linear map bridges CLIP's two sides is an old observation, and
the paper's baseline without a prior (section 5.1) is the identity in its place.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from opendalle.base.axes import Embeddings
from opendalle.base.errors import require
from opendalle.dalle2.priors.protocol import Said
from opendalle.diffusion.guidance import combine

PENALTIES = tuple(10.0**power for power in (-7, -6, -5, -4, -3, -2, -1, 0))  # shares of the mean variance of an axis


@dataclass(frozen=True, kw_only=True)
class LinearPriorConfig:
    """Shape of a linear prior."""

    embedding_width: int  # e, of CLIP's joint space

    def __post_init__(self) -> None:
        require(self.embedding_width > 0, f"embedding_width {self.embedding_width}", "a positive number")


class LinearPrior(nn.Module):
    """Maps z_t to the mean of its pictures' embeddings, as far as a matrix can."""

    is_random = False
    knobs = frozenset({"guidance"})

    def __init__(self, config: LinearPriorConfig) -> None:
        super().__init__()
        self.config = config
        self.map = nn.Linear(config.embedding_width, config.embedding_width)

    @torch.no_grad()
    def fit(self, z_t: Embeddings, z: Embeddings, held_out: float = 0.1) -> float:
        """Find the matrix.

        Args:
            z_t: captions' embeddings.
            z: their pictures' embeddings.
            held_out: share of the rows, the last ones, on which the penalty is chosen; then all rows are fitted to.

        Returns:
            The penalty chosen, as a share of the mean variance of an axis.

        Raises:
            BadConfig: when either side of the split would be empty.
        """
        count = round(len(z) * (1 - held_out))
        require(0 < count < len(z), f"{held_out} of {len(z)} rows held out", "some rows, and not all")
        x, y = z_t.double(), z.double()
        tries = {penalty: ridge(x[:count], y[:count], penalty) for penalty in PENALTIES}
        errors = {
            penalty: (x[count:] @ weight + bias - y[count:]).square().mean().item()
            for penalty, (weight, bias) in tries.items()
        }
        best = min(errors, key=errors.__getitem__)
        weight, bias = ridge(x, y, best)
        self.map.weight.copy_(weight.T)
        self.map.bias.copy_(bias)
        return best

    def forward(self, z_t: Embeddings) -> Embeddings:
        """Map captions' embeddings; a mean of unit vectors is shorter than one."""
        return self.map(z_t)

    @torch.no_grad()
    def draw(
        self,
        said: Said,
        empty: Said,
        generators: Sequence[Generator],
        *,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> Embeddings:
        """Map captions; the arguments are those of `Prior.draw`, steps and chance are not heeded."""
        z = self(said.pooled)
        return z if guidance is None else combine(z, self(empty.pooled), guidance)


def ridge(
    x: Float[Tensor, "n d"], y: Float[Tensor, "n e"], penalty: float
) -> tuple[Float[Tensor, "d e"], Float[Tensor, " e"]]:
    """Return the weight W and bias b that minimise |x W + b - y|^2 / n + p |W|^2, where the bias is free.

    Args:
        x: what is known, float64.
        y: what is wanted.
        penalty: p as a share of the mean variance of x along an axis.
    """
    mean_x, mean_y = x.mean(dim=0), y.mean(dim=0)
    centred = x - mean_x
    covariance = centred.T @ centred / len(x)
    strength = penalty * covariance.diagonal().mean()
    weight = torch.linalg.solve(
        covariance + strength * torch.eye(x.shape[1], dtype=x.dtype, device=x.device),
        centred.T @ (y - mean_y) / len(x),
    )
    return weight, mean_y - mean_x @ weight
