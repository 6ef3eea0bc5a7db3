"""The variational bound on -log p(x0), term by term, in bits per dimension.

    L = L_T + L_{T-1} + ... + L_1 + L_0

L_T asks whether the last forward step has really become noise, each L_t how far the network's reverse step is from
the true posterior, and L_0 how well it names the exact pixel values from an almost clean picture.

Source: DDPM, arXiv:2006.11239, eq. 5 and section 3.3.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from opendalle.base.axes import Steps
from opendalle.base.protocols import Denoise, Denoised
from opendalle.diffusion.process import Gaussian, posterior, q_sample, reverse
from opendalle.diffusion.schedules import Schedule, expand_like

BITS_PER_NAT = 1 / math.log(2)
PIXEL_LEVELS = 256  # eight-bit pictures, spread over [-1, 1]


@dataclass(frozen=True, kw_only=True)
class Bound:
    """The bound of each sample, in bits per dimension."""

    prior: Float[Tensor, " b"]  # L_T
    steps: Float[Tensor, "b num_steps"]  # L_0 in column 0, the term of reverse step t -> t - 1 in column t

    @property
    def total(self) -> Float[Tensor, " b"]:
        """At least the bits that the data cost under the model."""
        return self.prior + self.steps.sum(1)


def gaussian_kl(p: Gaussian, q: Gaussian) -> Float[Tensor, "b *d"]:
    """KL(p || q) of every dimension, in nats.

    Args:
        p: the truth.
        q: the belief.
    """
    apart = (p.mean - q.mean) ** 2 * (-q.log_variance).exp()
    return 0.5 * (q.log_variance - p.log_variance + (p.log_variance - q.log_variance).exp() + apart - 1)


def discretised_log_likelihood(x0: Float[Tensor, "b *d"], belief: Gaussian) -> Float[Tensor, "b *d"]:
    """Log probability, in nats, that a Gaussian gives to the eight-bit level of each value.

    The Gaussian is integrated over the level's bin; the bins at -1 and 1 reach to infinity, so that all levels
    together have probability 1.

    Args:
        x0: values in [-1, 1] that are levels of an eight-bit picture.
        belief: Gaussian over x0.

    Source: DDPM, arXiv:2006.11239, eq. 13.
    """
    half_bin = 1 / (PIXEL_LEVELS - 1)
    spread = (-0.5 * belief.log_variance).exp()
    above = (x0 - belief.mean + half_bin) * spread
    below = (x0 - belief.mean - half_bin) * spread
    highest, lowest = x0 > 1 - half_bin, x0 < -1 + half_bin
    above = torch.where(highest, torch.inf, above)
    below = torch.where(lowest, -torch.inf, below)
    # A bin far up in the upper tail is measured in the lower one by symmetry: there the difference keeps its digits.
    mirrored = below > 0
    upper, lower = torch.where(mirrored, -below, above), torch.where(mirrored, -above, below)
    return (_normal_cdf(upper) - _normal_cdf(lower)).clamp(min=1e-12).log()


def prior_term(x0: Float[Tensor, "b *d"], schedule: Schedule) -> Float[Tensor, " b"]:
    """L_T: what is left of the data after the last forward step; no network can help it.

    Args:
        x0: clean data.
        schedule: signal and noise scales.

    Source: DDPM, arXiv:2006.11239, eq. 5, first term.
    """
    last = torch.full((len(x0),), schedule.num_steps - 1, device=x0.device)
    mean = expand_like(schedule.alpha(last), x0) * x0
    end = Gaussian(mean=mean, log_variance=expand_like(2 * schedule.sigma(last).log(), x0))
    unit = Gaussian(mean=torch.zeros_like(x0), log_variance=torch.zeros_like(x0))
    return _bits(gaussian_kl(end, unit))


def bound_term(
    denoised: Denoised, x0: Float[Tensor, "b *d"], x_t: Float[Tensor, "b *d"], t: Steps, schedule: Schedule
) -> Float[Tensor, " b"]:
    """The bound's term of the reverse step from t: a KL divergence, or L_0 where t is 0.

    Args:
        denoised: what the network says of x_t.
        x0: clean data; where t is 0, levels of an eight-bit picture in [-1, 1].
        x_t: data at step t.
        t: step of each sample.
        schedule: signal and noise scales.

    Source: DDPM, arXiv:2006.11239, eq. 5, second and third term.
    """
    belief = reverse(denoised, x_t, t, schedule)
    kl = gaussian_kl(posterior(x0, x_t, t, schedule), belief)
    decoder = -discretised_log_likelihood(x0, belief)
    return torch.where(t == 0, _bits(decoder), _bits(kl))


@torch.no_grad()
def variational_bound(
    denoise: Denoise, x0: Float[Tensor, "b *d"], schedule: Schedule, draw: Callable[[int], Float[Tensor, "b *d"]]
) -> Bound:
    """Estimate every term of the bound with one noise draw a step.

    Args:
        denoise: the network.
        x0: clean data: levels of an eight-bit picture in [-1, 1].
        schedule: signal and noise scales; the network is asked once for each of its steps.
        draw: returns unit Gaussian noise like x0 for step t; chance is the caller's.
    """
    terms: list[Tensor] = []
    for step in range(schedule.num_steps):
        t = torch.full((len(x0),), step, device=x0.device)
        x_t = q_sample(x0, t, draw(step), schedule)
        terms.append(bound_term(denoise(x_t, t), x0, x_t, t, schedule))
    return Bound(prior=prior_term(x0, schedule), steps=torch.stack(terms, dim=1))


def _normal_cdf(z: Float[Tensor, "b *d"]) -> Float[Tensor, "b *d"]:
    """Probability below z; torch's own `ndtr` loses the lower tail in float32."""
    return 0.5 * torch.special.erfc(-z * math.sqrt(0.5))


def _bits(nats: Float[Tensor, "b *d"]) -> Float[Tensor, " b"]:
    """Average over dimensions, in bits."""
    return nats.flatten(1).mean(1) * BITS_PER_NAT
