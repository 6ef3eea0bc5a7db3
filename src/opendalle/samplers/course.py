"""What every sampler shares: its options, the state it yields, and the course it walks.

A course is a grid turned into numbers: signal and noise at each visited step and at the clean end, read once from the
schedule in float64.  They are plain floats, so the loop over steps does no table arithmetic, moves nothing between
devices, and rounds each coefficient once, where it meets a tensor.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from opendalle.base.errors import BadRequest, require
from opendalle.base.rng import normal_like_rows
from opendalle.diffusion.grids import check_grid
from opendalle.diffusion.schedules import CLEAN, Schedule

Variance = Literal["fixed-small", "fixed-large", "learned", "analytic"]


@dataclass(frozen=True, kw_only=True)
class SamplerOptions:
    """Knobs of the samplers; each sampler reads those it has.

    Raises:
        BadConfig: when a value lies outside its range, or `analytic` comes without its statistics.
    """

    eta: float = 0.0  # ddim: share of DDPM's noise put back into each step, 0 to 1
    variance: Variance = "fixed-small"  # ddpm: where each step's variance comes from
    noise_power: tuple[float, ...] | None = None  # ddpm, analytic: E|eps|^2 / d of the network at each training step
    corrector: bool = True  # unipc: correct each step with the network's next answer, at no cost

    def __post_init__(self) -> None:
        require(0.0 <= self.eta <= 1.0, f"eta is {self.eta}", "0 to 1")
        known = ("fixed-small", "fixed-large", "learned", "analytic")
        require(self.variance in known, f"variance {self.variance!r}", "one of " + ", ".join(known))
        lacking = self.variance == "analytic" and self.noise_power is None
        require(not lacking, "variance 'analytic' without noise_power", "the statistics of `measure_noise_power`")


@dataclass(frozen=True, kw_only=True)
class SamplerState:
    """Where a sampler stands after a step; enough for a preview, and x_t of the last one is the result."""

    step: int  # steps done, from 1
    num_steps: int  # steps in all
    t: int  # training step that x_t stands at now; -1 is clean
    x_t: Float[Tensor, "b *d"]
    x0: Float[Tensor, "b *d"]  # the network's last belief in the clean data


class Course:
    """A grid, turned into the numbers of a schedule.

    Args:
        schedule: signal and noise scales.
        grid: falling steps of the schedule.
        like: the tensor that will walk: its batch, device and dtype.

    Raises:
        BadRequest: when the grid does not fall or leaves the schedule.
    """

    def __init__(self, schedule: Schedule, grid: Sequence[int], like: Float[Tensor, "b *d"]) -> None:
        check_grid(grid, schedule.num_steps)
        self.steps = (*grid, CLEAN)  # one more than there are strides
        t = torch.tensor(self.steps)
        self.alpha: list[float] = schedule.alpha(t).tolist()
        self.sigma: list[float] = schedule.sigma(t).tolist()
        self.times: Int[Tensor, "num_steps b"] = t[:-1, None].repeat(1, len(like)).to(like.device)

    def __len__(self) -> int:
        return len(self.steps) - 1

    def half_log_snr(self, i: int) -> float:
        """log(alpha / sigma) at the i-th point: the time in which the solvers' equations are linear."""
        if self.alpha[i] == 0.0:
            return -math.inf
        return math.inf if self.sigma[i] == 0.0 else math.log(self.alpha[i]) - math.log(self.sigma[i])

    def added_variance(self, i: int) -> float:
        """Variance of the forward noise between point i + 1 and point i; beta when they are neighbours."""
        return self.sigma[i] ** 2 - (self.alpha[i] / self.alpha[i + 1] * self.sigma[i + 1]) ** 2

    def posterior_variance(self, i: int) -> float:
        """Variance of q(x_{i+1} | x_i, x0); 0 on the last stride."""
        return self.added_variance(i) * (self.sigma[i + 1] / self.sigma[i]) ** 2

    def state(self, i: int, x_t: Float[Tensor, "b *d"], x0: Float[Tensor, "b *d"]) -> SamplerState:
        """The record of having finished stride i."""
        return SamplerState(step=i + 1, num_steps=len(self), t=self.steps[i + 1], x_t=x_t, x0=x0)


@dataclass(frozen=True)
class Noise:
    """Fresh unit Gaussian noise, each sample's from its own generator.

    Args:
        generators: one a sample; None when the sampler is expected to draw none.
        like: the tensor that the noise is added to.

    Raises:
        BadRequest: when there are not as many generators as samples.
    """

    generators: Sequence[Generator] | None
    like: Float[Tensor, "b *d"]

    def __post_init__(self) -> None:
        if self.generators is not None and len(self.generators) != len(self.like):
            raise BadRequest(f"{len(self.generators)} generators", f"{len(self.like)}, one a sample")

    def require(self) -> None:
        """Refuse to start a random sampler without generators.

        Raises:
            BadRequest: when there are none.
        """
        if self.generators is None:
            raise BadRequest("a sampler that draws noise, and no generators", "one generator a sample")

    def draw(self) -> Float[Tensor, "b *d"]:
        """Draw noise like the walking tensor.

        Raises:
            BadRequest: when there are no generators.
        """
        if self.generators is None:
            raise BadRequest("a sampler that draws noise, and no generators", "one generator a sample")
        return normal_like_rows(self.generators, self.like.shape[1:], self.like.device).to(self.like.dtype)
