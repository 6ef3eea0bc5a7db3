"""How an upsampler was trained, and how it is sampled when nobody says otherwise: plain data, for any generation."""

from dataclasses import dataclass

from opendalle.diffusion.predictions import Prediction
from opendalle.samplers.settings import StageSettings
from opendalle.upsampling.cascade import UpsamplerStage
from opendalle.upsampling.network import Upsampler


@dataclass(frozen=True, kw_only=True)
class UpsamplerSettings(StageSettings):
    """How an upsampler was trained, and how it is sampled: a stage like any other, with what ours have as defaults."""

    prediction: Prediction = "x0"  # what it was trained to say
    steps: int = 2  # more of them make edges up, and take decibels away: bench/upscaling.py
    clip: float | None = 1.0  # the data lie within +- this; None: no known range


def chained(base: int, *links: tuple[Upsampler | None, UpsamplerSettings | None]) -> tuple[UpsamplerStage, ...]:
    """Return the upsamplers that are there as stages, each for what the one before it draws.

    Args:
        base: side of the pictures that the first one enlarges, in pixels.
        *links: networks with their settings, from the smallest pictures on; one without the other counts for none.
    """
    found = list[UpsamplerStage]()
    for upsampler, settings in links:
        if upsampler is None or settings is None:
            continue
        schedule = settings.make_schedule()
        stage = UpsamplerStage(
            upsampler=upsampler,
            base=base,
            schedule=schedule,
            grid=settings.grid(schedule, None),
            prediction=settings.prediction,
            clip=settings.clip,
        )
        found.append(stage)
        base *= stage.factor
    return tuple(found)
