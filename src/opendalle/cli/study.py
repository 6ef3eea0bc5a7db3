"""`opendalle study`: what the papers claim, measured again."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from opendalle.base.errors import BadData, BadRequest
from opendalle.cli.asked import RARE, whole_number
from opendalle.cli.console import duration, progress, tell
from opendalle.cli.evaluate import JUDGE

study = App(
    name="study",
    help="Measure again what the papers claim.",
    help_format="plaintext",
    help_epilogue="Example: opendalle study priors dalle2 --data emoji --out priors-study",
)


@study.command(help_epilogue="Example: opendalle study priors dalle2 --data emoji --num 16 --out priors-study")
def priors(
    model: str = "dalle2",
    /,
    *,
    data: Path = Path("emoji"),
    out: Path,
    num: Annotated[int, Parameter(converter=whole_number)] = 64,
    seeds: Annotated[int, Parameter(converter=whole_number)] = 3,
    twins: float | None = None,
    guidances: Annotated[str, Parameter(group=RARE)] = "1,1.5,2,3,4",
    judge: Annotated[str, Parameter(group=RARE)] = JUDGE,
) -> int:
    """Compare every prior that a model has: embeddings, pictures, scenes, diversity, guidance, seconds.

    Results lie in the folder as soon as they are known; the same command goes on where it was stopped.

    Args:
        model: A bundled model, or a model folder.
        data: The emoji world (see opendalle data emoji).
        out: The folder of the study: new, or one that the same command has begun.
        num: Single things drawn with each prior, and half as many scenes of each skill.
        seeds: Drawings of each single thing.
        twins: Also train two decoders, one without picture embeddings, for so many minutes together, and compare them.
        guidances: Scales of decoder and prior guidance, with commas between; 1 is off.
        judge: Who marks the pictures: a bundled judge, or a model folder.

    Returns:
        The exit code.

    Raises:
        BadRequest: when the words do not fit together.
        BadData: when there is no world to ask about.
    """
    try:
        scales = tuple(float(one) for one in guidances.split(","))
    except ValueError:
        raise BadRequest(f"--guidances {guidances}", "numbers with commas between, as 1,2,4") from None
    if twins is not None and not twins > 0:
        raise BadRequest(f"--twins {twins}", "minutes, more than 0")
    if not (data / "manifest.json").is_file():
        raise BadData(
            f"no emoji world at {data}", "one, for the truth is known there", f"opendalle data emoji --out {data}"
        )

    from opendalle.study.notebook import Notebook, check_folder  # torch enters here
    from opendalle.study.priors.opening import open_priors
    from opendalle.study.priors.plan import PriorsConfig
    from opendalle.study.report import text
    from opendalle.study.running import carry_out, estimate

    check_folder(out)
    config = PriorsConfig(num=num, seeds=seeds, guidances=scales)
    plan = open_priors(model, data=data, judge=judge, out=out, config=config, twins=twins)
    book = Notebook(out, plan)
    cost = estimate(plan, book)
    if cost:
        tell(f"{len(cost)} of {len(plan.cells)} cells to measure, about {duration(sum(cost.values()))}")
    done = 0.0
    with progress("seconds of work", round(sum(cost.values()))) as advance:
        for step in carry_out(plan, book):
            done += cost.get(step.name, 0.0)
            advance(round(done), f"{step.done} of {step.total} cells, {step.name}")
    print(text(plan.report({cell.name: book.read(cell.name) for cell in plan.cells})))
    print(out / "index.html")
    return 0
