"""`opendalle evaluate`: does a model draw what it is asked, and does a captioner say what it sees?"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from opendalle.base.errors import BadData, BadModel, BadRequest
from opendalle.cli.asked import whole_number
from opendalle.cli.captioning import CAPTIONER, open_captioner
from opendalle.cli.console import one_line, progress
from opendalle.pictures import refuse_unwritable

if TYPE_CHECKING:
    from opendalle.evaluation.score import Score

JUDGE = "judge"  # the bundled one
ALIKE = 4  # pictures that it takes to say whether drawings lie where they lie


evaluate = App(
    name="evaluate",
    help="Score a model, and print each score with its 95 % interval as it comes.",
    help_format="plaintext",
    help_epilogue="Example: opendalle evaluate dalle2 --data emoji --out report",
)


@evaluate.default
def pictures(
    model: str = "dalle2",
    /,
    *,
    data: Path = Path("emoji"),
    out: Path | None = None,
    num: Annotated[int | None, Parameter(converter=whole_number)] = None,
    judge: str = JUDGE,
) -> int:
    """Score a model, and print each score with its 95 % interval as it comes.

    Args:
        model: A bundled model, or a model folder.
        data: The emoji world (see opendalle data emoji), or any folder of captioned pictures.
        out: Also write scores and sheets of the first pictures into this folder; must not exist.
        num: Only the first questions of every protocol, for a quick look.
        judge: Who marks the emoji world: a bundled judge, or a model folder.

    Returns:
        The exit code.

    Raises:
        BadRequest: when the words do not fit together.
        BadData: when there are no pictures to compare with.
    """
    if num is not None and num < 1:
        raise BadRequest(f"--num {num}", "1 or more")
    if not data.is_dir():
        raise BadData(
            f"no folder {data}", "the emoji world or captioned pictures", f"opendalle data emoji --out {data}"
        )
    if out is not None:
        refuse_unwritable(out)

    from opendalle import pretrained  # torch enters here

    pipeline = pretrained.load_pipeline(model)
    is_world = (data / "manifest.json").is_file()
    print_scores(_on_world(pipeline, data, out, num, judge) if is_world else _on_folder(pipeline, data, out, num))
    if out is not None:
        print(out)
    return 0


@evaluate.command(help_epilogue="Example: opendalle evaluate captions --data emoji --model captioner --out report")
def captions(
    *,
    data: Path = Path("emoji"),
    model: str = CAPTIONER,
    out: Path | None = None,
    num: Annotated[int | None, Parameter(converter=whole_number)] = None,
) -> int:
    """Score a captioner on composed scenes, of which all is known, and on things in styles that are new to it.

    Args:
        data: The emoji world (see opendalle data emoji).
        model: A bundled captioner, or a model folder.
        out: Also write scores and all captions into this folder; must not exist.
        num: Only so many scenes of each kind, and so many things, for a quick look.

    Returns:
        The exit code.

    Raises:
        BadRequest: when the words do not fit together.
        BadData: when there is no world to ask about.
    """
    if num is not None and num < 1:
        raise BadRequest(f"--num {num}", "1 or more")
    if not (data / "manifest.json").is_file():
        todo = f"opendalle data emoji --out {data}"
        raise BadData(f"no emoji world at {data}", "one, for the truth is known there", todo)
    if out is not None:
        refuse_unwritable(out)

    captioner, _ = open_captioner(model)  # torch enters here
    from opendalle.data.emoji.world import World
    from opendalle.evaluation.caption_exam import CaptionExamConfig, examine_captioner

    config = CaptionExamConfig() if num is None else CaptionExamConfig(num_names=num, num_scenes=num)
    print_scores(examine_captioner(captioner, world=World(data), config=config, out=out))
    if out is not None:
        print(out)
    return 0


def print_scores(scores: "Iterator[Score]") -> None:
    """Print each score as it comes.

    Args:
        scores: of an examination, or a report.
    """
    with progress("scoring", None) as advance:
        for done, score in enumerate(scores, start=1):
            print(_line(score), flush=True)
            advance(done, score.name)


def _line(score: "Score") -> str:
    interval = "" if score.low != score.low else f"  {score.low:.4f} .. {score.high:.4f}"  # NaN: no interval
    floor = "" if score.floor is None else f"  floor {score.floor:.4f} {'reached' if score.passed else 'MISSED'}"
    return f"{score.name:<40} {score.value:.4f}{interval}{floor}  {one_line(score.note)}".rstrip()


def _on_folder(pipeline: Any, data: Path, out: Path | None, num: int | None) -> "Iterator[Score]":
    from opendalle.data.folder import FolderSet, FolderSetConfig
    from opendalle.evaluation.runner import JUDGED_SIZE, evaluate_set

    pictures, num = FolderSet(data, FolderSetConfig(size=JUDGED_SIZE)), num or 200
    if min(num, len(pictures)) < ALIKE:
        raise BadData(f"{min(num, len(pictures))} pictures to compare with", f"{ALIKE} or more, in {data} and by --num")
    yield from evaluate_set(pipeline, pictures, num=num, out=out)


def _on_world(pipeline: Any, data: Path, out: Path | None, num: int | None, judge: str) -> "Iterator[Score]":
    from opendalle import pretrained
    from opendalle.data.emoji.world import World
    from opendalle.evaluation.judge import Judge
    from opendalle.evaluation.questions import emoji_paper
    from opendalle.evaluation.runner import evaluate as examine

    world = World(data)
    if judge == JUDGE and "judge-emoji" not in pretrained.bundled_models():
        todo = f"Train one: opendalle train judge --data {data} --out judge-emoji"
        raise BadModel("no judge, for none is bundled", "the folder of one, by --judge", todo)
    marks = pretrained.load(judge)
    if not isinstance(marks, Judge):
        raise BadModel(f"--judge {judge}, which judges nothing", "a model that the recipe judge has trained")
    try:
        judge_256 = pretrained.load("judge-256-emoji")
    except BadModel:  # not shipped: its rows are left out of the report
        judge_256 = None
    paper = emoji_paper(world) if num is None else emoji_paper(world, num, num)
    yield from examine(pipeline, world=world, judge=marks, judge_256=judge_256, paper=paper, out=out)
