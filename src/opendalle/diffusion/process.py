"""The forward process q, which adds noise, its posterior, and the reverse step, which takes noise away.

Steps may be any distance apart: `s` is the earlier (cleaner) one, `t` the later.  With s = t - 1 these are the
formulas of DDPM; with s further back they are those of a strided grid; s = -1 is clean data.  Between s and t the
signal shrinks by alpha_t / alpha_s and the noise that came has variance

    beta_{t|s} = sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2.

Source: DDPM, arXiv:2006.11239, section 2; the form in alpha and sigma: VDM, arXiv:2107.00630, appendix A.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from opendalle.base.axes import Steps
from opendalle.base.protocols import Denoised
from opendalle.diffusion.schedules import CLEAN, Schedule, expand_like


@dataclass(frozen=True, kw_only=True)
class Gaussian:
    """A diagonal Gaussian over x."""

    mean: Float[Tensor, "b *d"]
    log_variance: Float[Tensor, "b ..."]  # the axes of `mean`, or one value a sample


def q_sample(
    x0: Float[Tensor, "b *d"], t: Steps, eps: Float[Tensor, "b *d"], schedule: Schedule
) -> Float[Tensor, "b *d"]:
    """Noise clean data up to step t, in one stride.

    Args:
        x0: clean data in the model's range.
        t: step of each sample, -1 <= t < schedule.num_steps.
        eps: unit Gaussian noise, drawn by the caller.
        schedule: signal and noise scales.

    Source: DDPM, arXiv:2006.11239, eq. 4.
    """
    return expand_like(schedule.alpha(t), x0) * x0 + expand_like(schedule.sigma(t), x0) * eps


def q_step(
    x_s: Float[Tensor, "b *d"], t: Steps, eps: Float[Tensor, "b *d"], schedule: Schedule, s: Steps | None = None
) -> Float[Tensor, "b *d"]:
    """Walk the forward chain from step s to step t; repeated from -1 on it equals `q_sample` in distribution.

    Args:
        x_s: data at step s.
        t: where to go.
        eps: unit Gaussian noise, fresh for every step of the walk.
        schedule: signal and noise scales.
        s: where x_s stands, s < t; None: t - 1.

    Source: DDPM, arXiv:2006.11239, eq. 2.
    """
    s = t - 1 if s is None else s
    shrink = schedule.alpha(t) / schedule.alpha(s)
    return expand_like(shrink, x_s) * x_s + expand_like(added_variance(t, s, schedule).sqrt(), x_s) * eps


def added_variance(t: Steps, s: Steps, schedule: Schedule) -> Float[Tensor, " b"]:
    """Variance beta_{t|s} of the noise that comes between step s and step t.

    Args:
        t: the later step.
        s: the earlier step, s < t.
        schedule: signal and noise scales.

    Source: VDM, arXiv:2107.00630, eq. 21; with s = t - 1 it is DDPM's beta_t.
    """
    return schedule.sigma(t) ** 2 - (schedule.alpha(t) / schedule.alpha(s) * schedule.sigma(s)) ** 2


def posterior_variance(t: Steps, s: Steps, schedule: Schedule) -> Float[Tensor, " b"]:
    """Variance of q(x_s | x_t, x0); 0 when s is the clean end.

    Args:
        t: the later step.
        s: the earlier step, s < t.
        schedule: signal and noise scales.

    Source: DDPM, arXiv:2006.11239, eq. 7.
    """
    return added_variance(t, s, schedule) * (schedule.sigma(s) / schedule.sigma(t)) ** 2


def log_variance_range(t: Steps, s: Steps, schedule: Schedule) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """Logarithms of the least and the greatest variance that the reverse step may take.

    The least, the posterior's, is right for data of one point, the greatest, beta_{t|s}, for unit Gaussian data; a
    learned variance lies between.  At the clean end the least one would be log 0: it is held at its value one step up.

    Args:
        t: the later step.
        s: the earlier step, s < t.
        schedule: signal and noise scales.

    Source: Improved DDPM, arXiv:2102.09672, section 3.1 and eq. 15.
    """
    one_up = torch.full_like(t, min(1, schedule.num_steps - 1))
    smallest = posterior_variance(torch.where(s == CLEAN, one_up, t), torch.where(s == CLEAN, one_up - 1, s), schedule)
    return smallest.clamp(min=1e-20).log(), added_variance(t, s, schedule).log()


def posterior_mean(
    x0: Float[Tensor, "b *d"],
    x_t: Float[Tensor, "b *d"],
    t: Steps,
    schedule: Schedule,
    s: Steps | None = None,
) -> Float[Tensor, "b *d"]:
    """Mean of q(x_s | x_t, x0): where x_t came from, if x0 was the start.

    Args:
        x0: clean data, or the network's belief in them.
        x_t: data at step t.
        t: the later step.
        schedule: signal and noise scales.
        s: the earlier step; None: t - 1.

    Source: DDPM, arXiv:2006.11239, eq. 7.
    """
    s = t - 1 if s is None else s
    alpha_s, variance_s, variance_t = schedule.alpha(s), schedule.sigma(s) ** 2, schedule.sigma(t) ** 2
    of_x0 = alpha_s * added_variance(t, s, schedule) / variance_t
    of_x_t = schedule.alpha(t) / alpha_s * variance_s / variance_t
    return expand_like(of_x0, x0) * x0 + expand_like(of_x_t, x_t) * x_t


def posterior(
    x0: Float[Tensor, "b *d"],
    x_t: Float[Tensor, "b *d"],
    t: Steps,
    schedule: Schedule,
    s: Steps | None = None,
) -> Gaussian:
    """The Gaussian q(x_s | x_t, x0), its variance held above 0 at the clean end.

    Args:
        x0: clean data.
        x_t: data at step t.
        t: the later step.
        schedule: signal and noise scales.
        s: the earlier step; None: t - 1.

    Source: DDPM, arXiv:2006.11239, eq. 6 and 7.
    """
    s = t - 1 if s is None else s
    smallest, _ = log_variance_range(t, s, schedule)
    return Gaussian(mean=posterior_mean(x0, x_t, t, schedule, s), log_variance=expand_like(smallest, x_t))


def reverse(denoised: Denoised, x_t: Float[Tensor, "b *d"], t: Steps, schedule: Schedule) -> Gaussian:
    """The Gaussian p(x_{t-1} | x_t) of a network: the posterior, with its belief in place of x0.

    Args:
        denoised: what the network says of x_t; without a learned variance the greatest one, beta_t, is taken.
        x_t: data at step t.
        t: step of each sample.
        schedule: signal and noise scales.

    Source: DDPM, arXiv:2006.11239, eq. 1 and section 3.2.
    """
    log_variance = denoised.log_variance
    if log_variance is None:
        log_variance = expand_like(log_variance_range(t, t - 1, schedule)[1], x_t)
    return Gaussian(mean=posterior_mean(denoised.x0, x_t, t, schedule), log_variance=log_variance)


def reverse_step(
    denoised: Denoised,
    x_t: Float[Tensor, "b *d"],
    t: Steps,
    eps: Float[Tensor, "b *d"],
    schedule: Schedule,
) -> Float[Tensor, "b *d"]:
    """Draw x_{t-1} from p(x_{t-1} | x_t); the step from 0 to clean data adds no noise.

    Args:
        denoised: what the network says of x_t.
        x_t: data at step t.
        t: step of each sample.
        eps: unit Gaussian noise, drawn by the caller.
        schedule: signal and noise scales.

    Source: DDPM, arXiv:2006.11239, algorithm 2.
    """
    step = reverse(denoised, x_t, t, schedule)
    noisy = expand_like((t > 0).to(x_t.dtype), x_t)
    return step.mean + noisy * (0.5 * step.log_variance).exp() * eps
