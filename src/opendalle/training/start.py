"""The three ways in which a run begins: afresh, from a trained model (`--from`), or where it was left (`--resume`)."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from opendalle.checkpoint.folder import ModelFolder
from opendalle.checkpoint.run import RunFolder
from opendalle.training.distributed import World
from opendalle.training.learner import load_weights


def open_run(path: Path, about: Mapping[str, Any], *, resume: bool = False, world: World | None = None) -> RunFolder:
    """Open a run folder in every process of a run; only the first one may write.

    Args:
        path: the folder, seen by all processes.
        about: what is being trained, plain data; kept when the run is new.
        resume: the run must exist.
        world: the processes of this run; None: this one alone.

    Raises:
        BadModel: when a run to resume is missing, one to begin exists, or another process writes there.
    """
    world = world or World()
    run = None
    if world.writes:
        run = RunFolder.open(path) if resume else RunFolder.create(path, about)
    world.barrier()  # the others must not look before it exists
    return run or RunFolder.open(path, to_write=False)


def warm_start(groups: Mapping[str, nn.Module], model: ModelFolder, rename: Callable[[str], str] | None = None) -> None:
    """Begin from a trained model's weights, with a new optimiser and a new schedule.

    Args:
        groups: modules by name, which take the weights.
        model: has a part for each group.
        rename: group -> part, where their names differ.

    Raises:
        BadModel: when a part is missing, damaged, or of another config.
    """
    for group, module in groups.items():
        load_weights(module, model.part(rename(group) if rename else group).state(), group)
