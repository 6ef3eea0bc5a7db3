"""`opendalle study`: what the papers claim, measured again."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from opendalle.base.errors import BadData, BadRequest
from opendalle.cli.asked import RARE, whole_number
from opendalle.cli.console import duration, progress, tell
from opendalle.cli.evaluate import JUDGE

if TYPE_CHECKING:
    from opendalle.study.cells import Study

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
    _check_world(data)

    from opendalle.study.notebook import check_folder  # torch enters here
    from opendalle.study.priors.opening import open_priors
    from opendalle.study.priors.plan import PriorsConfig

    check_folder(out)
    config = PriorsConfig(num=num, seeds=seeds, guidances=scales)
    plan = open_priors(model, data=data, judge=judge, out=out, config=config, twins=twins)
    return _measure(plan, out)


@study.command(help_epilogue="Example: opendalle study rerank dalle1 --data emoji --candidates 64 --out rerank-study")
def rerank(
    model: str = "dalle2",
    /,
    *,
    data: Path = Path("emoji"),
    out: Path,
    num: Annotated[int, Parameter(converter=whole_number)] = 64,
    candidates: Annotated[int, Parameter(converter=whole_number)] = 32,
    judge: Annotated[str, Parameter(group=RARE)] = JUDGE,
) -> int:
    """Compare what could choose among many candidates of a prompt: CLIP, the model's own likelihood, controls.

    Results lie in the folder as soon as they are known; the same command goes on where it was stopped.

    Args:
        model: A bundled model, or a model folder.
        data: The emoji world (see opendalle data emoji).
        out: The folder of the study: new, or one that the same command has begun.
        num: Single things that are drawn, and half as many scenes of each skill.
        candidates: Pictures drawn of each prompt; the curve says what the best of 1, 2, 4, ... of them is worth.
        judge: Who marks the pictures: a bundled judge, or a model folder.

    Returns:
        The exit code.

    Raises:
        BadData: when there is no world to ask about.
    """
    _check_world(data)

    from opendalle.study.notebook import check_folder  # torch enters here
    from opendalle.study.rerank.plan import RerankConfig, open_rerank

    check_folder(out)
    config = RerankConfig(num=num, candidates=candidates)
    return _measure(open_rerank(model, data=data, judge=judge, config=config), out)


def _check_world(data: Path) -> None:
    """Refuse a folder that is no emoji world, before anything is loaded.

    Args:
        data: the folder.

    Raises:
        BadData: when no world lies there.
    """
    if not (data / "manifest.json").is_file():
        raise BadData(
            f"no emoji world at {data}", "one, for the truth is known there", f"opendalle data emoji --out {data}"
        )


def _measure(plan: "Study", out: Path) -> int:
    """Say how long it will take, measure, and print the report."""
    from opendalle.study.notebook import Notebook
    from opendalle.study.report import text
    from opendalle.study.running import carry_out, estimate

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
