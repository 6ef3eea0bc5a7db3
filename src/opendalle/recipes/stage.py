"""A stage: one training run of a recipe, from what lies on disk before it to the model folder that it leaves.

A recipe is a tuple of stages.  Each stage is built only when the run reaches it, since it may read what an earlier one
has written, and a stage whose model is already there is done: so a long recipe can be cut into pieces anywhere.
"""

import inspect
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from opendalle.base.errors import BadModel, BadRequest
from opendalle.base.protocols import Objective
from opendalle.base.records import TrainStep
from opendalle.checkpoint.folder import ModelFolder, read_model
from opendalle.checkpoint.places import SHORT_FOR, bundled_folder, find_model
from opendalle.pictures import contact_sheet, refuse_existing
from opendalle.recipes.places import is_begun, refuse_other_data, runs_of, say, warm_model_of
from opendalle.training.batches import Batches
from opendalle.training.config import TrainConfig, Upkeep
from opendalle.training.ema import EMA
from opendalle.training.loop import Show, train
from opendalle.training.moments import InputMoments
from opendalle.training.start import open_run, warm_start
from opendalle.training.stop import Stop

BROUGHT = ("like", "tokenizer_of")  # parameters of recipes that a warm start stands in for
WATCHED = (
    48  # batches, at most as many as it learned from, on which a network is watched before its weights are rounded
)
Recipe = Callable[..., tuple["Stage", ...]]


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a stage trains, and how its result is written down."""

    objective: Objective
    batches: Batches
    config: TrainConfig
    finish: Callable[[], ModelFolder]  # called while the modules hold their averages; writes the model folder
    begin: Callable[[], None] | None = None  # fills the fresh network; a save or a warm start would overwrite it
    draw: Callable[[], Sequence[Image.Image]] | None = None  # the same pictures each time, to see how far it has come
    moments: InputMoments | None = None  # filled before `finish`, which stores weights by it


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What a stage computes at once, without a run: there is nothing to resume, and no step to tell of."""

    finish: Callable[[], ModelFolder]  # computes and writes the model folder


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One run of a recipe."""

    name: str  # of the run folder, and of the progress line
    part: str  # of its model, and of a warm start's: the network that it trains
    out: Path  # the model folder that it leaves
    stamps: Callable[[], Mapping[str, str]]  # what its data are made of; a resumed run must have the same
    build: Callable[[], Work | Fit]  # called when the run reaches this stage
    prepare: Callable[[Callable[[], bool]], bool] | None = None  # before `build`; asks whether to stop, says if done


@dataclass(frozen=True, kw_only=True)
class Passage:
    """How the stages of one command are walked."""

    runs: Path  # where the run folders lie, one a stage; for a resume also one of them
    resume: bool = False  # go on with the run folders that are there
    warm: str | Path | None = None  # begin with this model's weights, wherever a stage trains one of its parts
    upkeep: Upkeep = field(default_factory=Upkeep)  # its minutes are those of all stages together


def embark(recipe: Recipe, settings: Mapping[str, Any], passage: Passage) -> Iterator[TrainStep]:
    """Set a recipe's parameters, walk its stages and yield every optimiser step.

    A warm start brings what goes with its weights: a DALL·E 2 its siblings, a CLIP its tokenizer.

    Args:
        recipe: the function.
        settings: its parameters.
        passage: where and how.

    Raises:
        BadModel: when there is no such model to begin from.
    """
    warm = find_model(passage.warm) if passage.warm is not None else None
    if warm is None and passage.resume and (begun_from := warm_model_of(passage.runs)) is not None:
        with suppress(BadModel):  # one that is gone is missed by those alone who have not begun
            warm = find_model(begun_from)
        warm = warm or Path(begun_from)
    if warm is not None:
        known = inspect.signature(recipe).parameters
        brought = {name: warm for name in BROUGHT if name in known and settings.get(name) is None}
        settings = {**settings, **brought}
    yield from walk(recipe(**settings), replace(passage, warm=warm))


def walk(stages: Sequence[Stage], passage: Passage) -> Iterator[TrainStep]:
    """Run stages in order and yield every optimiser step.

    Args:
        stages: of a recipe.
        passage: where and how.

    Raises:
        BadRequest: when a run folder is there and nobody asked to resume it, or it cannot be resumed, or something
            else lies where a model is to be written.
        BadModel: when a warm start's weights are another network's.
    """
    left = [stage for stage in stages if not _is_done(stage)]
    for stage in stages:
        if stage not in left:
            say(f"{stage.name}: nothing to do, the model {stage.out} is there")
    if left and passage.resume:
        passage = replace(passage, runs=runs_of(passage.runs, [stage.name for stage in stages]))
        _refuse_gap(left, passage)
    if passage.warm is not None and any(not is_begun(passage.runs / stage.name) for stage in left):
        _refuse_stranger(stages, read_model(find_model(passage.warm)))
    minutes = passage.upkeep.max_minutes
    deadline = math.inf if minutes is None else time.monotonic() + 60 * minutes
    for number, stage in enumerate(left):
        if number and time.monotonic() >= deadline:
            return
        for step in _run(stage, passage, deadline):
            yield replace(step, stage=stage.name)
        if not _is_done(stage):  # stopped by the clock or by hand: saved, to be resumed
            return


def _is_done(stage: Stage) -> bool:
    """Whether a stage's model is there; whatever else lies in its place is refused before hours of work."""
    if not (stage.out / "model.json").is_file():
        refuse_existing(stage.out)
        return False
    model = read_model(stage.out)
    if stage.part not in model.parts:
        raise BadRequest(f"{stage.out}, a model of kind {model.kind!r}", f"a name that is free for {stage.name}")
    return True


def _refuse_gap(left: Sequence[Stage], passage: Passage) -> None:
    """Refuse to begin a stage afresh while a later one has begun: that one knows another model in its place."""
    afresh: str | None = None
    for stage in left:
        if not is_begun(passage.runs / stage.name):
            afresh = afresh or stage.name
        elif afresh is not None:
            raise BadRequest(
                f"a resume of {passage.runs} that would begin {afresh} afresh, though {stage.name} has begun",
                f"the same command as before, with the {afresh} that it had",
            )


def _refuse_stranger(stages: Sequence[Stage], model: ModelFolder) -> None:
    if not any(stage.part in model.parts for stage in stages):
        raise BadRequest(
            f"{model.path} of kind {model.kind!r}, with {', '.join(sorted(model.parts))}, to begin from",
            "a model with " + " or ".join(stage.part for stage in stages),
        )


def _run(stage: Stage, passage: Passage, deadline: float) -> Iterator[TrainStep]:
    folder = passage.runs / stage.name
    resume = passage.resume and is_begun(folder)
    if folder.exists() and not passage.resume:
        raise BadRequest(f"a run in {folder}", "a new folder", f"Go on with it by --resume {passage.runs}.")
    stamps = dict(stage.stamps())
    if resume:
        refuse_other_data(folder, stamps)
    if stage.prepare is not None:
        with Stop(_minutes_until(deadline)) as stop:
            if not stage.prepare(lambda: stop.wanted):
                return
    work, begun_from = stage.build(), None
    if isinstance(work, Fit):
        work.finish()
        return
    warm = read_model(find_model(passage.warm)) if passage.warm is not None and not resume else None
    is_begun_warm = warm is not None and stage.part in warm.parts
    if work.config.pictures == 0 and not is_begun_warm:
        raise BadRequest(f"{stage.name} with 0 pictures", "at least 1", "Or name the model whose weights stay: --from.")
    if work.begin is not None and not resume and not is_begun_warm:
        work.begin()
    if warm is not None:
        begun_from = _name(warm.path)
        _begin_warm(work, warm)
    averages = EMA(work.objective.groups, work.config.ema_halflife, work.config.ema_rampup)
    run = open_run(folder, {"stage": stage.name, "data": stamps, "from": begun_from}, resume=resume)
    try:
        pictures = 0
        steps = train(
            work.objective,
            work.batches,
            work.config,
            run,
            resume=resume,
            upkeep=replace(passage.upkeep, max_minutes=_minutes_until(deadline)),
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
                if work.moments is not None:
                    learned = -(-work.config.pictures // work.config.batch_size) or WATCHED
                    work.moments.gather(work.objective, work.batches, min(WATCHED, learned), work.config.seed)
                work.finish()
    finally:
        run.close()


def _minutes_until(deadline: float) -> float | None:
    """Return what is left, never nothing: a stage that has been reached makes a step before it is saved."""
    return None if deadline == math.inf else max((deadline - time.monotonic()) / 60, 1e-9)


def _name(model: Path) -> str:
    """Name a model so that it is found again: bundled ones move with the package."""
    return model.name.removesuffix(SHORT_FOR) if model.parent == bundled_folder() else str(model.resolve())


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
