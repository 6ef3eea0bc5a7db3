"""`opendalle evaluate`: does a model draw what it is asked?"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opendalle.base.errors import BadData, BadModel, BadRequest
from opendalle.cli.console import one_line, progress
from opendalle.pictures import refuse_existing

if TYPE_CHECKING:
    from opendalle.evaluation.score import Score


def evaluate(
    model: str = "dalle2", /, *, data: Path = Path("emoji"), out: Path | None = None, num: int | None = None
) -> int:
    """Score a model, and print each score with its 95 % interval as it comes.

    Args:
        model: A bundled model, or a model folder.
        data: The emoji world (see opendalle data emoji), or any folder of captioned pictures.
        out: Also write scores and sheets of the first pictures into this folder; must not exist.
        num: Only the first questions of every protocol, for a quick look.

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
        refuse_existing(out)

    from opendalle import pretrained  # torch enters here

    pipeline, done = pretrained.load(model), 0
    scores = _on_world if (data / "manifest.json").is_file() else _on_folder
    with progress("scoring", None) as advance:
        for score in scores(pipeline, data, out, num):
            print(_line(score), flush=True)
            done += 1
            advance(done, score.name)
    if out is not None:
        print(out)
    return 0


def _line(score: "Score") -> str:
    interval = "" if score.low != score.low else f"  {score.low:.4f} .. {score.high:.4f}"  # NaN: no interval
    floor = "" if score.floor is None else f"  floor {score.floor:.4f} {'reached' if score.passed else 'MISSED'}"
    return f"{score.name:<40} {score.value:.4f}{interval}{floor}  {one_line(score.note)}".rstrip()


def _on_folder(pipeline: Any, data: Path, out: Path | None, num: int | None) -> "Iterator[Score]":
    from opendalle.data.folder import FolderSet, FolderSetConfig
    from opendalle.evaluation.runner import JUDGED_SIZE, evaluate_set

    yield from evaluate_set(pipeline, FolderSet(data, FolderSetConfig(size=JUDGED_SIZE)), num=num or 200, out=out)


def _on_world(pipeline: Any, data: Path, out: Path | None, num: int | None) -> "Iterator[Score]":
    from opendalle import pretrained
    from opendalle.data.emoji.world import World
    from opendalle.evaluation.questions import emoji_paper
    from opendalle.evaluation.runner import evaluate as examine

    world = World(data)
    try:
        judge_256 = pretrained.load("judge-256-emoji")
    except BadModel:  # not shipped: its rows are left out of the report
        judge_256 = None
    paper = emoji_paper(world) if num is None else emoji_paper(world, num, num)
    yield from examine(pipeline, world=world, judge=pretrained.load("judge"), judge_256=judge_256, paper=paper, out=out)
