"""Samplers that solve the probability-flow equation, the noiseless twin of the reverse process.

    dx = x0 d(alpha) + eps d(sigma)

Here x0 and eps are the network's beliefs along the way.  It holds for any schedule: along a flow it is the straight
line's velocity, along a variance-preserving schedule the velocity on the circle.  Euler's step holds both beliefs
fixed; Heun's takes their mean over the stride; DPM-Solver++ and UniPC extrapolate x0 from earlier answers, in the
time log(alpha / sigma), and so get second order for one network call a step.

Source: arXiv:2011.13456, section 4.3, in the form that does not divide by alpha.
"""

import math
from collections.abc import Iterator
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from opendalle.base.protocols import Denoise
from opendalle.samplers.course import Course, Noise, SamplerOptions, SamplerState


@torch.no_grad()
def euler(
    denoise: Denoise, x_t: Float[Tensor, "b *d"], course: Course, options: SamplerOptions, noise: Noise
) -> Iterator[SamplerState]:
    """Euler's method: walk with the beliefs of the stride's start.  The same step as DDIM with eta 0.

    Args:
        denoise: the network.
        x_t: unit Gaussian noise, or data noised up to the course's first step.
        course: grid and coefficients.
        options: none is read.
        noise: none is drawn.

    Yields:
        The state after each step.

    Source: flow: arXiv:2209.03003, algorithm 1; variance-preserving: DDIM, arXiv:2010.02502, section 4.3.
    """
    for i, t in enumerate(course.times):
        denoised = denoise(x_t, t)
        x_t = course.alpha[i + 1] * denoised.x0 + course.sigma[i + 1] * denoised.eps
        yield course.state(i, x_t, denoised.x0)


@torch.no_grad()
def heun(
    denoise: Denoise, x_t: Float[Tensor, "b *d"], course: Course, options: SamplerOptions, noise: Noise
) -> Iterator[SamplerState]:
    """Heun's method: try Euler's step, ask again at its end, and walk with the mean of both beliefs.

    The last stride, to clean data, stays Euler's: there is no noise left at its end to ask about.  A course of n steps
    asks the network 2n - 1 times.

    Args:
        denoise: the network.
        x_t: unit Gaussian noise, or data noised up to the course's first step.
        course: grid and coefficients.
        options: none is read.
        noise: none is drawn.

    Yields:
        The state after each step.

    Source: EDM, arXiv:2206.00364, algorithm 1, for the equation at the head of this file.
    """
    last = len(course) - 1
    half_alpha = [(later - earlier) / 2 for earlier, later in pairwise(course.alpha)]
    half_sigma = [(later - earlier) / 2 for earlier, later in pairwise(course.sigma)]
    for i, t in enumerate(course.times):
        start = denoise(x_t, t)
        x_t = course.alpha[i + 1] * start.x0 + course.sigma[i + 1] * start.eps
        if i < last:
            end = denoise(x_t, course.times[i + 1])
            x_t = x_t + half_alpha[i] * (end.x0 - start.x0) + half_sigma[i] * (end.eps - start.eps)
        yield course.state(i, x_t, start.x0)


class Multistep:
    """Coefficients of the second-order strides that DPM-Solver++(2M) and UniPC share.

    With m the network's x0, a stride from point i to i + 1 is

        x_{i+1} = of_x[i] x_i + of_x0[i] m_i + of_change[i] (m_i - m_{i-1}).

    Args:
        course: grid and coefficients.

    Source: DPM-Solver++, arXiv:2211.01095, eq. 13 and algorithm 2 with r = 1/2.
    """

    def __init__(self, course: Course) -> None:
        alpha, sigma, last = course.alpha, course.sigma, len(course) - 1
        time = [course.half_log_snr(i) for i in range(len(course) + 1)]
        self.stride = [after - before for before, after in pairwise(time)]
        self.of_x = [after / before for before, after in pairwise(sigma)]
        # alpha_{i+1} (1 - exp(-stride)), written so that it is exact when the stride is infinite: from noise, to data
        self.of_x0 = [alpha[i + 1] - alpha[i] * self.of_x[i] for i in range(len(course))]
        self.of_change = [
            0.0 if i in (0, last) else 0.5 * self.of_x0[i] * self.stride[i] / self.stride[i - 1]
            for i in range(len(course))
        ]

    def corrected(self, i: int) -> tuple[float, float]:
        """UniC's weights of stride i: of the network's answer at its end, and of the change before it.

        Args:
            i: stride that has just been predicted, not the last.

        Source: UniPC, arXiv:2302.04867, section 3.1 with B(h) = exp(h) - 1 and data prediction, order 2.
        """
        if i == 0:
            return 0.5 * self.of_x0[0], 0.0
        back = -self.stride[i]
        growth = math.expm1(back)
        first = (growth / back - 1) / growth
        second = ((growth / back - 1) / back - 0.5) * 2 / growth
        earlier = -self.stride[i - 1] / self.stride[i]  # where the answer before lies, in units of this stride
        weight = (first - second) / (1 - earlier)
        return self.of_x0[i] * (first - weight), self.of_x0[i] * weight / earlier


@torch.no_grad()
def dpm_plus_plus_2m(
    denoise: Denoise, x_t: Float[Tensor, "b *d"], course: Course, options: SamplerOptions, noise: Noise
) -> Iterator[SamplerState]:
    """DPM-Solver++(2M): extrapolate the network's x0 along a line through its last two answers.

    The first and the last stride are of first order: one has no answer before it, the other would extrapolate over
    an infinite time.

    Args:
        denoise: the network.
        x_t: unit Gaussian noise, or data noised up to the course's first step.
        course: grid and coefficients.
        options: none is read.
        noise: none is drawn.

    Yields:
        The state after each step.

    Source: DPM-Solver++, arXiv:2211.01095, algorithm 2.
    """
    take = Multistep(course)
    before = None
    for i, t in enumerate(course.times):
        x0 = denoise(x_t, t).x0
        x_t = take.of_x[i] * x_t + take.of_x0[i] * x0
        if before is not None and take.of_change[i] != 0.0:
            x_t = x_t + take.of_change[i] * (x0 - before)
        before = x0
        yield course.state(i, x_t, x0)


@torch.no_grad()
def unipc(
    denoise: Denoise, x_t: Float[Tensor, "b *d"], course: Course, options: SamplerOptions, noise: Noise
) -> Iterator[SamplerState]:
    """UniPC of order 2: the strides of DPM-Solver++(2M), each corrected by the answer that the next one needs anyway.

    Args:
        denoise: the network.
        x_t: unit Gaussian noise, or data noised up to the course's first step.
        course: grid and coefficients.
        options: corrector is read.
        noise: none is drawn.

    Yields:
        The state after each step; the correction of a step is part of the next one.

    Source: UniPC, arXiv:2302.04867, algorithms 1 and 2.
    """
    take = Multistep(course)
    weights = [take.corrected(i) for i in range(len(course) - 1)]
    base = before = earlier = None  # first-order stride that led here, and the network's last two answers
    for i, t in enumerate(course.times):
        x0 = denoise(x_t, t).x0
        if options.corrector and base is not None and before is not None:
            of_end, of_change = weights[i - 1]
            x_t = base + of_end * (x0 - before)
            if earlier is not None:
                x_t = x_t + of_change * (earlier - before)
        base = take.of_x[i] * x_t + take.of_x0[i] * x0
        x_t = base if before is None else base + take.of_change[i] * (x0 - before)
        before, earlier = x0, before
        yield course.state(i, x_t, x0)
