"""How a diffusion network was trained, and how it is sampled when nobody says otherwise: plain data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from opendalle.base.errors import BadRequest, require
from opendalle.diffusion.grids import even_snr, fast27, karlo, strided
from opendalle.diffusion.predictions import Prediction
from opendalle.diffusion.schedules import Schedule, schedule_from_name
from opendalle.samplers.course import Variance


@dataclass(frozen=True, kw_only=True)
class StageSettings:
    """How one diffusion network of a cascade was trained, and how it is sampled when nobody says otherwise."""

    schedule: str = "cosine"  # of its training
    num_train_steps: int = 1000  # of its training
    prediction: Prediction = "eps"  # what it was trained to say
    sampler: str = "ddim"  # best at few steps, by bench/generate.py
    steps: int = 20  # the fewest within 1 % of the best, by bench/generate.py
    spacing: Literal["trailing", "karlo", "fast27", "even-snr"] = "trailing"  # which steps are visited
    guidance: float = 1.0  # 1 is off
    clip: float | None = None  # the data lie within +- this; None: no known range
    variance: Variance = "fixed-small"  # of the ddpm sampler
    noise_power: Sequence[float] = ()  # for variance "analytic": one number a training step; see measure_noise_power
    taught_steps: Sequence[int] = ()  # of a student of few steps: the numbers of steps that it can make; none: any
    taught_guidance: float = 1.0  # of a student: the scale of its teacher's guidance, which is in its weights

    def __post_init__(self) -> None:
        for name in ("noise_power", "taught_steps"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # JSON gives a list back
        require(1 <= self.steps <= self.num_train_steps, f"steps is {self.steps}", f"1 to {self.num_train_steps}")
        require(self.guidance >= 0, f"guidance is {self.guidance}", "at least 0; 1 is off")
        require(self.clip is None or self.clip > 0, f"clip is {self.clip}", "a positive range, or None")
        require(
            len(self.noise_power) in (0, self.num_train_steps),
            f"{len(self.noise_power)} numbers of noise_power",
            f"none, or one for each of {self.num_train_steps} training steps",
        )
        known = ("trailing", "karlo", "fast27", "even-snr")
        require(self.spacing in known, f"spacing is {self.spacing!r}", "one of " + ", ".join(known))
        fits = not self.taught_steps or (self.steps in self.taught_steps and self.guidance == 1)
        came = f"{self.steps} steps and guidance {self.guidance:g} of a student of {self.taught_steps}"
        require(fits, came, "steps that it was taught, and guidance 1: its teacher's is in its weights")
        self.make_schedule()  # refuses what there is not

    def refuse_untaught(self, steps: int | None, guidance: float | None, sampler: str | None) -> None:
        """Refuse what the network was not trained for.

        Args:
            steps: asked for; None: as the settings say.
            guidance: asked for; None: as the settings say.
            sampler: asked for; None: as the settings say.

        Raises:
            BadRequest: naming what it can do.
        """
        if steps is not None and steps > self.num_train_steps:
            raise BadRequest(f"steps is {steps}", f"at most {self.num_train_steps}, as many as were trained")
        if not self.taught_steps:
            return
        another = "Ask the model that it was distilled from."
        if steps is not None and steps not in self.taught_steps:
            known = " or ".join(map(str, self.taught_steps))
            raise BadRequest(f"steps is {steps}", f"{known}, as this model of few steps was taught", another)
        if guidance is not None and guidance not in (1.0, self.taught_guidance):
            wanted = f"{self.taught_guidance:g}, which is in the weights of this model of few steps"
            raise BadRequest(f"guidance is {guidance:g}", wanted, another)
        if sampler is not None and sampler != self.sampler:
            raise BadRequest(f"sampler {sampler!r}", f"{self.sampler}, as this model of few steps was taught", another)

    @property
    def clip_range(self) -> tuple[float, float] | None:
        """The range that the data are known to have, lowest and highest."""
        return None if self.clip is None else (-self.clip, self.clip)

    def scale(self, guidance: float | None) -> float:
        """Return the guidance to sample with; a student's is in its weights.

        Args:
            guidance: asked for; None: as the settings say.
        """
        return self.guidance if guidance is None or self.taught_steps else guidance

    def make_schedule(self) -> Schedule:
        """Build the schedule of its training."""
        return schedule_from_name(self.schedule, self.num_train_steps)

    def grid(self, schedule: Schedule, steps: int | None) -> tuple[int, ...]:
        """Choose the steps to visit; None: as many as the settings say."""
        steps = self.steps if steps is None else steps
        if self.spacing == "fast27" and steps == 27:
            return fast27(self.num_train_steps)
        if self.spacing == "even-snr":
            return even_snr(schedule, steps)
        return (karlo if self.spacing == "karlo" else strided)(self.num_train_steps, steps)
