"""How a diffusion network was trained, and how it is sampled when nobody says otherwise: plain data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from opendalle.base.errors import require
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

    def __post_init__(self) -> None:
        object.__setattr__(self, "noise_power", tuple(self.noise_power))  # JSON gives a list back
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
        self.make_schedule()  # refuses what there is not

    @property
    def clip_range(self) -> tuple[float, float] | None:
        """The range that the data are known to have, lowest and highest."""
        return None if self.clip is None else (-self.clip, self.clip)

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
