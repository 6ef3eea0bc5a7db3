"""Samplers that walk back one posterior at a time: ancestral DDPM, DDIM, and consistency models' forgetful walk.

All take the network's belief x0 for the truth.  The first two draw from a posterior q(x_s | x_t, x0).  DDPM's is that
of a Markov chain; DDIM's is one of a family with the same marginals, indexed by eta: eta 1 is DDPM's, eta 0 needs no
noise at all, so that x_T alone decides the picture and can be found back from it (`invert`).  The third one
forgets x_t.
"""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from opendalle.base.errors import BadRequest, require
from opendalle.base.protocols import Denoise
from opendalle.samplers.course import Course, Noise, SamplerOptions, SamplerState

DATA_VARIANCE = 1.0  # the most that values in [-1, 1], or grids of unit spread, can have


@torch.no_grad()
def ddim(
    denoise: Denoise, x_t: Float[Tensor, "b *d"], course: Course, options: SamplerOptions, noise: Noise
) -> Iterator[SamplerState]:
    """Denoising diffusion implicit model.

    Args:
        denoise: the network.
        x_t: unit Gaussian noise, or data noised up to the course's first step.
        course: grid and coefficients.
        options: eta is read.
        noise: drawn from only where eta > 0.

    Yields:
        The state after each step.

    Source: DDIM, arXiv:2010.02502, eq. 12 and 16.
    """
    spread = [options.eta * math.sqrt(max(course.posterior_variance(i), 0.0)) for i in range(len(course))]
    kept = [math.sqrt(max(course.sigma[i + 1] ** 2 - s**2, 0.0)) for i, s in enumerate(spread)]
    for i, t in enumerate(course.times):
        denoised = denoise(x_t, t)
        x_t = course.alpha[i + 1] * denoised.x0 + kept[i] * denoised.eps
        if spread[i] > 0:
            x_t = x_t + spread[i] * noise.draw()
        yield course.state(i, x_t, denoised.x0)


@torch.no_grad()
def consistency(
    denoise: Denoise, x_t: Float[Tensor, "b *d"], course: Course, options: SamplerOptions, noise: Noise
) -> Iterator[SamplerState]:
    """Multistep consistency sampling: say what the clean data are, noise them anew, look again.

    For a network that was distilled to answer at once.  Nothing of x_t but the answer is carried on, so errors of a
    step do not add up, and the noise that it began with decides the picture only where there is a single step.

    Args:
        denoise: the network.
        x_t: unit Gaussian noise, or data noised up to the course's first step.
        course: grid and coefficients.
        options: none is read.
        noise: drawn from at every step but the last.

    Yields:
        The state after each step.

    Source: Consistency Models, arXiv:2303.01469, algorithm 1.
    """
    last = len(course) - 1
    for i, t in enumerate(course.times):
        x0 = denoise(x_t, t).x0
        x_t = x0 if i == last else course.alpha[i + 1] * x0 + course.sigma[i + 1] * noise.draw()
        yield course.state(i, x_t, x0)


@torch.no_grad()
def ddpm(
    denoise: Denoise, x_t: Float[Tensor, "b *d"], course: Course, options: SamplerOptions, noise: Noise
) -> Iterator[SamplerState]:
    """Ancestral sampling; on a strided grid betas are those of the strides.

    Args:
        denoise: the network; for the learned variance its `log_variance` must belong to this same grid.
        x_t: unit Gaussian noise, or data noised up to the course's first step.
        course: grid and coefficients.
        options: variance and noise_power are read.
        noise: drawn from at every step but the last.

    Yields:
        The state after each step.

    Raises:
        BadRequest: when the variance is to be learned and the network has none.

    Source: DDPM, arXiv:2006.11239, algorithm 2; strides: Improved DDPM, arXiv:2102.09672, section 4.
    """
    of_x0, of_x_t = _mean_coefficients(course)
    spread = [math.sqrt(max(one, 1e-20)) for one in _variances(course, options)]
    last = len(course) - 1
    for i, t in enumerate(course.times):
        denoised = denoise(x_t, t)
        x_t = of_x0[i] * denoised.x0 + of_x_t[i] * x_t
        if i < last and options.variance == "learned":
            if denoised.log_variance is None:
                raise BadRequest("variance 'learned' and a network without one", "a fixed or analytic variance")
            x_t = x_t + (0.5 * denoised.log_variance).exp() * noise.draw()
        elif i < last:
            x_t = x_t + spread[i] * noise.draw()
        yield course.state(i, x_t, denoised.x0)


def _mean_coefficients(course: Course) -> tuple[list[float], list[float]]:
    """What the posterior mean of each stride takes of x0 and of x_t."""
    alpha, sigma = course.alpha, course.sigma
    strides = range(len(course))
    of_x0 = [alpha[i + 1] * course.added_variance(i) / sigma[i] ** 2 for i in strides]
    of_x_t = [alpha[i] / alpha[i + 1] * (sigma[i + 1] / sigma[i]) ** 2 for i in strides]
    return of_x0, of_x_t


def _variances(course: Course, options: SamplerOptions) -> list[float]:
    """Variance of each stride, where the network does not say it."""
    strides = range(len(course))
    if options.variance == "fixed-large":
        return [course.added_variance(i) for i in strides]
    if options.variance == "analytic" and options.noise_power is not None:
        require(
            max(course.steps) < len(options.noise_power),
            f"noise_power of {len(options.noise_power)} steps",
            f"one value a training step, more than {max(course.steps)}",
        )
        return [analytic_variance(course, i, options.noise_power[course.steps[i]]) for i in strides]
    return [course.posterior_variance(i) for i in strides]


def analytic_variance(course: Course, i: int, noise_power: float) -> float:
    """The variance of stride i that is best for a network, in closed form.

    The posterior's own variance, and on top what is unknown of x0: its variance given x_t is
    (sigma_t / alpha_t)^2 (1 - E|eps|^2 / d), since a network that knew x0 would predict eps of unit power.  At high
    noise that is the difference of two nearly equal numbers, so it is held below the variance of the data.

    Args:
        course: grid and coefficients.
        i: stride.
        noise_power: E|eps|^2 / d of the network's noise at the stride's first step, 0 to 1; the paper's Gamma times
            sigma_t^2.

    Source: Analytic-DPM, arXiv:2201.06503, theorem 1 (eq. 8) with lambda^2 the posterior's variance; the bound is
        theorem 2's second half, for data in [-1, 1].
    """
    of_x0 = course.alpha[i + 1] * course.added_variance(i) / course.sigma[i] ** 2
    unknown = DATA_VARIANCE
    if course.alpha[i] > 0.0:
        unknown = min(max(1 - noise_power, 0.0) * (course.sigma[i] / course.alpha[i]) ** 2, DATA_VARIANCE)
    return course.posterior_variance(i) + of_x0**2 * unknown
