"""DDIM inversion: from a picture to the noise that DDIM (eta 0) would have drawn it from.

With the CLIP embedding z_i, that noise x_T is the second half of DALL-E 2's bipartite latent: z_i holds what the
picture means, x_T all that the decoder needs besides to rebuild it.
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from opendalle.base.errors import BadRequest
from opendalle.base.protocols import Denoise
from opendalle.diffusion.schedules import Schedule
from opendalle.samplers.course import Course, SamplerState


@torch.no_grad()
def _walk_up(
    denoise: Denoise, x_t: Float[Tensor, "b *d"], course: Course, num_refinements: int
) -> Iterator[SamplerState]:
    num_steps = len(course)
    for done, i in enumerate(reversed(range(num_steps))):
        signal = course.alpha[i] - course.alpha[i + 1]
        noise = course.sigma[i] - course.sigma[i + 1]
        start = x_t
        denoised = denoise(start, course.times[min(i + 1, num_steps - 1)])  # clean data have no step to ask about
        x_t = start + signal * denoised.x0 + noise * denoised.eps
        for _ in range(num_refinements):
            denoised = denoise(x_t, course.times[i])
            x_t = start + signal * denoised.x0 + noise * denoised.eps
        yield SamplerState(step=done + 1, num_steps=num_steps, t=course.steps[i], x_t=x_t, x0=denoised.x0)


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
    published inversion takes the answer at x_s instead.  Each refinement puts the x_t just found into the sampler's
    own equation, x_t = x_s + (alpha_t - alpha_s) x0(x_t) + (sigma_t - sigma_s) eps(x_t): its fixed point is the exact
    inverse.  Clipping must be off, since a clipped step has no inverse.

    Args:
        denoise: the network.
        x0: clean data.
        grid: the grid that DDIM would walk down; walked up here.
        schedule: the schedule that the network was trained with.
        num_refinements: fixed-point iterations a step, each one network call; 0 is the published inversion.

    Raises:
        BadRequest: when the grid leaves the schedule or the number is negative.

    Source: DDIM, arXiv:2010.02502, section 4.3; DALL-E 2, arXiv:2204.06125, section 3; the fixed point:
        arXiv:2309.04907, eq. 7.
    """
    if num_refinements < 0:
        raise BadRequest(f"{num_refinements} refinements", "0 or more")
    return _walk_up(denoise, x0, Course(schedule, grid, x0), num_refinements)
