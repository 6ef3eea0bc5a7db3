"""Training losses: the simple one, its weighting by signal-to-noise ratio, and the hybrid one with learned variance."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from opendalle.base.axes import Steps
from opendalle.base.protocols import Denoised
from opendalle.diffusion.likelihood import bound_term
from opendalle.diffusion.predictions import Prediction, check_prediction, target, to_denoised
from opendalle.diffusion.process import log_variance_range
from opendalle.diffusion.schedules import Schedule, expand_like

LOG_VARIANCE_LIMITS = (-30.0, 20.0)  # far outside any schedule: only keeps exp() finite when a network runs wild


@dataclass(frozen=True, kw_only=True)
class HybridLoss:
    """The two parts of the hybrid loss, one value a sample."""

    simple: Float[Tensor, " b"]  # trains the mean
    bound: Float[Tensor, " b"]  # trains the variance alone, scaled already

    @property
    def total(self) -> Float[Tensor, " b"]:
        """What is to be minimised."""
        return self.simple + self.bound


def simple_loss(
    kind: Prediction,
    output: Float[Tensor, "b *d"],
    x0: Float[Tensor, "b *d"],
    eps: Float[Tensor, "b *d"],
    t: Steps,
    schedule: Schedule,
) -> Float[Tensor, " b"]:
    """Mean squared error of the prediction, one value a sample, in float32.

    Args:
        kind: what the network predicts.
        output: its output for q_sample(x0, t, eps).
        x0: clean data.
        eps: the noise that was added.
        t: step of each sample.
        schedule: signal and noise scales.

    Source: DDPM, arXiv:2006.11239, eq. 14.
    """
    wanted = target(kind, x0.float(), eps.float(), t, schedule)
    return (output.float() - wanted).square().flatten(1).mean(1)


def min_snr_weight(kind: Prediction, t: Steps, schedule: Schedule, gamma: float = 5.0) -> Float[Tensor, " b"]:
    """Weight of each sample's loss that keeps easy, clean steps from drowning the hard ones.

    In terms of the error in x0 the weight is min(SNR, gamma); an error in another prediction is first counted as the
    error in x0 that it causes.

    Args:
        kind: what the network predicts.
        t: step of each sample.
        schedule: signal and noise scales.
        gamma: cap of the signal-to-noise ratio.

    Source: min-SNR, arXiv:2303.09556, section 3.4, eq. 9.
    """
    check_prediction(kind, schedule)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    error_in_x0 = {
        "eps": sigma / alpha,
        "x0": torch.ones_like(sigma),
        "v": sigma / (alpha**2 + sigma**2),
        "flow": sigma / (alpha + sigma),
    }[kind]
    return (schedule.snr(t).clamp(max=gamma) * error_in_x0**2).float()


def learned_range(
    values: Float[Tensor, "b *d"], t: Steps, schedule: Schedule, s: Steps | None = None
) -> Float[Tensor, "b *d"]:
    """Turn a network's variance channels into a log variance between the least and the greatest one.

    Args:
        values: the channels as they come, -1 for the least variance, 1 for the greatest.
        t: step of each sample.
        schedule: signal and noise scales.
        s: the step that the sampler goes to; None: t - 1, as in training.

    Source: Improved DDPM, arXiv:2102.09672, eq. 15, with v = (values + 1) / 2.
    """
    smallest, greatest = log_variance_range(t, t - 1 if s is None else s, schedule)
    share = (values + 1) / 2
    log_variance = share * expand_like(greatest, values) + (1 - share) * expand_like(smallest, values)
    return log_variance.clamp(*LOG_VARIANCE_LIMITS)


def hybrid_loss(
    kind: Prediction,
    output: Float[Tensor, "b *two_d"],
    x0: Float[Tensor, "b *d"],
    eps: Float[Tensor, "b *d"],
    x_t: Float[Tensor, "b *d"],
    t: Steps,
    schedule: Schedule,
) -> HybridLoss:
    """Simple loss for the mean, and the variational bound, its mean detached, for the variance.

    Args:
        kind: what the network predicts.
        output: prediction and variance channels, side by side on axis 1.
        x0: clean data in [-1, 1].
        eps: the noise that was added.
        x_t: q_sample(x0, t, eps).
        t: step of each sample, uniform over the schedule.
        schedule: signal and noise scales.

    Source: Improved DDPM, arXiv:2102.09672, eq. 16 with its lambda as published in code: num_steps / 1000.
    """
    prediction, values = output.float().chunk(2, dim=1)
    frozen = to_denoised(kind, prediction.detach(), x_t.float(), t, schedule)
    believed = Denoised(frozen.x0, frozen.eps, learned_range(values, t, schedule))
    bound = bound_term(believed, x0.float(), x_t.float(), t, schedule) * (schedule.num_steps / 1000)
    return HybridLoss(simple=simple_loss(kind, prediction, x0, eps, t, schedule), bound=bound)
