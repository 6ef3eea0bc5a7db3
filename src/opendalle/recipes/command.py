"""`python -m opendalle.recipes.NAME`: a recipe from the command line, with nothing but the standard library.

Flags are the recipe's own parameters; their help is the docstring's.
"""

import argparse
import inspect
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

from opendalle.base.errors import BadRequest, OpenDalleError, require
from opendalle.base.records import TrainStep
from opendalle.recipes.places import going_on, runs_beside
from opendalle.recipes.stage import Passage, Recipe, embark
from opendalle.training.config import Upkeep

TELL_SECONDS = 10.0  # between two lines of progress


def main(recipe: Recipe, arguments: Sequence[str] | None = None) -> None:
    """Run a recipe and leave the process.

    0: done, or saved by the clock or the first Ctrl-C; 1: stopped where nothing could be saved; 2: wrong use.

    Args:
        recipe: the function.
        arguments: instead of the command line's.
    """
    asked = vars(_parser(recipe).parse_args(arguments))
    out: Path = asked["out"]
    try:
        passage = _passage(asked)
        _follow(embark(recipe, asked, passage))
    except OpenDalleError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(1)
    print(out if out.exists() else going_on(passage.runs), flush=True)


def _passage(asked: dict[str, Any]) -> Passage:
    """Take from the flags those that every recipe has."""
    threads, resume, warm = asked.pop("threads"), asked.pop("resume"), asked.pop("from")
    upkeep = Upkeep(**{name: asked.pop(name) for name in ("max_minutes", "save_minutes", "show_every", "tensorboard")})
    if warm is not None and resume is not None:
        raise BadRequest("--from and --resume together", "one of them", "A resumed run has its weights already.")
    if threads is not None:
        require(threads >= 1, f"--threads {threads}", "1 or more")
        import torch

        torch.set_num_threads(threads)
    runs = resume if isinstance(resume, Path) else runs_beside(asked["out"])
    return Passage(runs=runs, resume=resume is not None, warm=warm, upkeep=upkeep)


def _follow(steps: Iterable[TrainStep]) -> None:
    """Print how far a run has come, now and then."""
    told = 0.0
    for step in steps:
        if time.monotonic() - told >= TELL_SECONDS or step.saved:
            told = time.monotonic()
            losses = "  ".join(f"{name} {value:.4f}" for name, value in step.losses.items())
            left = f"{step.seconds_left / 60:.0f} min left" if step.seconds_left is not None else ""
            speed = f"{step.pictures_per_second:.0f} pictures/s"
            print(f"{step.stage} {step.pictures:>9,}  {losses}  {speed}  {left}", flush=True)


def _parser(recipe: Recipe) -> argparse.ArgumentParser:
    text = inspect.getdoc(recipe) or ""
    parser = argparse.ArgumentParser(
        prog=f"python -m {recipe.__module__}" if recipe.__module__ != "__main__" else None,
        description=text.split("Args:")[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    told = _told(text)
    hints = get_type_hints(recipe)
    for name, parameter in inspect.signature(recipe).parameters.items():
        flag, required = "--" + name.replace("_", "-"), parameter.default is inspect.Parameter.empty
        if hints[name] is bool:
            parser.add_argument(flag, dest=name, action="store_true", help=told.get(name))
            continue
        parser.add_argument(
            flag,
            dest=name,
            type=_reader(hints[name]),
            required=required,
            default=None if required else parameter.default,
            help=told.get(name),
        )
    parser.add_argument("--from", type=Path, help="begin with the weights of this model: a bundled one, or a folder")
    parser.add_argument(
        "--resume",
        nargs="?",
        type=Path,
        const=True,
        metavar="FOLDER",
        help="go on with these runs, or those beside the model, bit for bit",
    )
    parser.add_argument("--max-minutes", type=float, help="save and stop after so long, all stages together")
    parser.add_argument("--save-minutes", type=float, default=10.0, help="minutes between saves")
    parser.add_argument("--show-every", type=int, default=0, help="pictures between sheets of samples; 0: none")
    parser.add_argument("--tensorboard", action="store_true", help="write TensorBoard events beside the log")
    parser.add_argument("--threads", type=int, help="CPU threads")
    return parser


def _reader(hint: Any) -> Callable[[str], Any]:
    """Return what turns a word of the command line into a parameter's type; `X | None` reads as X."""
    choices = [one for one in get_args(hint) if one is not type(None)]
    return choices[0] if choices else hint


def _told(text: str) -> dict[str, str]:
    """Read the help of each parameter from a docstring's Args section."""
    told: dict[str, str] = {}
    lines = text.partition("Args:")[2].splitlines()
    for line in lines:
        name, colon, rest = line.strip().partition(": ")
        if colon and name.isidentifier():
            told[name] = rest.replace("%", "%%")
    return told
