"""A report as one page: no script, no network; pictures lie beside it.  Readable on a phone, in light and in dark."""

from html import escape
from importlib import resources

from opendalle.evaluation.metrics import Interval
from opendalle.study.charts import COLOURS, svg
from opendalle.study.findings import Finding
from opendalle.study.report import NOTHING, Chart, Entry, Figure, Report, Table, number, said

PICTURES = "pictures"  # the folder beside the page


def page(report: Report) -> str:
    """Write a report as HTML.

    Args:
        report: any.
    """
    style = resources.files("opendalle.study").joinpath("page.css").read_text(encoding="utf-8")
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(report.title)}</title><style>{style}</style></head><body><main>",
        f"<h1>{escape(report.title)}</h1>",
        *(f"<p>{escape(paragraph)}</p>" for paragraph in report.about),
        "<dl>",
        *(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in report.measured.items()),
        "</dl>",
    ]
    if report.findings:
        parts += ["<h2>Findings</h2>", '<div class="findings">', *map(_finding, report.findings), "</div>"]
    parts += [*map(_figure, report.figures), *map(_chart, report.charts), *map(_table, report.tables)]
    if report.limits:
        parts += ["<h2>What this does not say</h2><ul>", *(f"<li>{escape(one)}</li>" for one in report.limits), "</ul>"]
    return "\n".join([*parts, "</main></body></html>"]) + "\n"


def _finding(finding: Finding) -> str:
    claim, kind = finding.claim, finding.verdict.replace(" ", "-")
    note, ours = _note(claim.note), escape(said(finding.difference, signed=True))
    count = f" over {finding.difference.n} prompts" if finding.difference and finding.difference.n else ""
    return (
        f'<article><div class="verdict {kind}">{escape(finding.verdict)}</div><h3>{escape(claim.says)}</h3>'
        f"<p>Theirs: {escape(claim.theirs)} ({escape(claim.where)}).</p>"
        f"<p>Ours: {escape(claim.measured)}: <strong>{ours}</strong>{count}.</p>"
        f"{note}</article>"
    )


def _figure(figure: Figure) -> str:
    shown = "".join(
        f'<figure><figcaption>{escape(told)}</figcaption><img src="{PICTURES}/{escape(file)}" alt="{escape(told)}" '
        'loading="lazy"></figure>'
        for told, file in figure.sheets
    )
    return f"<section><h2>{escape(figure.title)}</h2>{_note(figure.note)}{shown}</section>"


def _chart(chart: Chart) -> str:
    key = "".join(
        f'<span class="line-{row % COLOURS}">{escape(line.name)}</span>' for row, line in enumerate(chart.lines)
    )
    drawn = f'<p class="key">{key}</p>{svg(chart)}'
    return f"<section><h2>{escape(chart.title)}</h2>{_note(chart.note)}{drawn}</section>"


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in table.columns)
    rows = "".join(
        f'<tr><th scope="row">{escape(said(row[0]))}</th>{"".join(f"<td>{_entry(one)}</td>" for one in row[1:])}</tr>'
        for row in table.rows
    )
    body = f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    return f"<section><h2>{escape(table.title)}</h2>{_note(table.note)}{body}</section>"


def _entry(entry: Entry) -> str:
    if not isinstance(entry, Interval):
        return escape(entry if entry is not None else NOTHING)
    if entry.n == 0:
        return escape(said(entry))
    ends = "" if entry.low != entry.low else f"<small>{number(entry.low)} .. {number(entry.high)}</small>"
    return f"{number(entry.value)}{ends}"


def _note(note: str) -> str:
    return f'<p class="note">{escape(note)}</p>' if note else ""
