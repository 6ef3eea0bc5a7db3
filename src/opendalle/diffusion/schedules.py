"""Noise schedules: how much of the data is left at each step, and how much noise has come.

Every schedule is told by two curves, signal alpha and noise sigma, such that

    x_t = alpha_t * x0 + sigma_t * eps,        eps a unit Gaussian,

and t grows with noise.  A variance-preserving schedule keeps alpha^2 + sigma^2 = 1 (DDPM, DALL-E 2); a flow keeps
alpha + sigma = 1, a straight line from data to noise (rectified flow).  All else in this room is written in alpha and
sigma, so it serves both.  The clean data are step -1: alpha = 1, sigma = 0.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from opendalle.base.axes import Steps
from opendalle.base.errors import BadConfig, require

Kind = Literal["variance-preserving", "flow"]
CLEAN = -1  # the step before the first: data without any noise
MAX_BETA = 0.999  # no step may destroy the signal altogether, or the reverse step would divide by nothing


@dataclass(frozen=True, kw_only=True, eq=False)
class Schedule:
    """Signal and noise at every step of training; float64 on the CPU, whatever the data are.

    Args:
        alpha_bar: signal power alpha^2 of each step, falling, in [0, 1).
        kind: whether sigma is sqrt(1 - alpha^2) or 1 - alpha.

    Raises:
        BadConfig: when the table rises, leaves [0, 1) or has another precision.
    """

    alpha_bar: Float64[Tensor, " num_steps"]  # signal power alpha^2 of each step
    kind: Kind = "variance-preserving"  # how noise grows as the signal falls
    _tables: dict[torch.device, tuple[Tensor, Tensor]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        table = self.alpha_bar
        require(table.dtype == torch.float64, f"alpha_bar of {table.dtype}", "float64: rounded tables drift")
        require(table.ndim == 1 and len(table) > 0, f"alpha_bar of shape {tuple(table.shape)}", "one value a step")
        require(bool((table >= 0).all() and (table < 1).all()), "alpha_bar outside [0, 1)", "signal power in [0, 1)")
        require(bool((table.diff() < 0).all()), "alpha_bar that does not fall", "less signal at every step")
        require(self.kind in ("variance-preserving", "flow"), f"kind {self.kind!r}", "'variance-preserving' or 'flow'")
        alpha = torch.cat([table.new_ones(1), table.sqrt()])  # entry 0 is the clean end, entry t + 1 is step t
        self._tables[torch.device("cpu")] = alpha, noise_beside(alpha, self.kind)

    @property
    def num_steps(self) -> int:
        """Steps of training; valid t are 0 <= t < num_steps."""
        return len(self.alpha_bar)

    @property
    def ends_in_noise(self) -> bool:
        """True when the last step keeps no signal at all; eps then says nothing of x0 there."""
        return float(self.alpha_bar[-1]) == 0.0

    def alpha(self, t: Steps) -> Float[Tensor, " b"]:
        """Signal scale at each step.

        Args:
            t: -1 <= t < num_steps; -1 is the clean end.
        """
        return self._on(t.device)[0][t + 1]

    def sigma(self, t: Steps) -> Float[Tensor, " b"]:
        """Noise scale at each step.

        Args:
            t: -1 <= t < num_steps; -1 is the clean end.
        """
        return self._on(t.device)[1][t + 1]

    def snr(self, t: Steps) -> Float[Tensor, " b"]:
        """Signal-to-noise ratio alpha^2 / sigma^2 at each step; infinite at the clean end.

        Args:
            t: -1 <= t < num_steps.
        """
        return (self.alpha(t) / self.sigma(t)) ** 2

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Both tables on the device that asks, moved there once."""
        if device not in self._tables:
            dtype = torch.float32 if device.type == "mps" else torch.float64  # that device knows no float64
            alpha, sigma = self._tables[torch.device("cpu")]
            self._tables[device] = alpha.to(device, dtype), sigma.to(device, dtype)
        return self._tables[device]


def noise_beside(alpha: Float64[Tensor, " n"], kind: Kind) -> Float64[Tensor, " n"]:
    """Return the noise scale that belongs to a signal scale.

    Args:
        alpha: signal scale in [0, 1].
        kind: kind of schedule.
    """
    return (1 - alpha**2).sqrt() if kind == "variance-preserving" else 1 - alpha


def expand_like(values: Float[Tensor, " b"], like: Float[Tensor, "b *d"]) -> Float[Tensor, "b ..."]:
    """Give one value a sample the axes and the precision of `like`, so that they multiply.

    Args:
        values: one value a sample, float64.
        like: tensor whose axes and dtype are wanted; the cast comes last, after all table arithmetic.
    """
    return values.to(like.dtype).reshape(-1, *[1] * (like.ndim - 1))


def from_betas(betas: Float64[Tensor, " num_steps"]) -> Schedule:
    """Variance-preserving schedule of a chain that adds variance beta_t at step t.

    Args:
        betas: variance of the noise that each step adds, in (0, 1).

    Source: DDPM, arXiv:2006.11239, eq. 2 and the line under eq. 4.
    """
    return Schedule(alpha_bar=torch.cumprod(1 - betas.double(), dim=0))


def linear(num_steps: int = 1000, beta_start: float | None = None, beta_end: float | None = None) -> Schedule:
    """Betas on a straight line.

    Args:
        num_steps: steps of training.
        beta_start: variance of the first step; None: 1e-4 at 1000 steps, more at fewer, so that the end is noise.
        beta_end: variance of the last step; None: 0.02 at 1000 steps, more at fewer.

    Source: DDPM, arXiv:2006.11239, section 4; the rescaling to other lengths is that of ADM, arXiv:2105.05233.
    """
    start = 1e-4 * 1000 / num_steps if beta_start is None else beta_start
    end = 0.02 * 1000 / num_steps if beta_end is None else beta_end
    return from_betas(torch.linspace(start, end, num_steps, dtype=torch.float64).clamp(max=MAX_BETA))


def scaled_linear(num_steps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012) -> Schedule:
    """Betas whose square roots lie on a straight line.

    Args:
        num_steps: steps of training.
        beta_start: variance of the first step.
        beta_end: variance of the last step.

    Source: latent diffusion, arXiv:2112.10752, its published configurations.
    """
    roots = torch.linspace(math.sqrt(beta_start), math.sqrt(beta_end), num_steps, dtype=torch.float64)
    return from_betas(roots**2)


def cosine(num_steps: int = 1000) -> Schedule:
    """Signal power that falls as a squared cosine, gently at both ends; the schedule of DALL-E 2's prior and decoder.

    Args:
        num_steps: steps of training.

    Source: Improved DDPM, arXiv:2102.09672, eq. 17 with s = 0.008 and betas cut at 0.999.
    """
    time = torch.arange(num_steps + 1, dtype=torch.float64) / num_steps
    power = torch.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2
    return from_betas((1 - power[1:] / power[:-1]).clamp(max=MAX_BETA))


def flow(num_steps: int = 1000, shift: float = 1.0) -> Schedule:
    """A straight line from data to noise, sigma = (t + 1) / num_steps; the last step is noise alone.

    Args:
        num_steps: steps of training.
        shift: more than 1 spends more steps at high noise, as larger pictures need.

    Source: rectified flow, arXiv:2209.03003, eq. 1; shift: arXiv:2403.03206, eq. 23.
    """
    require(shift > 0, f"shift is {shift}", "more than 0")
    time = torch.arange(1, num_steps + 1, dtype=torch.float64) / num_steps
    sigma = shift * time / (1 + (shift - 1) * time)
    return Schedule(alpha_bar=(1 - sigma).clamp(min=0) ** 2, kind="flow")


SCHEDULES: dict[str, Callable[[int], Schedule]] = {
    "linear": linear,
    "cosine": cosine,
    "scaled-linear": scaled_linear,
    "flow": flow,
}


def schedule_from_name(name: str, num_steps: int = 1000) -> Schedule:
    """Return the schedule that a configuration names.

    Args:
        name: a key of SCHEDULES.
        num_steps: steps of training.

    Raises:
        BadConfig: when no schedule has this name.
    """
    if name not in SCHEDULES:
        raise BadConfig(f"schedule {name!r}", "one of " + ", ".join(SCHEDULES))
    require(num_steps > 0, f"num_steps is {num_steps}", "at least 1")
    return SCHEDULES[name](num_steps)
