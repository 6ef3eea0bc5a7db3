"""How an upsampler was trained, and how it is sampled when nobody says otherwise: plain data, for any generation."""

from dataclasses import dataclass

from opendalle.base.errors import require
from opendalle.diffusion.grids import strided
from opendalle.diffusion.predictions import Prediction
from opendalle.diffusion.schedules import schedule_from_name
from opendalle.upsampling.cascade import UpsamplerStage
from opendalle.upsampling.network import Upsampler


@dataclass(frozen=True, kw_only=True)
class UpsamplerSettings:
    """How an upsampler was trained, and its steps."""

    schedule: str = "cosine"  # of its training
    num_train_steps: int = 1000  # of its training
    prediction: Prediction = "x0"  # what it was trained to say
    steps: int = 8  # of DDIM
    clip: float | None = 1.0  # the data lie within +- this; None: no known range

    def __post_init__(self) -> None:
        require(1 <= self.steps <= self.num_train_steps, f"steps is {self.steps}", f"1 to {self.num_train_steps}")
        require(self.clip is None or self.clip > 0, f"clip is {self.clip}", "a positive range, or None")
        schedule_from_name(self.schedule, self.num_train_steps)  # refuses what there is not

    def stage(self, upsampler: Upsampler, base: int) -> UpsamplerStage:
        """Return the upsampler as a stage of a cascade.

        Args:
            upsampler: the network.
            base: side of the small pictures, in pixels.
        """
        return UpsamplerStage(
            upsampler=upsampler,
            base=base,
            schedule=schedule_from_name(self.schedule, self.num_train_steps),
            grid=strided(self.num_train_steps, self.steps),
            prediction=self.prediction,
            clip=self.clip,
        )
