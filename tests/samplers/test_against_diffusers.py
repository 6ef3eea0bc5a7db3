"""Every sampler walks the same path as diffusers' scheduler of that name, on a random network."""

from collections.abc import Callable

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_heun_discrete import FlowMatchHeunDiscreteScheduler
from diffusers.schedulers.scheduling_unclip import UnCLIPScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import Tensor

from opendalle.base.rng import normal_like_rows, picture_generator
from opendalle.diffusion.grids import karlo, strided
from opendalle.diffusion.schedules import Schedule, cosine, flow
from opendalle.samplers.course import SamplerOptions
from opendalle.samplers.guided import GuidedDenoise
from opendalle.samplers.sample import last_state, sample

SHAPE = (3, 6, 6)
KINDS = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}


def network(channels: int = 3) -> Callable[[Tensor, Tensor], Tensor]:
    """A smooth random network that reads x and t; float32, no state."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(channels, 3, 3, 3, generator=generator) * 0.25

    def run(x: Tensor, t: Tensor) -> Tensor:
        mixed = torch.nn.functional.conv2d(x, weight, padding=1)
        return torch.tanh(mixed * (1 + t.float().cos()[:, None, None, None] / 2))

    return run


def noise() -> Tensor:
    return normal_like_rows([picture_generator(seed) for seed in (7, 8)], SHAPE)


def fresh() -> list[torch.Generator]:
    return [picture_generator(seed) for seed in (70, 80)]


def same_tables(scheduler) -> Schedule:
    return Schedule(alpha_bar=scheduler.alphas_cumprod.double())


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * max(float(theirs.abs().max()), 1.0))


def ours(grid, schedule: Schedule, sampler: str, options: SamplerOptions | None = None, **wrapped) -> Tensor:
    run = network(6 if wrapped.get("learned_variance") else 3)
    denoise = GuidedDenoise(run, {}, schedule=schedule, grid=grid, **wrapped)
    walk = sample(denoise, noise(), grid, schedule=schedule, sampler=sampler, options=options, generators=fresh())
    return last_state(walk).x_t


def theirs(scheduler, channels: int = 3, **knobs) -> Tensor:
    run, x, generators = network(channels), noise(), fresh()
    if "generator" in knobs:
        knobs["generator"] = generators
    for t in scheduler.timesteps:
        steps = torch.full((2,), int(t))
        x = scheduler.step(run(x, steps), t, x, **knobs).prev_sample
    return x


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ddim(kind: str, eta: float) -> None:
    scheduler = DDIMScheduler(
        beta_schedule="linear", prediction_type=KINDS[kind], clip_sample=False, timestep_spacing="trailing"
    )
    scheduler.set_timesteps(10)
    # Their DDIM guesses the step before from T // n: right for a grid of equal strides.
    grid = strided(1000, 10)
    assert list(grid) == scheduler.timesteps.tolist()
    drawn = ours(grid, same_tables(scheduler), "ddim", SamplerOptions(eta=eta), prediction=kind)
    close(drawn, theirs(scheduler, eta=eta, generator=None))


def test_ddim_with_clipping() -> None:
    scheduler = DDIMScheduler(beta_schedule="squaredcos_cap_v2", timestep_spacing="trailing")
    scheduler.set_timesteps(10)
    grid = strided(1000, 10)
    close(ours(grid, same_tables(scheduler), "ddim", prediction="eps", clip=(-1.0, 1.0)), theirs(scheduler))
    consistent = ours(grid, same_tables(scheduler), "ddim", prediction="eps", clip=(-1.0, 1.0), consistent_eps=True)
    close(consistent, theirs(scheduler, use_clipped_model_output=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variance", ["fixed-small", "fixed-large"])
def test_ddpm(kind: str, variance: str) -> None:
    scheduler = DDPMScheduler(
        beta_schedule="squaredcos_cap_v2", prediction_type=KINDS[kind], variance_type=variance.replace("-", "_")
    )
    grid = (999, 801, 640, 333, 120, 119, 30, 0)
    scheduler.set_timesteps(timesteps=list(grid))
    options = SamplerOptions(variance=variance)
    drawn = ours(grid, same_tables(scheduler), "ddpm", options, prediction=kind, clip=(-1.0, 1.0))
    close(drawn, theirs(scheduler, generator=None))


def test_ddpm_with_learned_variance() -> None:
    scheduler = DDPMScheduler(num_train_timesteps=25, beta_schedule="squaredcos_cap_v2", variance_type="learned_range")
    scheduler.set_timesteps(25)
    grid = tuple(range(24, -1, -1))
    options = SamplerOptions(variance="learned")
    drawn = ours(grid, same_tables(scheduler), "ddpm", options, clip=(-1.0, 1.0), learned_variance=True)
    close(drawn, theirs(scheduler, channels=6, generator=None))


def karlo_walk(scheduler, channels: int) -> Tensor:
    """The loop of the unCLIP pipeline: the step before is handed to the scheduler."""
    run, x, generators = network(channels), noise(), fresh()
    steps = scheduler.timesteps
    for i, t in enumerate(steps):
        before = None if i + 1 == len(steps) else int(steps[i + 1])
        out = scheduler.step(run(x, torch.full((2,), int(t))), int(t), x, prev_timestep=before, generator=generators)
        x = out.prev_sample
    return x


@pytest.mark.parametrize("num_steps", [7, 25])
@pytest.mark.parametrize(
    ("kind", "variance", "limit"),
    [("x0", "fixed_small_log", 5.0), ("eps", "learned_range", 1.0), ("eps", "fixed_small_log", 1.0)],
)
def test_karlo(num_steps: int, kind: str, variance: str, limit: float) -> None:
    """Karlo's prior, decoder and upsampler schedulers."""
    scheduler = UnCLIPScheduler(variance_type=variance, prediction_type=KINDS[kind], clip_sample_range=limit)
    scheduler.set_timesteps(num_steps)
    # Their float32 tables round beta_0 by 5e-4 of itself, which scales the finished picture: compare the formulas.
    exact = cosine()
    scheduler.alphas_cumprod = exact.alpha_bar
    scheduler.alphas = exact.alpha_bar / torch.cat([torch.ones(1, dtype=torch.float64), exact.alpha_bar[:-1]])
    scheduler.betas = 1 - scheduler.alphas
    learned = variance == "learned_range"
    drawn = ours(
        karlo(1000, num_steps),
        same_tables(scheduler),
        "ddpm",
        SamplerOptions(variance="learned" if learned else "fixed-small"),
        prediction=kind,
        clip=(-limit, limit),
        learned_variance=learned,
    )
    close(drawn, karlo_walk(scheduler, 6 if learned else 3))


GRIDS = [(999, 760, 555, 300, 120, 14), (999,), (999, 400), tuple(range(999, 0, -50))]


@pytest.mark.parametrize("grid", GRIDS, ids=len)
@pytest.mark.parametrize(("kind", "table"), [("v", "squaredcos_cap_v2"), ("x0", "linear"), ("eps", "linear")])
def test_dpm_plus_plus(kind: str, table: str, grid: tuple[int, ...]) -> None:
    scheduler = DPMSolverMultistepScheduler(beta_schedule=table, prediction_type=KINDS[kind])
    scheduler.set_timesteps(timesteps=list(grid))
    close(ours(grid, same_tables(scheduler), "dpm++2m", prediction=kind), theirs(scheduler))


@pytest.mark.parametrize("num_steps", [1, 2, 6, 20])
@pytest.mark.parametrize("corrector", [True, False])
@pytest.mark.parametrize(("kind", "table"), [("v", "scaled_linear"), ("x0", "linear"), ("eps", "linear")])
def test_unipc(kind: str, table: str, corrector: bool, num_steps: int) -> None:
    scheduler = UniPCMultistepScheduler(
        beta_schedule=table,
        prediction_type=KINDS[kind],
        final_sigmas_type="zero",
        timestep_spacing="trailing",
        disable_corrector=[] if corrector else list(range(20)),
    )
    scheduler.set_timesteps(num_steps)
    grid = tuple(scheduler.timesteps.tolist())
    options = SamplerOptions(corrector=corrector)
    close(ours(grid, same_tables(scheduler), "unipc", options, prediction=kind), theirs(scheduler))


@pytest.mark.parametrize("shift", [1.0, 2.5])
def test_flow_euler(shift: float) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler()
    schedule, grid = flow(1000, shift), strided(1000, 8)
    scheduler.set_timesteps(sigmas=schedule.sigma(torch.tensor(grid)).tolist())
    run, x = network(), noise()
    for step, t in zip(grid, scheduler.timesteps, strict=True):
        x = scheduler.step(run(x, torch.full((2,), step)), t, x, return_dict=False)[0]
    close(ours(grid, schedule, "euler", prediction="flow"), x)
    close(ours(grid, schedule, "ddim", prediction="flow"), x)


def test_flow_heun() -> None:
    scheduler = FlowMatchHeunDiscreteScheduler()
    scheduler.set_timesteps(10)
    grid = tuple(round(t) - 1 for t in scheduler.timesteps.tolist())
    run, x = network(), noise()
    for step, t in zip(grid, scheduler.timesteps, strict=True):
        x = scheduler.step(run(x, torch.full((2,), step)), t, x, return_dict=False)[0]
    close(ours(tuple(dict.fromkeys(grid)), flow(), "heun", prediction="flow"), x)
