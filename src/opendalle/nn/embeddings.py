"""Where a token stands and how noisy a sample is, as vectors."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from opendalle.base.errors import require


def sinusoid(t: Shaped[Tensor, " b"], width: int, max_period: float = 10_000.0) -> Float[Tensor, "b d"]:
    """Embed a number as cosines, then sines, of geometrically spaced frequencies.

    Args:
        t: diffusion step of each sample, 0 to 999 in all our models; fractions are allowed.
        width: width of the embedding, even.
        max_period: period of the slowest wave over 2 pi, in steps.

    Returns:
        float32, whatever t's type; half_dim divides the exponents, so the slowest wave is never quite reached.

    Source: Attention Is All You Need, arXiv:1706.03762, section 3.5; the order and the divisor are those of ADM,
        arXiv:2105.05233, which GLIDE, unCLIP and Karlo share.
    """
    half = width // 2
    exponents = -math.log(max_period) * torch.arange(half, dtype=torch.float32, device=t.device)
    angles = t.float()[:, None] * torch.exp(exponents / half)  # (b, half); rounded in ADM's order, to its last bit
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class TimeEmbedding(nn.Module):
    """The diffusion step as a vector that the network can use: sinusoid, linear, SiLU, linear.

    Args:
        sinusoid_width: width of the sinusoid, even.
        width: width of the hidden layer and of the result.
    """

    def __init__(self, sinusoid_width: int, width: int) -> None:
        super().__init__()
        require(sinusoid_width % 2 == 0, f"sinusoid_width {sinusoid_width}", "an even number")
        self.sinusoid_width = sinusoid_width
        self.linear1 = nn.Linear(sinusoid_width, width)
        self.linear2 = nn.Linear(width, width)

    def forward(self, t: Shaped[Tensor, " b"]) -> Float[Tensor, "b d"]:
        """Embed diffusion steps t."""
        waves = sinusoid(t, self.sinusoid_width).to(self.linear1.weight.dtype)
        return self.linear2(F.silu(self.linear1(waves)))


class LearnedTimeEmbedding(nn.Module):
    """The diffusion step as a vector that the network can use: a learned vector a step, linear, SiLU, linear.

    Args:
        num_steps: steps that there are.
        step_width: width of a step's learned vector.
        width: width of the hidden layer and of the result.
    """

    def __init__(self, num_steps: int, step_width: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(num_steps, step_width)
        self.linear1 = nn.Linear(step_width, width)
        self.linear2 = nn.Linear(width, width)

    def forward(self, t: Int[Tensor, " b"]) -> Float[Tensor, "b d"]:
        """Embed diffusion steps t."""
        return self.linear2(F.silu(self.linear1(self.table(t))))


class LearnedPositions(nn.Module):
    """One learned vector a position, added to the tokens.

    Args:
        num_positions: longest sequence.
        width: width of a token.
        std: spread of the vectors before training.
    """

    def __init__(self, num_positions: int, width: int, std: float = 0.01) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(num_positions, width) * std)

    def forward(self, tokens: Float[Tensor, "b n d"], start: int = 0) -> Float[Tensor, "b n d"]:
        """Add the vectors of positions start, start + 1, ... to tokens."""
        return tokens + self.table[start : start + tokens.shape[1]]
