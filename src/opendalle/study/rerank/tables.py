"""The report of this study: findings, choices, curves and tables, of whatever has been measured so far."""

from collections.abc import Mapping, Sequence
from typing import Any

from opendalle.study.cells import Measured
from opendalle.study.questions import GROUPS, SCENES, SINGLE, WORDS
from opendalle.study.report import Chart, Entry, Figure, Line, Report, Table, known_rows, paragraphs
from opendalle.study.rerank.claims import findings
from opendalle.study.rerank.measures import CLIP, GAIN, GRADE, LIKELIHOOD, RIGHT, SHOWN, SHUFFLED, chosen
from opendalle.study.rerank.readings import ORACLE, RANDOM, SCORES, Readings, cell_of

ABOUT = """
A model can draw many candidates of one caption and hand out the best. Here candidates are drawn once, each is scored by
all that could choose among them, and each is marked by a judge that never chose.

From n scored candidates the expected quality of the best of k is exact for every k up to n: it is the mean over all
k-subsets, and no lots are drawn. Candidates of equal score are chosen among by lot.

CLIP chooses by likeness of picture and caption; likelihood by log p(picture | caption) of the model itself; gain by
what the caption adds, so less log p(picture). Random is any candidate; "CLIP, other caption" is likeness to another
prompt's caption; the oracle takes the candidate that judge or rules mark best, a ceiling.

Numbers stand with their 95 % interval over prompts. A verdict is read off the interval of the paired difference: a
claim holds when all of it lies on the claim's side of 0, and cannot be told when it touches 0. The intervals are not
widened for there being many of them: of twenty differences that are none, one is expected to look like one.
"""
LIMITS = """
These are small networks in a small world of drawings. What holds here was not measured on photographs, and what fails
here may be the size.

An interval says how much other prompts would change a number, not how much another training run would, nor other
seeds: the candidates of a prompt were drawn once.

The judge says whether a thing can be recognised, not whether a picture is beautiful. The row of the oracle is what the
judge itself would choose, so it holds the judge's errors, too: nobody can be above it, and nobody need reach it.

The best of all n candidates rests on one draw of n a prompt; of fewer, every subset counts.
"""
TOLD: Mapping[str, str] = {
    CLIP: "CLIP",
    LIKELIHOOD: "likelihood",
    GAIN: "gain",
    RANDOM: "random",
    SHUFFLED: "CLIP, other caption",
    ORACLE: "oracle",
}
ASKED: Mapping[str, tuple[str, tuple[str, ...]]] = {"single": ("Single things", SINGLE), SCENES: ("Scenes", (SCENES,))}
MEASURED: Mapping[tuple[str, str], str] = {
    ("single", RIGHT): "right by the judge's first guess",
    ("single", GRADE): "the judge's probability of the right name",
    (SCENES, RIGHT): "all that was asked is there",
    (SCENES, GRADE): "share of what was asked that is there",
}


class Pages:
    """Makes the report.

    Args:
        measured: cell -> what it left.
        sizes: group -> how many questions are asked of it.
        candidates: of each question.
        prompts: first questions of every group, for captions of sheets.
        told: what was measured on.
    """

    def __init__(
        self,
        measured: Mapping[str, Measured],
        sizes: Mapping[str, int],
        candidates: int,
        prompts: Mapping[str, Sequence[str]],
        told: Mapping[str, Any],
    ) -> None:
        self.readings, self.candidates = Readings(measured, sizes, candidates), candidates
        self.prompts, self.told = prompts, told
        self.ks = [2**power for power in range(candidates.bit_length()) if 2**power < candidates] + [candidates]

    def report(self) -> Report:
        """Return the whole report."""
        tables = [table for kind in ASKED for table in self._of(kind)]
        charts = [self._chart(kind, measure) for kind, measure in MEASURED]
        return Report(
            title="Which candidate is best?",
            about=paragraphs(ABOUT),
            measured={name: str(value) for name, value in self.told.items()},
            findings=findings(self.readings),
            tables=[table for table in (*tables, self._groups(), self._seconds()) if table.rows],
            charts=[chart for chart in charts if any(line.points for line in chart.lines)],
            figures=[figure for figure in map(self._figure, GROUPS) if figure.sheets],
            limits=paragraphs(LIMITS),
        )

    def _of(self, kind: str) -> list[Table]:
        """Return what each score gives at each k, and how much more that is than any candidate."""
        (title, groups), readings, tables = ASKED[kind], self.readings, list[Table]()
        columns = ("chosen by", *(f"best of {k}" for k in self.ks))
        for measure in (RIGHT, GRADE):
            told = MEASURED[kind, measure]
            means: list[Sequence[Entry]] = [
                [TOLD[score], *(readings.mean(score, k, measure, groups) for k in self.ks)] for score in SCORES
            ]
            above: list[Sequence[Entry]] = [
                [TOLD[score], *(readings.over(score, RANDOM, k, measure, groups) for k in self.ks)]
                for score in SCORES
                if score != RANDOM
            ]
            for name, words, note, rows in (
                ("", told, "Mean over prompts.", means),
                ("-over-random", f"{told}, above any candidate", "Difference by prompt from random.", above),
            ):
                table = Table(
                    name=f"{kind}-{measure}{name}",
                    title=f"{title}: {words}",
                    note=note,
                    columns=columns,
                    rows=known_rows(rows),
                )
                tables.append(table)
        return tables

    def _groups(self) -> Table:
        """Return the ends of the curves, group by group."""
        columns = ["prompts", "artwork", "any candidate"]
        columns += [f"best of {self.candidates} by {TOLD[score]}" for score in (CLIP, LIKELIHOOD, GAIN, ORACLE)]
        rows: list[Sequence[Entry]] = []
        for group in GROUPS:
            ends = [self.readings.mean(RANDOM, 1, RIGHT, (group,))]
            ends += [
                self.readings.mean(score, self.candidates, RIGHT, (group,))
                for score in (CLIP, LIKELIHOOD, GAIN, ORACLE)
            ]
            rows.append([WORDS[group], self.readings.truth((group,), RIGHT), *ends])
        note = "Right: the judge's first guess, or all that was asked of a scene. Artwork: the true pictures."
        return Table(name="groups", title="Group by group", note=note, columns=columns, rows=known_rows(rows))

    def _seconds(self) -> Table:
        works = ("drawing", "own scores", CLIP)
        rows: list[Sequence[Entry]] = [
            [WORDS[group], *(self.readings.seconds((group,), work) for work in works)] for group in GROUPS
        ]
        return Table(
            name="seconds",
            title="Seconds a candidate",
            note="Wall time: drawing 64 px, the model's own two scores (two passes over all words), CLIP.",
            columns=("prompts", "drawing", "likelihood and gain", "CLIP"),
            rows=known_rows(rows),
        )

    def _chart(self, kind: str, measure: str) -> Chart:
        title, groups = ASKED[kind]
        lines = []
        for score in SCORES:
            found = [(k, self.readings.mean(score, k, measure, groups)) for k in self.ks]
            lines.append(Line(name=TOLD[score], points=[(float(k), one.value, "") for k, one in found if one]))
        return Chart(
            title=f"{title}: {MEASURED[kind, measure]}",
            note="Means; their intervals stand in the tables.",
            x="candidates to choose from",
            y=MEASURED[kind, measure],
            doubles=True,
            lines=[line for line in lines if line.points],
        )

    def _figure(self, group: str) -> Figure:
        cells = [(prompt, cell_of(group, place)) for place, prompt in enumerate(self.prompts[group][:SHOWN])]
        known = [(prompt, cell) for prompt, cell in cells if cell in self.readings.measured]
        names = list(chosen(self.readings.measured[known[0][1]].values)) if known else []
        by = ", ".join(TOLD.get(name, name) for name in names)
        return Figure(
            title=f"First prompts: {WORDS[group]}",
            note=f"Nothing is picked by hand. A row a prompt; from left, chosen by: {by}.",
            sheets=[(prompt, f"{cell}.png") for prompt, cell in known],
        )
