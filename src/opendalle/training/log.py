"""The record of a run: one JSON line a step, TensorBoard when asked for, and a line for people."""

import json
import math
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from opendalle.base.errors import MissingExtra
from opendalle.base.records import TrainStep
from opendalle.checkpoint.files import replace_file

LOG = "log.jsonl"


class RunLog:
    """Appends steps to RUN/log.jsonl, and to RUN/tensorboard when asked.

    Args:
        folder: the run folder; None: nothing is written (no run folder, or not the first process).
        after_step: the step the run goes on from; lines of later steps, which a crash left behind, are dropped.
        after_pictures: the same place, in pictures, along which TensorBoard draws.
        tensorboard: also write TensorBoard events.

    Raises:
        MissingExtra: when TensorBoard is asked for and not installed.
    """

    def __init__(
        self, folder: Path | None, after_step: int = 0, after_pictures: int = 0, tensorboard: bool = False
    ) -> None:
        self._file: TextIO | None = None
        self._board: Any = None
        if folder is None:
            return
        _drop_after(folder / LOG, after_step)
        self._board = _summary_writer(folder / "tensorboard", after_pictures) if tensorboard else None
        self._file = (folder / LOG).open("a", encoding="utf-8", buffering=1)  # by lines: `tail -f` shows each step

    def write(self, step: TrainStep) -> None:
        """Write one step.

        Args:
            step: what the loop yields.
        """
        if self._file is not None:
            self._file.write(json.dumps(to_plain(step), ensure_ascii=False) + "\n")
        if self._board is not None:
            for name, value in step.losses.items():
                self._board.add_scalar(f"loss/{name}", value, step.pictures)
            self._board.add_scalar("learning_rate", step.learning_rate, step.pictures)
            self._board.add_scalar("gradient_norm", step.gradient_norm, step.pictures)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()


def to_plain(step: TrainStep) -> dict[str, Any]:
    """Return a step as the plain data of one log line.

    Args:
        step: what the loop yields.
    """
    seconds_left = None if step.seconds_left is None else round(step.seconds_left, 1)
    return {
        "step": step.step,
        "pictures": step.pictures,
        **{f"loss/{name}": value for name, value in step.losses.items()},
        "learning_rate": step.learning_rate,
        "gradient_norm": step.gradient_norm,
        "pictures_per_second": round(step.pictures_per_second, 2),
        "seconds_left": seconds_left,
        **({"saved": step.saved} if step.saved else {}),
    }


def in_words(step: TrainStep, total: int) -> str:
    """Return one line for people.

    Args:
        step: what the loop yields.
        total: pictures of the whole run.
    """
    losses = "  ".join(f"{name} {value:.4g}" for name, value in step.losses.items())
    line = f"{step.pictures:,}/{total:,} pictures  {losses}  rate {step.learning_rate:.2e}"
    line += f"  {step.pictures_per_second:.3g}/s"
    if step.seconds_left is not None:
        line += f"  {duration(step.seconds_left)} left"
    return line + (f"  saved {Path(step.saved).name}" if step.saved else "")


def duration(seconds: float) -> str:
    """Return a length of time as people say it: `40 s`, `3 min`, `2 h 05 min`.

    Args:
        seconds: 0 or more.
    """
    if seconds < 60:
        return f"{math.ceil(seconds)} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


def _drop_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = []
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            keep = line.endswith(b"\n") and int(json.loads(line)["step"]) <= step
        except (ValueError, KeyError, TypeError):
            keep = False  # a crash cut the line short
        kept += [line] if keep else []
    replace_file(path, b"".join(kept))


def _summary_writer(folder: Path, after_pictures: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MissingExtra("tensorboard", "train") from None
    return SummaryWriter(str(folder), purge_step=after_pictures + 1 if after_pictures else None)
