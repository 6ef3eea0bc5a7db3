"""DDIM inversion: from a picture to the noise that DDIM (eta 0) would have drawn it from.

With the CLIP embedding z_i, that noise x_T is the second half of DALL-E 2's bipartite latent: z_i holds what the
picture means, x_T all that the decoder needs besides to rebuild it.
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from opendalle.base.errors import BadRequest
from opendalle.base.protocols import Denoise, Denoised
from opendalle.diffusion.schedules import Schedule, expand_like
from opendalle.samplers.course import Course, SamplerState

REFINEMENTS = 3  # network calls a step of the walk back, of a picture that is to be rebuilt


@torch.no_grad()
def _walk_up(
    denoise: Denoise, x_t: Float[Tensor, "b *d"], course: Course, num_refinements: int
) -> Iterator[SamplerState]:
    num_steps = len(course)
    for done, i in enumerate(reversed(range(num_steps))):
        start = x_t
        denoised = denoise(start, course.times[min(i + 1, num_steps - 1)])  # clean data have no step to ask about
        x_t = start + (course.alpha[i] - course.alpha[i + 1]) * denoised.x0
        x_t = x_t + (course.sigma[i] - course.sigma[i + 1]) * denoised.eps
        if num_refinements > 0:
            x_t, denoised = _refined(denoise, x_t, start, course, i, num_refinements)
        yield SamplerState(step=done + 1, num_steps=num_steps, t=course.steps[i], x_t=x_t, x0=denoised.x0)


def _refined(
    denoise: Denoise, guess: Tensor, wanted: Tensor, course: Course, i: int, num_refinements: int
) -> tuple[Tensor, Denoised]:
    """Find the x_t from which the sampler's stride i leads to `wanted`.

    Walks against the gap between where the stride leads and where it should.  How far is a weight a sample, found by
    the secant through the last two gaps: near 1 for a network that predicts x0 calmly, and far below for one that
    predicts eps, where the signal is faint and a small change of x_t goes a long way.
    """

    def ask(x_t: Tensor) -> tuple[Tensor, Denoised]:
        said = denoise(x_t, course.times[i])
        return course.alpha[i + 1] * said.x0 + course.sigma[i + 1] * said.eps - wanted, said

    gap, denoised = ask(guess)
    x_t, weight = guess, torch.ones(len(guess), dtype=guess.dtype, device=guess.device)
    for _ in range(num_refinements - 1):
        trial = x_t - expand_like(weight, x_t) * gap
        trial_gap, trial_denoised = ask(trial)
        change = gap - trial_gap
        weight = weight * _dot(gap, change) / _dot(change, change).clamp(min=torch.finfo(gap.dtype).tiny)
        closer = expand_like(_dot(gap, gap) - _dot(trial_gap, trial_gap), x_t) > 0
        x_t, gap = torch.where(closer, trial, x_t), torch.where(closer, trial_gap, gap)
        denoised = trial_denoised
    return x_t - expand_like(weight, x_t) * gap, denoised


def _dot(one: Tensor, other: Tensor) -> Tensor:
    """Inner product of each sample."""
    return (one * other).flatten(1).sum(1)


def invert(
    denoise: Denoise,
    x0: Float[Tensor, "b *d"],
    grid: Sequence[int],
    *,
    schedule: Schedule,
    num_refinements: int = 0,
) -> Iterator[SamplerState]:
    """Walk DDIM backwards, from clean data to noise, one state a step.

    The sampler's step from t to s holds the network's answer at x_t; on the way back x_t is not yet known.  The
    published inversion takes the answer at x_s instead.  Refinements solve the sampler's own equation,
    alpha_s x0(x_t) + sigma_s eps(x_t) = x_s, for x_t, from that first guess: the solution is the exact inverse.
    Clipping must be off, since a clipped step has no inverse.

    Args:
        denoise: the network.
        x0: clean data.
        grid: the grid that DDIM would walk down; walked up here.
        schedule: the schedule that the network was trained with.
        num_refinements: iterations a step, each one network call; 0 is the published inversion.

    Raises:
        BadRequest: when the grid leaves the schedule or the number is negative.

    Source: DDIM, arXiv:2010.02502, section 4.3; DALL-E 2, arXiv:2204.06125, section 3; solving for
        x_t: arXiv:2309.04907, section 3.
    """
    if num_refinements < 0:
        raise BadRequest(f"{num_refinements} refinements", "0 or more")
    return _walk_up(denoise, x0, Course(schedule, grid, x0), num_refinements)
