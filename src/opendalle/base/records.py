"""Named results: what a pipeline yields and what a training loop tells.  No torch."""

import io
from dataclasses import dataclass, field
from typing import Any

from PIL.Image import Image

from opendalle.base.request import Request


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One picture on its way (a preview) or finished, with everything needed to make it again."""

    picture: Image  # RGB or RGBA, eight bits a channel
    request: Request  # what was asked, as it was asked, and what was made of its prompt
    index: int  # which of the request's pictures, from 0
    seed: int  # request.seed + index
    step: int  # decoder steps done
    num_steps: int  # decoder steps in all
    is_preview: bool = False
    recipe: dict[str, Any] = field(default_factory=dict)  # written into the PNG; `generate --again` reads it
    scores: dict[str, float] = field(default_factory=dict)  # what candidates are chosen by, by name; only for studies
    seconds: dict[str, float] = field(default_factory=dict)  # stage -> wall time of the batch this picture was in

    @property
    def revised_prompt(self) -> str:
        """The text that was drawn instead of the prompt; empty if nothing was to be rewritten."""
        return self.request.revised_prompt

    def _repr_png_(self) -> bytes:
        """Let a notebook show the picture."""
        buffer = io.BytesIO()
        self.picture.save(buffer, format="PNG")
        return buffer.getvalue()


@dataclass(frozen=True, kw_only=True)
class TrainStep:
    """What one optimiser step tells the caller of the loop."""

    step: int  # optimiser steps done, from 1
    pictures: int  # pictures seen in all
    losses: dict[str, float]  # name -> value, averaged over the step's micro-batches
    learning_rate: float
    gradient_norm: float  # before clipping
    pictures_per_second: float
    seconds_left: float | None  # until the stage's end, None while unknown
    saved: str | None = None  # the step folder written after this step, if one was
    stage: str = ""  # of the recipe, where there are several
