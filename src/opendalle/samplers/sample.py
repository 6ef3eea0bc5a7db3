"""The one door to every diffusion sampler."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence

from jaxtyping import Float
from torch import Generator, Tensor

from opendalle.base.errors import BadRequest
from opendalle.base.protocols import Denoise
from opendalle.diffusion.schedules import Schedule
from opendalle.samplers.course import Course, Noise, SamplerOptions, SamplerState
from opendalle.samplers.markov import consistency, ddim, ddpm
from opendalle.samplers.ode import dpm_plus_plus_2m, euler, heun, unipc

Sampler = Callable[[Denoise, Tensor, Course, SamplerOptions, Noise], Iterator[SamplerState]]

SAMPLERS: Mapping[str, Sampler] = {
    "ddim": ddim,
    "ddpm": ddpm,
    "dpm++2m": dpm_plus_plus_2m,
    "unipc": unipc,
    "euler": euler,
    "heun": heun,
    "consistency": consistency,
}
NOISY = ("ddpm", "consistency")  # draw noise whatever eta is


def sample(
    denoise: Denoise,
    x_t: Float[Tensor, "b *d"],
    grid: Sequence[int],
    *,
    schedule: Schedule,
    sampler: str = "ddim",
    options: SamplerOptions | None = None,
    generators: Sequence[Generator] | None = None,
) -> Iterator[SamplerState]:
    """Walk from noise to data, one state a step.  Stop iterating to cancel; nothing runs before it is asked for.

    Args:
        denoise: the network, with its conditioning and guidance inside.
        x_t: unit Gaussian noise, or data noised up to the grid's first step.
        grid: falling steps of the schedule; after the last comes clean data.
        schedule: the schedule that the network was trained with.
        sampler: a key of SAMPLERS.
        options: the sampler's knobs; None: their defaults.
        generators: one a sample, for the samplers that draw noise (`ddpm`, `consistency`, `ddim` with eta above 0).

    Raises:
        BadRequest: at once, when the sampler is unknown, the grid leaves the schedule, or generators are missing.
    """
    if sampler not in SAMPLERS:
        raise BadRequest(f"sampler {sampler!r}", "one of " + ", ".join(SAMPLERS))
    options = options or SamplerOptions()
    noise = Noise(generators, x_t)
    if sampler in NOISY or (sampler == "ddim" and options.eta > 0):
        noise.require()
    return SAMPLERS[sampler](denoise, x_t, Course(schedule, grid, x_t), options, noise)


def last_state(states: Iterator[SamplerState]) -> SamplerState:
    """Walk a course to its end and return where it ended.

    Args:
        states: what `sample` or `invert` returned.

    Raises:
        BadRequest: when there is not a single step.
    """
    ended = deque(states, maxlen=1)
    if not ended:
        raise BadRequest("a course without steps", "at least one step")
    return ended[0]
