"""RePaint: inpainting with a network that was never trained for it.

At every step the known part of x_t is replaced by the known data, noised to that step; the network fits the rest to it.
But it sees each known part only after it has answered, so the two halves agree in colour and disagree in meaning.  The
remedy is to go back: noise the joined picture up again by a few steps and come down once more, several times over.
Each round the network sees both halves together, and they settle towards what is likely given the known one.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from opendalle.base.errors import BadRequest, require
from opendalle.base.protocols import Denoise
from opendalle.diffusion.schedules import Schedule
from opendalle.samplers.course import Course, Noise, SamplerState


@dataclass(frozen=True, kw_only=True)
class RepaintOptions:
    """Knobs of `repaint`.

    The paper goes back 10 of 250 steps, 10 times.  A jump is counted in strides of the sampler's grid, and on the short
    grids of today one stride is as far.

    Raises:
        BadConfig: when a value lies outside its range.
    """

    resamplings: int = 5  # times each stretch of the course is walked down; 1 never goes back
    jump: int = 1  # strides that it goes back at once
    eta: float = 1.0  # share of DDPM's noise put into each step down, 0 to 1; the paper's is 1

    def __post_init__(self) -> None:
        require(self.resamplings >= 1, f"resamplings is {self.resamplings}", "at least 1")
        require(self.jump >= 1, f"jump is {self.jump}", "at least 1")
        require(0.0 <= self.eta <= 1.0, f"eta is {self.eta}", "0 to 1")


def repaint(
    denoise: Denoise,
    x_t: Float[Tensor, "b *d"],
    x0: Float[Tensor, "b *d"],
    known: Bool[Tensor, "..."],
    grid: Sequence[int],
    *,
    schedule: Schedule,
    options: RepaintOptions | None = None,
    generators: Sequence[Generator] | None,
) -> Iterator[SamplerState]:
    """Walk from noise to data of which a part is known, one state a network call.  Stop iterating to cancel.

    In a state, `x0` is the network's belief where unknown and the known data elsewhere; `step` counts network calls, of
    which there are more than the grid has steps, and t rises wherever the course goes back.

    Args:
        denoise: the network, with its conditioning and guidance inside.
        x_t: unit Gaussian noise.
        x0: clean data; read where known.
        known: where they are known; broadcast to x_t.  The result is equal to x0 there, to the bit.
        grid: falling steps of the schedule; after the last comes clean data.
        schedule: the schedule that the network was trained with.
        options: how often and how far the course goes back.
        generators: one a sample.

    Raises:
        BadRequest: at once, when the known part does not fit, the grid leaves the schedule, or generators are missing.

    Source: RePaint, arXiv:2201.09865, algorithm 1; jumps of more than one step: appendix B; steps with less noise than
        DDPM's: DDIM, arXiv:2010.02502, eq. 12.
    """
    try:
        torch.broadcast_to(known, x_t.shape)
    except RuntimeError:
        came = f"a known part of shape {tuple(known.shape)}"
        raise BadRequest(came, f"one that broadcasts to the data's {tuple(x_t.shape)}") from None
    noise = Noise(generators, x_t)
    noise.require()
    return _walk(denoise, x_t, x0, known, Course(schedule, grid, x_t), options or RepaintOptions(), noise)


def moves(num_steps: int, options: RepaintOptions) -> Iterator[tuple[int, int]]:
    """The course, as pairs (from, to) of points on the grid: 0 is the noisiest, num_steps is clean.

    All go one point down, but for the jumps back: from the last point above the clean end, and from every `jump`-th
    above that, the course goes back `resamplings - 1` times.

    Args:
        num_steps: strides of the grid.
        options: resamplings and jump.

    Source: appendix B; the clean end is never left again, as algorithm 1's t > 1 has it.
    """
    left = dict.fromkeys(range(num_steps - 1, options.jump - 1, -options.jump), options.resamplings - 1)
    at = 0
    while at < num_steps:
        yield at, at + 1
        at += 1
        if left.get(at, 0) > 0:
            left[at] -= 1
            yield at, at - options.jump
            at -= options.jump


@torch.no_grad()
def _walk(
    denoise: Denoise,
    x_t: Tensor,
    x0: Tensor,
    known: Tensor,
    course: Course,
    options: RepaintOptions,
    noise: Noise,
) -> Iterator[SamplerState]:
    walk = list(moves(len(course), options))
    num_calls = sum(end > start for start, end in walk)
    alpha, sigma = course.alpha, course.sigma
    done = 0
    for start, end in walk:
        if end < start:  # back up: the forward process from the cleaner point to the noisier
            shrink = alpha[end] / alpha[start]
            added = sigma[end] ** 2 - (shrink * sigma[start]) ** 2
            x_t = shrink * x_t + math.sqrt(max(added, 0.0)) * noise.draw()
            continue
        denoised = denoise(x_t, course.times[start])
        spread = options.eta * math.sqrt(max(course.posterior_variance(start), 0.0))
        kept = math.sqrt(max(sigma[end] ** 2 - spread**2, 0.0))
        x_t = alpha[end] * denoised.x0 + kept * denoised.eps
        data = x0
        if end < len(course):
            x_t = x_t + spread * noise.draw()
            data = alpha[end] * x0 + sigma[end] * noise.draw()
        x_t = torch.where(known, data, x_t)
        done += 1
        belief = torch.where(known, x0, denoised.x0)
        yield SamplerState(step=done, num_steps=num_calls, t=course.steps[end], x_t=x_t, x0=belief)
