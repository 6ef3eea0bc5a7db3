"""A stage: one training run of a recipe, from what lies on disk before it to the model folder that it leaves.

A recipe is a tuple of stages.  Each stage is built only when the run reaches it, since it may read what an earlier one
has written, and a stage whose model is already there is done: so a long recipe can be cut into pieces anywhere.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from PIL import Image

from opendalle.base.errors import BadRequest
from opendalle.base.protocols import Objective
from opendalle.base.records import TrainStep
from opendalle.checkpoint.folder import ModelFolder, read_model
from opendalle.pictures import contact_sheet
from opendalle.training.batches import Batches
from opendalle.training.config import TrainConfig, Upkeep
from opendalle.training.ema import EMA
from opendalle.training.loop import Show, train
from opendalle.training.start import open_run, warm_start


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a stage trains, and how its result is written down."""

    objective: Objective
    batches: Batches
    config: TrainConfig
    finish: Callable[[], ModelFolder]  # called while the modules hold their averages; writes the model folder
    draw: Callable[[], Sequence[Image.Image]] | None = None  # the same pictures each time, to see how far it has come


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One run of a recipe."""

    name: str  # of the run folder, and of the progress line
    out: Path  # the model folder that it leaves
    build: Callable[[], Work]  # called when the run reaches this stage


@dataclass(frozen=True, kw_only=True)
class Passage:
    """How the stages of one command are walked."""

    runs: Path  # where the run folders lie, one a stage
    resume: bool = False  # go on with the run folders that are there
    warm: Path | None = None  # begin with this model's weights, wherever a stage trains one of its parts
    upkeep: Upkeep = field(default_factory=Upkeep)


def walk(stages: Sequence[Stage], passage: Passage) -> Iterator[TrainStep]:
    """Run stages in order and yield every optimiser step.

    Args:
        stages: of a recipe.
        passage: where and how.

    Raises:
        BadRequest: when a run folder is there and nobody asked to resume it.
        BadModel: when a warm start's weights are another network's.
    """
    for stage in stages:
        if (stage.out / "model.json").is_file():
            continue
        for step in _run(stage, passage):
            yield replace(step, stage=stage.name)
        if not (stage.out / "model.json").is_file():  # stopped by the clock or by hand: saved, to be resumed
            return


def _run(stage: Stage, passage: Passage) -> Iterator[TrainStep]:
    work, folder = stage.build(), passage.runs / stage.name
    resume = passage.resume and folder.exists()
    if folder.exists() and not resume:
        raise BadRequest(f"a run in {folder}", "a new folder", "Go on with it by --resume, or delete it.")
    if passage.warm is not None and not resume:
        _begin_warm(work, read_model(passage.warm))
    averages = EMA(work.objective.groups, work.config.ema_halflife, work.config.ema_rampup)
    run = open_run(folder, {"stage": stage.name}, resume=resume)
    try:
        pictures = 0
        steps = train(
            work.objective,
            work.batches,
            work.config,
            run,
            resume=resume,
            upkeep=passage.upkeep,
            ema=averages,
            show=sheets(work, folder / "samples"),
        )
        for step in steps:
            pictures = step.pictures
            yield step
        if pictures >= work.config.pictures or (resume and pictures == 0):
            for module in work.objective.groups.values():
                module.eval()
            with averages.applied():
                work.finish()
    finally:
        run.close()


def sheets(work: Work, folder: Path) -> Show | None:
    """Return what draws a sheet of a run's pictures into its folder, named after the pictures seen so far.

    Args:
        work: whose `draw` is asked; None where it has none.
        folder: made when the first sheet is written.
    """
    draw = work.draw
    if draw is None:
        return None

    def show(pictures: int) -> None:
        was_training = {name: module.training for name, module in work.objective.groups.items()}
        for module in work.objective.groups.values():
            module.eval()
        with torch.no_grad():
            sheet = contact_sheet(draw(), columns=8)
        folder.mkdir(exist_ok=True)
        sheet.save(folder / f"{pictures:09d}.png")
        for name, module in work.objective.groups.items():
            module.train(was_training[name])

    return show


def _begin_warm(work: Work, model: ModelFolder) -> None:
    """Take the weights that a trained model has; groups that it has not (critics, teacher's heads) start afresh."""
    warm_start({name: group for name, group in work.objective.groups.items() if name in model.parts}, model)
