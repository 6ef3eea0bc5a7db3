"""Where the run folders of a model lie, what they say of themselves, and which of them `--resume` means."""

import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from opendalle.base.errors import BadRequest
from opendalle.checkpoint.files import read_json
from opendalle.data.embeddings import short_stamp

RUN = "run.json"


def say(text: str) -> None:
    """Tell the person something that is no result."""
    print(text, file=sys.stderr, flush=True)


def runs_beside(out: Path) -> Path:
    """Return where the run folders of a model lie: beside it, so that they are found again."""
    return out.parent / f"{out.name}.runs"


def is_begun(run: Path) -> bool:
    """Whether a run has begun in a folder."""
    return (run / RUN).is_file()


def about(run: Path) -> dict[str, Any]:
    """Return what a run folder says of its run."""
    return read_json(run / RUN).get("about", {})


def going_on(runs: Path) -> str:
    """Say how a command that was stopped goes on.

    Args:
        runs: where its run folders lie.
    """
    if is_begun(runs) or any(runs.glob(f"*/{RUN}")):
        return f"saved in {runs}; go on with --resume {runs}"
    return "stopped before the first step; the same command goes on"


def runs_of(folder: Path, names: Collection[str]) -> Path:
    """Return the folder that holds a recipe's runs, from what was given to `--resume`.

    Args:
        folder: that folder, or one of the runs in it.
        names: of the recipe's stages.

    Raises:
        BadRequest: when it is missing, or holds no run of one of these stages.
    """
    wanted, todo = f"the folder with its runs ({', '.join(names)})", "To begin a new run, leave out --resume."
    if not folder.is_dir():
        raise BadRequest(f"no folder {folder} to resume", f"{wanted}, as MODEL.runs", todo)
    if is_begun(folder):
        whole = folder.resolve()
        if whole.name not in names or about(folder).get("stage") != whole.name:
            raise BadRequest(f"{folder}, a run of {about(folder).get('stage')!r}", wanted, todo)
        return whole.parent
    if not any(is_begun(folder / name) for name in names):
        raise BadRequest(f"{folder}, which holds no run of this recipe", wanted, todo)
    return folder


def warm_model_of(folder: Path) -> str | None:
    """Return the model that the runs in a folder began from, since `--resume` is not told again.

    Args:
        folder: what was given to `--resume`.
    """
    runs = [folder] if is_begun(folder) else sorted(path.parent for path in folder.glob(f"*/{RUN}"))
    return next((str(warm) for run in runs if (warm := about(run).get("from"))), None)


def refuse_other_data(run: Path, stamps: Mapping[str, str]) -> None:
    """Raise unless a run was begun with this data; one that does not say goes on.

    Args:
        run: its folder.
        stamps: what the data are made of, each with its hash or setting.

    Raises:
        BadRequest: naming what is different.
    """
    begun = about(run).get("data", {})
    different = [name for name in begun if begun[name] != stamps.get(name)]
    if different:
        came = ", ".join(
            f"{name} {short_stamp(stamps.get(name, 'unknown'))} (begun with {short_stamp(begun[name])})"
            for name in different
        )
        raise BadRequest(f"a resume of {run} with {came}", "what it was begun with", "To change it, begin a new run.")
