"""The report of this study: findings, pictures, curves and tables, of whatever has been measured so far."""

from collections.abc import Mapping, Sequence
from typing import Any

from opendalle.evaluation.metrics import Interval
from opendalle.study.cells import Measured
from opendalle.study.pairing import mean
from opendalle.study.priors.claims import DECODER, PRIOR, TEXT_TWIN, TWIN, findings
from opendalle.study.priors.readings import (
    OF_RIGHT,
    OWN,
    Readings,
    draw_cell,
    embed_cell,
    guide_cell,
    near_cell,
    truth_cell,
)
from opendalle.study.questions import GROUPS, SCENES, SINGLE, SKILLS, WORDS
from opendalle.study.report import Chart, Entry, Figure, Line, Report, Table, known_rows, paragraphs

ABOUT = """
A prior stands between the caption and the decoder: it imagines the CLIP embedding that a picture of the caption could
have. Here every prior of one model is asked the same questions with the same seeds, and differs from the others in
nothing else.

Numbers stand with their 95 % interval over prompts. A verdict is read off the interval of the paired difference: a
claim holds when all of it lies on the claim's side of 0, and cannot be told when it touches 0. The intervals are not
widened for there being many of them: of twenty differences that are none, one is expected to look like one.
"""
LIMITS = """
These are small networks in a small world of drawings. What holds here was not measured on photographs, and what fails
here may be the size.

Every prior was trained once. An interval says how much other prompts would change a number, not how much another
training run would.

The judge says whether a thing can be recognised, not whether a picture is beautiful. Its errors are the same for all
priors; the row of artwork shows what it says of true pictures.

Diversity is the mean distance between drawings of one caption, in features of the judge, which guided no drawing, and
of a network with random weights; 1 is the distance between artworks of two different things. Failures are diverse, too.
"""
ARTWORK = "artwork"


class Pages:
    """Makes the report.

    Args:
        measured: cell -> what it left.
        arms: the model's priors.
        guidances: of the curves.
        prompts: first questions of every group, for captions of sheets.
        told: what was measured on.
    """

    def __init__(
        self,
        measured: Mapping[str, Measured],
        arms: Sequence[str],
        guidances: Sequence[float],
        prompts: Mapping[str, Sequence[str]],
        told: Mapping[str, Any],
    ) -> None:
        self.readings, self.arms, self.guidances, self.prompts, self.told = (
            Readings(measured),
            arms,
            guidances,
            prompts,
            told,
        )

    def report(self) -> Report:
        """Return the whole report."""
        embeddings = [self._embeddings(group) for group in GROUPS]
        tables = [self._single(), self._scenes(), self._differences(), *self._curves(), self._twins(), *embeddings]
        return Report(
            title="The priors of DALL·E 2, compared",
            about=paragraphs(ABOUT),
            measured={name: _plain(value) for name, value in self.told.items()},
            findings=findings(self.readings, (min(self.guidances), max(self.guidances))),
            tables=[table for table in tables if table.rows],
            charts=[chart for chart in self._charts() if any(line.points for line in chart.lines)],
            figures=[figure for figure in self._figures() if figure.sheets],
            limits=paragraphs(LIMITS),
        )

    def _single(self) -> Table:
        readings = self.readings
        columns = (
            "prior",
            "right, held out",
            "right, seen",
            "within five",
            "asked style",
            "diversity",
            "random features",
        )
        rows: list[list[Entry]] = []
        for arm in (ARTWORK, *self.arms):
            cells = [truth_cell(group) if arm == ARTWORK else draw_cell(group, arm) for group in SINGLE]
            row: list[Entry] = [arm, *(readings.mean(cell, "top1") for cell in cells)]
            for measure in ("top5", "style"):
                found = [readings.of(cell, measure) for cell in cells]
                row.append(mean(*(one for one in found if one is not None)) if all(found) else None)
            for measure in ("diversity", "diversity-random"):
                found = None if arm == ARTWORK else readings.all_of(arm, measure)
                row.append(None if found is None else mean(found))
            seconds = None if arm == ARTWORK else readings.seconds(cells, "picture")
            rows.append([*row, seconds])
        return Table(
            name="single",
            title="Pictures of single things",
            note="Share of drawings that the judge names rightly by its first guess, within five guesses, and in "
            "the style asked for; distance between the drawings of one caption; seconds a picture of 64 px.",
            columns=(*columns, "seconds"),
            rows=known_rows(rows),
        )

    def _scenes(self) -> Table:
        rows: list[list[Entry]] = []
        for arm in (ARTWORK, *self.arms):
            cell = truth_cell(SCENES) if arm == ARTWORK else draw_cell(SCENES, arm)
            seconds = None if arm == ARTWORK else self.readings.seconds([cell], "picture")
            rows.append([arm, *(self.readings.mean(cell, skill) for skill in SKILLS), seconds])
        return Table(
            name="scenes",
            title="Scenes of two things",
            note="Share of scenes in which both things are there, stand as asked, and have their own colours, by "
            "rules. Relations and colours are of combinations that training never showed.",
            columns=("prior", *SKILLS, "seconds"),
            rows=known_rows(rows),
        )

    def _differences(self) -> Table:
        measures = {
            "cosine": "cosine",
            "finds its picture": "first",
            "right": "top1",
            "within five": "top5",
            "diversity": "diversity",
            "random features": "diversity-random",
            "diversity where right": OF_RIGHT,
        } | {skill: skill for skill in SKILLS}
        rows: list[list[Entry]] = [
            [arm, *(self.readings.against(arm, OWN, measure) for measure in measures.values())]
            for arm in self.arms
            if arm != OWN
        ]
        return Table(
            name="against-diffusion",
            title="Every prior against diffusion, prompt by prompt",
            note="Its number less that of the diffusion prior for the same prompts and seeds. An interval without 0 "
            "is a difference. Diversity where right: only of prompts that both draw recognisably every time.",
            columns=("prior", *measures),
            rows=known_rows(rows),
        )

    def _embeddings(self, group: str) -> Table:
        readings = self.readings
        rows: list[list[Entry]] = [[ARTWORK, None, None, None, readings.mean(near_cell(group), "nearness"), None]]
        for arm in self.arms:
            cell = embed_cell(group, arm)
            measures = [readings.mean(cell, measure) for measure in ("cosine", "first", "five", "nearness")]
            rows.append([arm, *measures, readings.seconds([cell], "embedding")])
        count = next((one.n for row in rows for one in row if isinstance(one, Interval)), 0)
        return Table(
            name=f"embeddings-{group}",
            title=f"Embeddings of {WORDS[group]}",
            note=f"Cosine to the true picture's embedding; share whose own picture is the nearest, or among the five "
            f"nearest, of {count}; cosine to the caption; seconds an embedding. A mean is nearer to the truth than any "
            "honest draw.",
            columns=("prior", "cosine", "finds its picture", "within five", "nearness to the caption", "seconds"),
            rows=known_rows(rows),
        )

    def _curves(self) -> list[Table]:
        tables: list[Table] = []
        for knob, title in ((DECODER, "Guiding the decoder"), (PRIOR, "Guiding the prior")):
            arms = [OWN, "caption"] if knob == DECODER else [OWN]
            columns, rows = ["guidance"], list[list[Entry]]()
            for arm in arms:
                columns += [f"{arm}: right", f"{arm}: diversity", f"{arm}: random features"]
            for scale in self.guidances:
                row: list[Entry] = [f"{scale:g}"]
                for arm in arms:
                    for measure in ("top1", "diversity", "diversity-random"):
                        found = self.readings.guided(arm, knob, scale, measure)
                        row.append(None if found is None else mean(found))
                rows.append(row)
            note = "Accuracy of the judge's first guess, and diversity, of some of the single things; 1 is no guidance."
            tables.append(Table(name=f"curve-{knob}", title=title, note=note, columns=columns, rows=known_rows(rows)))
        return tables

    def _twins(self) -> Table:
        columns, rows = ("", "right, seen", "diversity", *SKILLS), list[list[Entry]]()
        where = [("top1", SINGLE[1]), ("diversity", SINGLE[1]), *((skill, SCENES) for skill in SKILLS)]
        for arm, told in ((TWIN, "with z_i and caption"), (TEXT_TWIN, "with the caption only")):
            found = [self.readings.drawn(group, arm, measure) for measure, group in where]
            rows.append([told, *(None if one is None else mean(one) for one in found)])
        gaps = [
            self.readings.gap(*(self.readings.drawn(group, arm, measure) for arm in (TWIN, TEXT_TWIN)))
            for measure, group in where
        ]
        rows.append(["difference", *gaps])
        note = "Two small decoders of one shape, trained on the same pairs in the same order for as many pictures, "
        note += "without a sketch; they differ only in whether they are shown z_i."
        return Table(name="twins", title="Twins of equal compute", note=note, columns=columns, rows=known_rows(rows))

    def _charts(self) -> list[Chart]:
        lines = []
        for arm, knob, told in (
            (OWN, DECODER, "decoder of diffusion"),
            ("caption", DECODER, "decoder of caption"),
            (OWN, PRIOR, "prior of diffusion"),
        ):
            points = []
            for scale in self.guidances:
                ends = [self.readings.guided(arm, knob, scale, measure) for measure in ("diversity", "top1")]
                x, y = (None if one is None else mean(one) for one in ends)
                if x is not None and y is not None:
                    points.append((x.value, y.value, f"{scale:g}"))
            lines.append(Line(name=told, points=points))
        note = "Each point is a guidance scale. Further up is more often right, further right more diverse."
        x, y = "diversity of one caption's drawings", "right by the first guess"
        return [Chart(title="Guidance against diversity", note=note, x=x, y=y, lines=lines)]

    def _figures(self) -> list[Figure]:
        figures = []
        for group in (SINGLE[0], SCENES):
            arms = [
                ("true pictures", f"{group}-truth", truth_cell(group)),
                *((arm, f"{group}-{arm}", draw_cell(group, arm)) for arm in (*self.arms, TWIN, TEXT_TWIN)),
            ]
            sheets = [(told, f"{file}.png") for told, file, cell in arms if cell in self.readings.measured]
            shown = "; ".join(self.prompts[group])
            rows = "scenes in reading order" if group == SCENES else "a column a prompt, a row a seed"
            title = f"First seeds: {WORDS[group]}"
            figures.append(Figure(title=title, note=f"Nothing is picked; {rows}: {shown}.", sheets=sheets))
        sheets = [
            (f"{arm}, {word} guidance {scale:g}", f"{guide_cell(arm, knob, scale)}.png")
            for arm, knob, word in ((OWN, DECODER, "decoder"), ("caption", DECODER, "decoder"), (OWN, PRIOR, "prior"))
            for scale in (min(self.guidances), max(self.guidances))
            if guide_cell(arm, knob, scale) in self.readings.measured
        ]
        figures.append(Figure(title="First seeds: least and most guidance", sheets=sheets))
        return figures


def _plain(value: Any) -> str:
    return ", ".join(f"{one:g}" for one in value) if isinstance(value, list) else str(value)
