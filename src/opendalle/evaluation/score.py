"""A named number with its interval, and how a list of them is written down."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from opendalle.evaluation.metrics import Interval


@dataclass(frozen=True, kw_only=True)
class Score:
    """One line of a report."""

    name: str  # protocol/what, as in `seen/top5`
    value: float
    low: float = math.nan  # ends of the 95 % interval; NaN where there is none
    high: float = math.nan
    n: int = 0  # prompts behind the number
    floor: float | None = None  # what the number is held to; None: shown for comparison only
    of_low: bool = False  # the floor is for the interval's low end, not the value: a difference that must be sure
    note: str = ""

    @property
    def passed(self) -> bool | None:
        """Whether the floor is reached; None without a floor.  A number that is not a number reaches none."""
        if self.floor is None:
            return None
        return bool((self.low if self.of_low else self.value) >= self.floor)


def score_of(
    name: str, interval: Interval, *, floor: float | None = None, of_low: bool = False, note: str = ""
) -> Score:
    """Give an interval a name, and perhaps a floor."""
    return Score(
        name=name,
        value=interval.value,
        low=interval.low,
        high=interval.high,
        n=interval.n,
        floor=floor,
        of_low=of_low,
        note=note,
    )


def write_results(path: Path, scores: Sequence[Score], about: dict[str, Any]) -> None:
    """Write scores as JSON; numbers that are not numbers become null.

    Args:
        path: file to write, replaced as a whole.
        scores: in report order.
        about: what was measured: model, seeds, settings.
    """
    rows = [asdict(score) | {"passed": score.passed} for score in scores]
    for row in rows:
        row.update({key: None for key, value in row.items() if isinstance(value, float) and not math.isfinite(value)})
    text = json.dumps({"about": about, "scores": rows}, indent=1, ensure_ascii=False, allow_nan=False)
    part = path.with_name(path.name + ".part")
    part.write_text(text + "\n", encoding="utf-8")
    part.replace(path)


def table(scores: Iterable[Score]) -> str:
    """Return scores as a plain table, one line each."""
    header = ("", "what", "value", "95 % interval", "n", "floor", "note")
    rows = [header, *(_row(score) for score in scores)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header) - 1)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if column in (0, 1) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=False))
        ]
        lines.append("  ".join([*cells, row[-1]]).rstrip())
    return "\n".join(lines)


def _row(score: Score) -> tuple[str, ...]:
    sign = {True: "ok", False: "LOW", None: ""}[score.passed]
    interval = "" if math.isnan(score.low) else f"{_number(score.low)} .. {_number(score.high)}"
    floor = "" if score.floor is None else ("low end " if score.of_low else "") + _number(score.floor)
    return sign, score.name, _number(score.value), interval, str(score.n or ""), floor, score.note


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}"
