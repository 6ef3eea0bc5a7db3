"""From names to a study of priors."""

from pathlib import Path

from opendalle.checkpoint.places import find_model
from opendalle.dalle2.pipeline import Dalle2
from opendalle.study.bench import open_bench
from opendalle.study.cells import Study
from opendalle.study.priors.plan import PriorsConfig, priors_study
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
    bench, made = open_bench(model, data=data, judge=judge), None
    if isinstance(bench.subject, Dalle2):
        made = open_twins(bench.subject, find_model(model), data, out, twins)
    return priors_study(bench, config, made)
