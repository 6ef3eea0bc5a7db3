"""Few-step distillation: a student makes in one stride what its teacher makes in many, guidance included.

The teacher's noiseless path from noise to data (`samplers.ode`, Euler's step, which is DDIM's) is cut at the few
steps that the student will visit.  From a step t the teacher walks a whole stride down to s in small steps, each with
guidance.  What the student is asked to say depends on how far it is to reach:

    stride   the x0 with which one DDIM step from t ends in the teacher's x_s.  Put together, the student's strides are
             the teacher's walk, so the same noise leads towards the same picture.  It has learned its own number of
             steps and no other.
    clean    the end of the path itself: what a slow average of the student says from x_s, and where s is the clean end
             x_s, the teacher's own picture.  One call is then a whole sample; more of them, with fresh noise between
             (`samplers.markov.consistency`), sharpen it, and any of the student's steps may be left out evenly.

Either way the boundary condition holds for every network, since strides are made of a `Denoised` whose x0 and eps
together are x_t: a stride of no length changes nothing.  The student is asked once a step, without a second half for
guidance: the prompt's pull is in its weights.

Networks are unknown here: a `Lesson` asks them.

Source: progressive distillation, Salimans & Ho, arXiv:2202.00512, algorithm 2 and appendix G, here in one round with
    more than two of the teacher's steps; guidance, Meng et al., arXiv:2210.03142, section 3.1, at one scale;
    consistency distillation, Song et al., arXiv:2303.01469, algorithm 2, with guidance and long strides as Luo et al.,
    arXiv:2310.04378, section 4.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from opendalle.base.axes import Steps
from opendalle.base.errors import require
from opendalle.base.protocols import Denoise, Losses
from opendalle.diffusion.grids import check_grid
from opendalle.diffusion.process import q_sample
from opendalle.diffusion.schedules import CLEAN, Schedule, expand_like
from opendalle.training.follower import Follower

Reach = Literal["stride", "clean"]


@dataclass(frozen=True, kw_only=True)
class FewStepsConfig:
    """How a student is distilled."""

    grid: tuple[int, ...]  # the steps that it will visit, falling; the strides end at the next one, the last one clean
    substeps: int = 5  # of the teacher's in a stride; with 4 strides 5 make a walk of 20
    reach: Reach = "stride"  # how far the student's answer leads: to the end of its stride, or to clean data
    decay: float = 0.95  # reach "clean": share of the slow average that a step keeps

    def __post_init__(self) -> None:
        object.__setattr__(self, "grid", tuple(self.grid))  # JSON gives a list back
        require(len(self.grid) > 0, "a grid without steps", "the steps that the student will visit")
        require(self.substeps >= 1, f"substeps is {self.substeps}", "at least 1")
        require(self.reach in get_args(Reach), f"reach {self.reach!r}", "one of " + ", ".join(get_args(Reach)))
        require(0 <= self.decay < 1, f"decay is {self.decay}", "0 <= share < 1")


@runtime_checkable
class Lesson(Protocol):
    """A batch as teacher and student are asked about it: prompts, guidance and prediction kind are inside."""

    @property
    def x0(self) -> Float[Tensor, "b *d"]:
        """Clean data."""
        ...

    @property
    def teacher(self) -> Denoise:
        """The teacher, with guidance."""
        ...

    def ask(self, network: nn.Module) -> Denoise:
        """Put the prompts round the student, or round its average: one call a step."""
        ...


Teach = Callable[[Any, Generator], Lesson]


class FewSteps:
    """Meeting point 2: distil a denoiser to few steps.

    Args:
        student: trained in place; begin with the teacher's weights.
        teach: makes a lesson of a batch.
        schedule: of the teacher's training, and so of the student's.
        config: how.
        name: of the student's parameter group.

    Raises:
        BadConfig: when a stride is too short for so many of the teacher's steps.
        BadRequest: when the grid does not fall, or leaves the schedule.
    """

    def __init__(
        self, student: nn.Module, teach: Teach, schedule: Schedule, config: FewStepsConfig, name: str = "decoder"
    ) -> None:
        check_grid(config.grid, schedule.num_steps)
        self.student, self.teach, self.schedule, self.config, self.name = student, teach, schedule, config, name
        self.walks = torch.tensor([teacher_walk(t, s, config.substeps) for t, s in strides(config.grid)])
        self.average = Follower(student, config.decay) if config.reach == "clean" else None

    @property
    def groups(self) -> Mapping[str, nn.Module]:
        """The student."""
        return {self.name: self.student}

    def __call__(self, batch: Any, rng: Generator) -> Losses:
        """Squared error of the student's answer, each step's counted as an error of the velocity.

        Source: Progressive distillation, arXiv:2202.00512, section 4, weight SNR + 1.
        """
        lesson = self.teach(batch, rng)
        x0 = lesson.x0
        walk = self.walks[torch.randint(len(self.walks), (len(x0),), generator=rng)].to(x0.device)
        eps = torch.randn(x0.shape, generator=rng).to(x0)
        t, s = walk[:, 0], walk[:, -1]
        x_t = q_sample(x0, t, eps, self.schedule)
        wanted = self._wanted(lesson, x_t, walk)
        error = (lesson.ask(self.student)(x_t, t).x0 - wanted).square().flatten(1).mean(1)
        weight = 1 / self.schedule.sigma(t).to(error) ** 2
        return Losses(
            total={self.name: (weight * error).mean()},
            watch={"error": error.mean().item(), "error of the last stride": _mean_where(error, s == CLEAN)},
        )

    @torch.no_grad()
    def _wanted(self, lesson: Lesson, x_t: Float[Tensor, "b *d"], walk: Tensor) -> Float[Tensor, "b *d"]:
        """Return what the student should have said of the clean data."""
        t, s, x_s = walk[:, 0], walk[:, -1], x_t
        for start, end in zip(walk.unbind(1)[:-1], walk.unbind(1)[1:], strict=True):
            x_s = stride(lesson.teacher, x_s, start, end, self.schedule)
        if self.average is None:
            return leading_to(x_s, x_t, t, s, self.schedule)
        said = lesson.ask(self.average.network)(x_s, s.clamp(min=0)).x0
        return torch.where(expand_like(s.double(), x_s) == CLEAN, x_s, said)

    def after_step(self) -> None:
        """Let the average follow the student."""
        if self.average is not None:
            self.average.follow()

    def remember(self) -> Mapping[str, Tensor]:
        """Return what a resumed run needs besides the student: the average; the teacher is loaded anew."""
        return {} if self.average is None else self.average.remember()

    def recall(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the average back.

        Args:
            tensors: from `remember`.
        """
        if self.average is not None:
            self.average.recall(tensors)


def strides(grid: Sequence[int]) -> list[tuple[int, int]]:
    """Return where each stride of a grid begins and ends; the last one ends at the clean end.

    Args:
        grid: falling steps.
    """
    return list(zip(grid, [*grid[1:], CLEAN], strict=True))


def teacher_walk(t: int, s: int, substeps: int) -> list[int]:
    """Return the steps that a teacher visits within a stride, both ends included, evenly spaced.

    Args:
        t: where the stride begins.
        s: where it ends; -1 is the clean end.
        substeps: of the teacher's.

    Raises:
        BadConfig: when the stride has not so many steps.
    """
    require(t - s >= substeps, f"{substeps} substeps from step {t} to {s}", f"at most {t - s}")
    return [t - round(k * (t - s) / substeps) for k in range(substeps + 1)]


def stride(denoise: Denoise, x_t: Float[Tensor, "b *d"], t: Steps, s: Steps, schedule: Schedule) -> Tensor:
    """Walk from step t down to step s with the beliefs of the start; from t to t nothing changes.

    Args:
        denoise: whose beliefs.
        x_t: data at step t.
        t: where each begins.
        s: where it ends; -1 is the clean end.
        schedule: signal and noise scales.

    Source: DDIM, arXiv:2010.02502, eq. 12 with eta 0.
    """
    believed = denoise(x_t, t)
    return q_sample(believed.x0, s, believed.eps, schedule)


def leading_to(
    x_s: Float[Tensor, "b *d"], x_t: Float[Tensor, "b *d"], t: Steps, s: Steps, schedule: Schedule
) -> Tensor:
    """Return the x0 with which one stride from x_t ends in x_s.

    Args:
        x_s: where it ends.
        x_t: where it begins.
        t: step of the beginning.
        s: step of the end, below t; -1 is the clean end.
        schedule: signal and noise scales.

    Source: Progressive distillation, arXiv:2202.00512, appendix G, eq. 43.
    """
    noise = schedule.sigma(s) / schedule.sigma(t)  # of x_t that is left at the end, where x0 is nothing
    signal = schedule.alpha(s) - schedule.alpha(t) * noise
    return expand_like(1 / signal, x_s) * x_s - expand_like(noise / signal, x_t) * x_t


def _mean_where(values: Float[Tensor, " b"], where: Tensor) -> float:
    return values[where].mean().item() if bool(where.any()) else 0.0
