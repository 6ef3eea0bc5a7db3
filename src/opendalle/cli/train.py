"""`opendalle train`: one of the recipes, on any captioned pictures."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from opendalle.base.errors import BadRequest
from opendalle.cli.asked import RARE, whole_number
from opendalle.cli.console import duration, progress, tell
from opendalle.pictures import refuse_unwritable


def train(
    recipe: str,
    /,
    *,
    data: Path,
    out: Path,
    warm_start: Annotated[str | None, Parameter(name="--from")] = None,
    resume: Path | None = None,
    max_minutes: float | None = None,
    show_every: Annotated[int, Parameter(group=RARE, converter=whole_number)] = 0,
    tensorboard: Annotated[bool, Parameter(group=RARE)] = False,
) -> int:
    """Train a model on your own captioned pictures: every stage of a recipe, in order.

    The first Ctrl-C ends it as --max-minutes does: it finishes its step, saves and says how to go on.

    Args:
        recipe: Which recipe, as dalle2; each stage alone is a recipe too.
        data: A folder of pictures, each with its caption in a .txt file of the same name.
        out: The model folder to write; must not exist.
        warm_start: Begin with the weights of this model, under a new optimiser.
        resume: Go on, bit for bit, with the runs in this folder (MODEL.runs), or with one of them.
        max_minutes: Save and stop after so many minutes, all stages together; --resume goes on.
        show_every: Pictures between sheets of samples, drawn into the run folder; 0 for none.
        tensorboard: Write TensorBoard events beside the run's log.

    Returns:
        The exit code: 0 also for a run that has saved itself to be resumed.

    Raises:
        BadRequest: when the words do not fit together.
    """
    if warm_start is not None and resume is not None:
        raise BadRequest("--from and --resume together", "one of them", "A resumed run has its weights already.")
    if max_minutes is not None and not max_minutes > 0:
        raise BadRequest(f"--max-minutes {max_minutes}", "more than 0")
    if show_every < 0:
        raise BadRequest(f"--show-every {show_every}", "0 (none) or a number of pictures")
    if not data.exists():
        raise BadRequest(f"no picture set at {data}", "a folder of pictures with captions in .txt files")
    refuse_unwritable(out)

    from opendalle import recipes  # torch enters here
    from opendalle.recipes.places import going_on, runs_beside

    steps = recipes.run(
        recipe,
        data=data,
        out=out,
        warm_start=warm_start,
        resume=resume,
        max_minutes=max_minutes,
        show_every=show_every,
        tensorboard=tensorboard,
    )
    with progress(f"training {recipe}", None) as advance:
        for step in steps:
            losses = "  ".join(f"{name} {value:.4f}" for name, value in step.losses.items())
            left = f", {duration(step.seconds_left)} left" if step.seconds_left is not None else ""
            advance(step.pictures, f"pictures  {step.stage}  {losses}  {step.pictures_per_second:.0f} pictures/s{left}")
    if out.exists():
        print(out)
    else:  # stopped by the clock or by hand
        tell(going_on(resume or runs_beside(out)))
    return 0
