"""Who is examined, on what, by whom: what every study of a model begins with."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opendalle.base.errors import BadModel
from opendalle.base.protocols import Pipeline
from opendalle.checkpoint.folder import read_model
from opendalle.data.emoji.world import World
from opendalle.evaluation.judge import Judge
from opendalle.pretrained.kinds import find_model, load_folder, load_pipeline


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A model, the world that it is asked about, and its judge."""

    subject: Pipeline
    world: World
    judge: Judge
    told: Mapping[str, Any]  # what decides the numbers besides the study's config: names and hashes, as plain JSON data


def open_bench(model: str | Path, *, data: Path, judge: str | Path) -> Bench:
    """Load a model, the world and the judge, and say which they are.

    Args:
        model: a bundled name, or a folder.
        data: the emoji world.
        judge: a bundled name, or a folder.

    Raises:
        BadModel: when there is no such model, or no such judge.
    """
    subject, marks = load_pipeline(model), read_model(find_model(judge))
    loaded = load_folder(marks)
    if not isinstance(loaded, Judge):
        todo = f"Train one: opendalle train judge --data {data} --out judge-emoji"
        raise BadModel(f"{judge}, which judges nothing", "a model that the recipe judge has trained", todo)
    world, folder = World(data), read_model(find_model(model))
    told = {
        "model": f"{folder.path.resolve().name} {folder.sha256[:12]}",
        "world": f"{len(world.concepts)} things, {world.stamp[:12]}",
        "judge": f"{marks.path.resolve().name} {marks.sha256[:12]}",
    }
    return Bench(subject=subject, world=world, judge=loaded, told=told)
