"""Whole training runs as functions: each returns a tuple of stages, and each is a command of its own.

    python -m opendalle.recipes.codec --data world --out codec-emoji

needs neither cyclopts nor rich.  `opendalle train codec --data FOLDER --out MODEL` is the same run behind the front
door.
"""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from opendalle.base.errors import BadRequest
from opendalle.base.records import TrainStep

RECIPES = (
    "captioner",
    "clip",
    "codec",
    "dalle1",
    "dalle2",
    "dalle3",
    "dvae",
    "judge",
    "priors",
    "sentences",
    "upsampler",
    "vqgan",
)  # module and function have the same name

__all__ = ["RECIPES", "run"]


def run(
    name: str,
    *,
    data: Path,
    out: Path,
    warm_start: str | Path | None = None,
    resume: Path | None = None,
    max_minutes: float | None = None,
    show_every: int = 0,
    tensorboard: bool = False,
    **settings: Any,
) -> Iterator[TrainStep]:
    """Run a recipe, stage after stage, and yield every optimiser step.

    Args:
        name: one of RECIPES.
        data: the picture set's folder.
        out: the model folder to write.
        warm_start: begin with the weights of this model.
        resume: go on with the runs in this folder, or with this run of it, bit for bit; what they began from is known.
        max_minutes: save and stop after so long, all stages together.
        show_every: pictures between sheets of samples in the run folder; 0: none.
        tensorboard: write TensorBoard events beside the log.
        **settings: the recipe's own parameters.

    Raises:
        BadRequest: when there is no such recipe.
    """
    if name not in RECIPES:
        raise BadRequest(f"the recipe {name!r}", "one of " + ", ".join(RECIPES))
    from opendalle.recipes.places import runs_beside
    from opendalle.recipes.stage import Passage, embark
    from opendalle.training.config import Upkeep

    recipe = getattr(importlib.import_module(f"opendalle.recipes.{name}"), name)
    passage = Passage(
        runs=resume or runs_beside(out),
        resume=resume is not None,
        warm=warm_start,
        upkeep=Upkeep(max_minutes=max_minutes, show_every=show_every, tensorboard=tensorboard),
    )
    yield from embark(recipe, {"data": data, "out": out, **settings}, passage)
