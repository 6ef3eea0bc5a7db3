"""What a person sees: results on standard output, one per line; progress and errors on standard error.

On a terminal long work shows a bar with the time left; anywhere else it prints plain lines, seldom enough for a log.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PLAIN_SECONDS = 10.0  # between two lines of progress in a log


def one_line(text: str) -> str:
    """Make any text safe for one line of a terminal: spaces collapsed, control characters shown as escapes."""
    plain = " ".join(text.split())
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape", "backslashreplace").decode() for one in plain
    )


def tell(text: str) -> None:
    """Say something to the person, not to the program that reads our output."""
    print(f"opendalle: {one_line(text)}", file=sys.stderr, flush=True)


def lenient_output() -> None:
    """Let any file name be printed, even one that is not valid Unicode or not in the terminal's alphabet."""
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
        print(one_line(f"{what} {done}{f'/{total}' if total else ''}{left} {note}"), file=sys.stderr, flush=True)

    return advance
