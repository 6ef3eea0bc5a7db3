"""What a person sees: results on standard output, one per line; progress and errors on standard error.

On a terminal long work shows a bar with the time left; anywhere else it prints plain lines, seldom enough for a log.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

PLAIN_SECONDS = 10.0  # between two lines of progress in a log
LINE_CHARACTERS = 2_000  # of what is told; a stranger's file may name something longer


def one_line(text: str) -> str:
    """Make any text safe for one line of a terminal: spaces collapsed, control characters shown as escapes."""
    plain = " ".join(text.split())
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape", "backslashreplace").decode() for one in plain
    )


def tell(text: str) -> None:
    """Say something to the person, not to the program that reads our output."""
    line = one_line(text)
    _say(f"opendalle: {line if len(line) <= LINE_CHARACTERS else line[:LINE_CHARACTERS] + ' ...'}")


def _say(line: str) -> None:
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:  # nobody can be told that nobody can be told
        drop(sys.stderr)


def drop(stream: TextIO) -> None:
    """Send a stream nowhere from now on, with what it still holds back.

    Args:
        stream: standard output or standard error, whose reader has gone or whose disk is full.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def open_streams() -> None:
    """Make standard output and standard error fit for whatever comes.

    One that was closed before we began (`>&-`) leads nowhere: left closed, it would be the next file that we open, and
    our words would go into a picture.  Any file name can be printed, even one that is not valid Unicode or not in the
    terminal's alphabet.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - open to the end
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            unicode = (stream.encoding or "").lower().replace("-", "") == "utf8"
            reconfigure(errors="surrogateescape" if unicode else "backslashreplace")


def duration(seconds: float) -> str:
    """Write a time in the two largest units that matter, as `3 min 20 s`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Callable[[int, str], None]]:
    """Show how far some work is.

    Args:
        what: the work, in a word or two.
        total: how many steps it has; None while nobody knows.

    Yields:
        Callable: `advance(done, note)`, told of steps done in all and a few words about the latest.
    """
    if not sys.stderr.isatty():
        yield _plain(what, total)
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = [SpinnerColumn(), TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
    columns += [TimeRemainingColumn(), TextColumn("{task.description}")]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda done, note: bar.update(task, completed=done, description=escape(one_line(note)))


def _plain(what: str, total: int | None) -> Callable[[int, str], None]:
    began = said = time.monotonic()

    def advance(done: int, note: str) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said < PLAIN_SECONDS:
            return
        said = now
        left = f", {duration((now - began) / done * (total - done))} left" if total and done else ""
        _say(one_line(f"{what} {done}{f'/{total}' if total else ''}{left} {note}"))

    return advance
