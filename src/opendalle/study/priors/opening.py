"""From names to a study: load the model, the world and the judge, and say what its numbers depend on."""

from pathlib import Path

from opendalle.base.errors import BadModel
from opendalle.checkpoint.folder import read_model
from opendalle.data.emoji.world import World
from opendalle.evaluation.judge import Judge
from opendalle.pretrained.kinds import find_model, load_folder, load_pipeline
from opendalle.study.cells import Study
from opendalle.study.priors.plan import Bench, PriorsConfig, priors_study
from opendalle.study.priors.twins import open_twins


def open_priors(
    model: str | Path,
    *,
    data: Path,
    judge: str | Path,
    out: Path,
    config: PriorsConfig,
    twins: float | None = None,
) -> Study:
    """Plan the comparison of a model's priors.

    Args:
        model: a bundled name, or a folder.
        data: the emoji world.
        judge: a bundled name, or a folder.
        out: the folder of the study, where twins are trained.
        config: how much is measured.
        twins: minutes that two decoders are trained for; None: only those that the folder has already.

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
    bench = Bench(subject=subject, world=world, judge=loaded, told=told)
    return priors_study(bench, config, open_twins(subject, folder.path, data, out, twins))
