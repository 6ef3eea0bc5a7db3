"""What a study says: findings, tables, charts and pictures, as plain records; and as text and JSON.

The page is made of the same records by `page`, so nothing is said in one place that the others do not say.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from opendalle.base.errors import require
from opendalle.evaluation.metrics import Interval
from opendalle.study.findings import Finding

Entry = str | Interval | None  # a word, a number with its interval, or nothing that was measured
NOTHING = "–"


@dataclass(frozen=True, kw_only=True)
class Table:
    """Numbers in rows; the first entry of a row is its name."""

    name: str  # of the numbers in results.json
    title: str
    note: str = ""  # what the columns mean
    columns: Sequence[str]  # their headings, that of the names first
    rows: Sequence[Sequence[Entry]]

    def __post_init__(self) -> None:
        lengths = {len(row) for row in self.rows} - {len(self.columns)}
        require(not lengths, f"rows of {sorted(lengths)} entries", f"{len(self.columns)}, one a column")


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a chart."""

    name: str
    points: Sequence[tuple[float, float, str]]  # x, y and what is written beside


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Lines over two axes."""

    title: str
    note: str = ""
    x: str  # what the axes are
    y: str
    doubles: bool = False  # whether each step along x doubles it
    lines: Sequence[Line]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Sheets of pictures, one below the other."""

    title: str
    note: str = ""
    sheets: Sequence[tuple[str, str]]  # what it shows, and its file in the folder of pictures


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that a study says."""

    title: str
    about: Sequence[str]  # paragraphs: what was compared, and how
    measured: Mapping[str, str]  # what it was measured on: model, world, judge, numbers
    findings: Sequence[Finding] = ()
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()
    figures: Sequence[Figure] = ()
    limits: Sequence[str] = ()  # what nobody should conclude


def known_rows(rows: Sequence[Sequence[Entry]]) -> list[Sequence[Entry]]:
    """Leave out rows of which nothing is known yet.

    Args:
        rows: of a table; the first entry is the name.
    """
    return [row for row in rows if any(one is not None for one in row[1:])]


def paragraphs(words: str) -> list[str]:
    """Return the paragraphs of a text, each on one line.

    Args:
        words: with an empty line between paragraphs.
    """
    return [" ".join(one.split()) for one in words.strip().split("\n\n")]


def number(value: float) -> str:
    """Write a number to three places, or to three digits where it is large."""
    if not math.isfinite(value):
        return NOTHING
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}"


def said(entry: Entry, *, signed: bool = False) -> str:
    """Write an entry of a table on one line.

    Args:
        entry: what stands there.
        signed: whether a number is a difference, and shows its sign.
    """
    if entry is None:
        return NOTHING
    if isinstance(entry, str):
        return entry
    if entry.n == 0:
        return "no prompt counts"
    sign = "+" if signed and entry.value > 0 else ""
    ends = "" if math.isnan(entry.low) else f" ({number(entry.low)} .. {number(entry.high)})"
    return f"{sign}{number(entry.value)}{ends}"


def text(report: Report) -> str:
    """Write a report as plain text, for a terminal.

    Args:
        report: any.
    """
    parts = [report.title, "=" * len(report.title)]
    parts += [f"{name}: {value}" for name, value in report.measured.items()]
    parts += ["", *report.about, ""]
    if report.findings:
        parts += ["Findings", "--------"]
        for finding in report.findings:
            claim = finding.claim
            parts.append(f"{finding.verdict.upper()}: {claim.says}")
            parts.append(f"    theirs: {claim.theirs} ({claim.where})")
            parts.append(f"    ours: {claim.measured}: {said(finding.difference, signed=True)}")
            parts += [f"    {claim.note}"] if claim.note else []
        parts.append("")
    for table in report.tables:
        parts += [table.title, "-" * len(table.title)]
        parts += [table.note] if table.note else []
        parts += [aligned(table), ""]
    return "\n".join([*parts, *(f"* {limit}" for limit in report.limits)]).rstrip()


def aligned(table: Table) -> str:
    """Write a table in columns of plain text.

    Args:
        table: any.
    """
    rows = [tuple(table.columns), *(tuple(said(entry) for entry in row) for row in table.rows)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(table.columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def results(report: Report) -> dict[str, Any]:
    """Return a report as plain data; numbers that are not numbers become null.

    Args:
        report: any.
    """
    findings = [
        {
            **{name: value for name, value in asdict(one.claim).items() if value != ""},
            "ours": _plain(one.difference),
            "verdict": one.verdict,
        }
        for one in report.findings
    ]
    tables = {
        table.name: [
            {column: _plain(entry) for column, entry in zip(table.columns, row, strict=True)} for row in table.rows
        ]
        for table in report.tables
    }
    return {"title": report.title, "measured": dict(report.measured), "findings": findings, "tables": tables}


def _plain(entry: Entry) -> Any:
    if not isinstance(entry, Interval):
        return entry
    numbers = {"value": entry.value, "low": entry.low, "high": entry.high}
    return {name: one if math.isfinite(one) else None for name, one in numbers.items()} | {"n": entry.n}
