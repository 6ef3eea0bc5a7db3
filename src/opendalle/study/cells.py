"""A study is a list of cells that are measured one by one; what has been measured is kept, whatever happens next.

    book = Notebook(out, study)                    # a new folder, or one that this very study has begun
    seconds = estimate(study, book)                # of each cell, before it starts, from short trials
    for step in carry_out(study, book): ...        # each cell is on disk when its step is yielded

A cell asks a fixed list of questions (or does a fixed piece of work) and leaves one number a question: so any two
cells over the same questions can be compared question by question.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from opendalle.base.errors import require
from opendalle.study.report import Report


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a cell leaves."""

    values: Mapping[str, Sequence[float | None]]  # measure -> one number a question; None where it was not asked
    seconds: Mapping[str, float] = field(default_factory=dict)  # of one piece of work, by its name
    sheets: Mapping[str, Image.Image] = field(default_factory=dict)  # pictures of the first seeds, by name

    def __post_init__(self) -> None:
        lengths = {len(numbers) for numbers in self.values.values()}
        require(len(lengths) <= 1, f"measures of {sorted(lengths)} questions", "one number a question for each")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One thing to measure."""

    name: str  # of its file
    kind: str  # cells of one kind cost alike, question by question
    size: int  # questions
    measure: Callable[[int], Measured]  # on the first so many of its questions
    trial: int = 4  # questions that tell what one costs
    seconds: float | None = None  # what the whole takes, where that is known beforehand; None: a trial tells
    instead: Callable[[int], Measured] | None = None  # tried in its place, where the cell itself cannot be tried yet

    def __post_init__(self) -> None:
        require(self.size >= 1 and self.trial >= 1, f"size {self.size}, trial {self.trial}", "1 or more")


@dataclass(frozen=True, kw_only=True)
class Study:
    """Cells, what they depend on, and what is made of them."""

    name: str  # of the verb
    settings: Mapping[str, Any]  # all that decides its numbers, as plain JSON data
    cells: Sequence[Cell]
    report: Callable[[Mapping[str, Measured]], Report]  # of the cells measured so far
