"""Few-step distillation where the answer is known: one number, a mixture of two Gaussians, its exact score and path."""

import math
from dataclasses import dataclass, field

import pytest
import torch
from torch import Generator, Tensor, nn

from opendalle.base.errors import BadConfig, BadRequest
from opendalle.base.protocols import Denoise, Denoised, Objective
from opendalle.diffusion.grids import strided
from opendalle.diffusion.predictions import eps_beside, to_denoised
from opendalle.diffusion.process import q_sample
from opendalle.diffusion.schedules import CLEAN, cosine
from opendalle.training.few_steps import FewSteps, FewStepsConfig, Reach, leading_to, stride, strides, teacher_walk
from opendalle.training.follower import Follower

SCHEDULE = cosine(1000)
MEANS, SPREAD, SHARES = torch.tensor([-0.8, 0.9], dtype=torch.float64), 0.35, torch.tensor([0.4, 0.6]).double()


def mixture(x_t: Tensor, t: Tensor, shares: Tensor = SHARES) -> Denoised:
    """The best denoiser of the mixture: each part's own, weighted by how likely it is given x_t."""
    alpha, sigma = SCHEDULE.alpha(t)[:, None], SCHEDULE.sigma(t)[:, None]
    variance, x = alpha**2 * SPREAD**2 + sigma**2, x_t.double()
    of_part = (shares.log() - (x - alpha * MEANS) ** 2 / (2 * variance)).softmax(dim=1)
    means = MEANS + alpha * SPREAD**2 / variance * (x - alpha * MEANS)
    x0 = (of_part * means).sum(1, keepdim=True).to(x_t)
    return Denoised(x0, eps_beside(x0, x_t, t.clamp(min=0), SCHEDULE))


def guided(x_t: Tensor, t: Tensor, scale: float = 2.0) -> Denoised:
    """The second part is what was asked for: guidance pushes away from the mixture towards it."""
    with_prompt, without = mixture(x_t, t, torch.tensor([1e-9, 1.0]).double()), mixture(x_t, t)
    x0 = without.x0 + scale * (with_prompt.x0 - without.x0)
    return Denoised(x0, eps_beside(x0, x_t, t, SCHEDULE))


def exact_end(x_t: Tensor, start: int = 999) -> Tensor:
    """Where the path of the mixture ends: one number moves so that its quantile stays, found by halving."""

    def below(x: Tensor, t: int) -> Tensor:
        at = torch.tensor([t])
        alpha, sigma = SCHEDULE.alpha(at), SCHEDULE.sigma(at)
        spread = (alpha**2 * SPREAD**2 + sigma**2).sqrt()
        return (SHARES * 0.5 * (1 + torch.erf((x - alpha * MEANS) / spread / math.sqrt(2)))).sum(1, keepdim=True)

    wanted, low, high = below(x_t.double(), start), torch.full_like(x_t.double(), -6), torch.full_like(x_t.double(), 6)
    for _ in range(60):
        middle = (low + high) / 2
        is_low = below(middle, CLEAN) < wanted
        low, high = torch.where(is_low, middle, low), torch.where(is_low, high, middle)
    return low


class Student(nn.Module):
    """Says the velocity of one number."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 96), nn.SiLU(), nn.Linear(96, 96), nn.SiLU(), nn.Linear(96, 1))

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        time = t[:, None].to(x_t) / 1000
        return self.layers(torch.cat([x_t, time, torch.sin(6 * time), torch.cos(6 * time)], dim=1))


def asked(network: nn.Module) -> Denoise:
    return lambda x_t, t: to_denoised("v", network(x_t, t), x_t, t, SCHEDULE)


@dataclass
class Asked:
    x0: Tensor
    teacher: Denoise
    asked: list[nn.Module] = field(default_factory=list)

    def ask(self, network: nn.Module) -> Denoise:
        self.asked.append(network)
        return network if not isinstance(network, Student) else asked(network)  # type: ignore[return-value]


def data(count: int, rng: Generator) -> Tensor:
    part = torch.multinomial(SHARES, count, replacement=True, generator=rng)
    return (MEANS[part] + SPREAD * torch.randn(count, generator=rng)).float()[:, None]


def distilled(config: FewStepsConfig, teacher: Denoise = mixture, num_steps: int = 300) -> Student:
    student, rng = Student(), torch.Generator().manual_seed(1)
    objective = FewSteps(student, lambda batch, _: Asked(batch, teacher), SCHEDULE, config)
    optimiser = torch.optim.Adam(student.parameters(), lr=2e-2, betas=(0.9, 0.98))
    for step in range(num_steps):
        optimiser.param_groups[0]["lr"] = 2e-2 * (1 - step / num_steps)
        objective(data(256, rng), rng).total["decoder"].backward()
        optimiser.step()
        optimiser.zero_grad()
        objective.after_step()
    return student.eval()


@torch.no_grad()
def walked(denoise: Denoise, x_t: Tensor, grid: tuple[int, ...]) -> Tensor:
    for t, s in strides(grid):
        x_t = stride(denoise, x_t, torch.full((len(x_t),), t), torch.full((len(x_t),), s), SCHEDULE)
    return x_t


NOISE = torch.special.ndtri(torch.linspace(0.01, 0.99, 99, dtype=torch.float64))[:, None].float()


@pytest.mark.parametrize(("num_steps", "substeps"), [(1, 20), (4, 5)])
def test_a_student_of_few_strides_follows_the_exact_path(num_steps: int, substeps: int) -> None:
    """Beside it what the teacher itself makes of so few steps."""
    grid = strided(1000, num_steps)
    student = distilled(FewStepsConfig(grid=grid, substeps=substeps))
    wanted = exact_end(NOISE)
    distance = (walked(asked(student), NOISE, grid) - wanted).abs().mean().item()
    plain = (walked(mixture, NOISE, grid) - wanted).abs().mean().item()
    assert distance < 0.1
    assert plain > 1.5 * distance


def test_a_student_that_reaches_clean_data_ends_there_from_every_step() -> None:
    grid = strided(1000, 4)
    student = distilled(FewStepsConfig(grid=grid, substeps=5, reach="clean", decay=0.8), num_steps=400)
    rng = torch.Generator().manual_seed(2)
    for t in grid:
        at = torch.full((400,), t)
        x0 = data(400, rng)
        x_t = q_sample(x0, at, torch.randn(400, 1, generator=rng), SCHEDULE)
        with torch.no_grad():
            said = asked(student)(x_t, at).x0
        assert (said - exact_end(x_t, t)).abs().mean() < 0.1


def test_guidance_is_in_the_students_weights() -> None:
    grid = strided(1000, 2)
    student = distilled(FewStepsConfig(grid=grid, substeps=5), teacher=guided, num_steps=200)
    wanted = walked(guided, NOISE, strided(1000, 10))
    assert (walked(asked(student), NOISE, grid) - wanted).abs().mean() < 0.08
    assert (exact_end(NOISE) - wanted).abs().mean() > 0.3, "guidance leads elsewhere"


@pytest.mark.parametrize("substeps", [1, 5])
def test_a_student_that_makes_the_teachers_steps_has_nothing_to_learn(substeps: int) -> None:
    """At one step a stride the teacher is its own student; at five it is not."""
    teacher = asked(Student())
    config = FewStepsConfig(grid=strided(1000, 4), substeps=substeps)
    objective = FewSteps(Student(), lambda batch, _: Asked(batch, teacher), SCHEDULE, config)
    rng = torch.Generator().manual_seed(0)
    loss = objective(data(64, rng), rng)
    assert isinstance(objective, Objective)
    assert (loss.total["decoder"] < 1e-9) == (substeps == 1)


@pytest.mark.parametrize("kind", ["v", "eps", "x0"])
def test_the_boundary_condition_holds_for_any_network(kind) -> None:
    network, t = Student(), torch.tensor([0, 40, 500, 998])
    x_t = torch.randn(4, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def denoise(x: Tensor, t: Tensor) -> Denoised:
        return to_denoised(kind, network(x.float(), t), x, t, SCHEDULE)

    torch.testing.assert_close(stride(denoise, x_t, t, t, SCHEDULE), x_t, atol=1e-9, rtol=1e-9)
    if kind != "x0":  # which divides by the noise, and there is none
        clean = torch.full((4,), CLEAN)
        assert torch.equal(denoise(x_t, clean).x0, x_t)


def test_the_wanted_answer_leads_to_where_the_teacher_went() -> None:
    t, s = torch.tensor([999, 749, 249]), torch.tensor([749, 499, CLEAN])
    x_t = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x_s = torch.randn(3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x0 = leading_to(x_s, x_t, t, s, SCHEDULE)
    torch.testing.assert_close(
        stride(lambda x, t: Denoised(x0, eps_beside(x0, x, t, SCHEDULE)), x_t, t, s, SCHEDULE), x_s
    )
    torch.testing.assert_close(x0[2], x_s[2])


def test_walks_begin_and_end_with_their_stride() -> None:
    assert strides((999, 749, 499, 249)) == [(999, 749), (749, 499), (499, 249), (249, -1)]
    assert teacher_walk(249, -1, 5) == [249, 199, 149, 99, 49, -1]
    together = [one for t, s in strides(strided(1000, 4)) for one in teacher_walk(t, s, 5)[:-1]]
    assert tuple(together) == strided(1000, 20), "the teacher's own twenty steps"


@pytest.mark.parametrize("reach", ["stride", "clean"])
def test_gradients_reach_the_student_alone_and_the_average_is_remembered(reach: Reach) -> None:
    student, teacher, told = Student(), Student(), list[Asked]()
    config = FewStepsConfig(grid=(999, 499), substeps=2, reach=reach, decay=0.5)

    def teach(batch: Tensor, rng: Generator) -> Asked:
        told.append(Asked(batch, asked(teacher)))
        return told[-1]

    objective, rng = FewSteps(student, teach, SCHEDULE, config), torch.Generator().manual_seed(0)
    objective(data(8, rng), rng).total["decoder"].backward()
    assert all(one.grad is not None for one in student.parameters())
    assert all(one.grad is None for one in teacher.parameters())
    assert len(told[0].asked) == (2 if reach == "clean" else 1)
    with torch.no_grad():
        for weight in student.parameters():
            weight.add_(1.0)
    before = {name: one.clone() for name, one in objective.remember().items()}
    objective.after_step()
    for name, one in objective.remember().items():
        torch.testing.assert_close(one, before[name] + 0.5)
    again = FewSteps(Student(), teach, SCHEDULE, config)
    again.recall(objective.remember())
    assert all(torch.equal(one, objective.remember()[name]) for name, one in again.remember().items())
    assert bool(again.remember()) == (reach == "clean")


def test_a_follower_is_not_trained() -> None:
    student = Student()
    follower = Follower(student, 0.9)
    assert not any(one.requires_grad for one in follower.network.parameters())
    assert all(one.requires_grad for one in student.parameters())


def test_what_cannot_be_taught_is_refused() -> None:
    for wrong in ({"grid": ()}, {"grid": (9,), "substeps": 0}, {"grid": (9,), "decay": 1.0}):
        with pytest.raises(BadConfig):
            FewStepsConfig(**wrong)
    with pytest.raises(BadConfig, match="at most 4"):
        FewSteps(Student(), lambda *_: Asked(NOISE, mixture), SCHEDULE, FewStepsConfig(grid=(9, 5), substeps=5))
    with pytest.raises(BadRequest, match="falling"):
        FewSteps(Student(), lambda *_: Asked(NOISE, mixture), SCHEDULE, FewStepsConfig(grid=(5, 9)))
