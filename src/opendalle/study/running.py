"""Measuring a study's cells one by one, and saying beforehand how long that will take."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from opendalle.study.cells import Measured, Study
from opendalle.study.notebook import Notebook

REPORT_SECONDS = 60.0  # between two reports on the way


@dataclass(frozen=True, kw_only=True)
class CellDone:
    """A cell that has been measured, now or by an earlier run."""

    name: str
    done: int  # cells measured so far
    total: int  # cells in all
    seconds: float  # that it took now; 0 for one that was there


def estimate(study: Study, book: Notebook) -> dict[str, float]:
    """Return about how many seconds each cell will take that is not measured yet.

    The first such cell of each kind is tried on a few questions, and the others of its kind are taken to cost as much a
    question.  Nothing of the trial is kept.

    Args:
        study: its cells.
        book: knows which of them are done.
    """
    seconds, cost = dict[str, float](), dict[str, float]()
    for cell in study.cells:
        if book.has(cell.name):
            continue
        if cell.seconds is not None:
            seconds[cell.name] = cell.seconds
            continue
        if cell.kind not in cost:
            few, began = min(cell.trial, cell.size), time.perf_counter()
            (cell.instead or cell.measure)(few)
            cost[cell.kind] = (time.perf_counter() - began) / few
        seconds[cell.name] = cost[cell.kind] * cell.size
    return seconds


def carry_out(study: Study, book: Notebook) -> Iterator[CellDone]:
    """Measure the cells that are not measured yet, in order; the report is written now and then, and when it ends.

    It is also written when the work is stopped, by Ctrl-C or by no longer iterating: of what has been measured.

    Args:
        study: what to measure.
        book: where it is kept.
    """
    measured: dict[str, Measured] = {cell.name: book.read(cell.name) for cell in study.cells if book.has(cell.name)}
    written = time.perf_counter()
    try:
        for number, cell in enumerate(study.cells, start=1):
            seconds = 0.0
            if cell.name not in measured:
                began = time.perf_counter()
                book.write(cell.name, cell.measure(cell.size))
                measured[cell.name] = book.read(cell.name)  # as a later run will find it
                seconds = time.perf_counter() - began
                if time.perf_counter() - written > REPORT_SECONDS:
                    book.write_report(study.report(measured))
                    written = time.perf_counter()
            yield CellDone(name=cell.name, done=number, total=len(study.cells), seconds=seconds)
    finally:
        book.write_report(study.report(measured))
