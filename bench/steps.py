"""Quality against steps: a model by its plain samplers, and its student of few steps, in one plot.

    python bench/steps.py --world world                          the bundled model alone
    python bench/steps.py --world world --student dalle2-few --plot steps.png

Every row begins from the same embeddings and the same noise.  `rows` is what a picture costs: rows that go through the
denoiser, of which guidance needs two a step.  `distance` is to the model's own full walk, over its length; a sampler
that draws noise ends elsewhere each time, so its distance says little.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from measuring import quality
from measuring.report import describe, machine, table, write

from opendalle import pretrained
from opendalle.base.request import SAMPLERS
from opendalle.dalle2.pipeline import Dalle2
from opendalle.data.emoji.prompts import seen_names
from opendalle.data.emoji.world import World


def measure(dalle: Dalle2, student: Dalle2 | None, judge: Any, asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield a row for each sampler and number of steps, the student's last."""
    questions = seen_names(World(asked.world), asked.num)
    begun = quality.ask(dalle, [question.prompt for question in questions], asked.batch)
    settings = dalle.config.decoder
    reference = quality.grids(dalle, begun, settings.sampler, settings.steps)
    walks = [(dalle, "plain", sampler, count) for sampler in asked.samplers for count in asked.steps]
    if student is not None:
        own = student.config.decoder
        walks += [(student, "student", own.sampler, count) for count in own.taught_steps]
    for model, name, sampler, count in walks:
        drawn = quality.grids(model, begun, sampler, count)
        rows = quality.calls(sampler, count) * (1 if model.config.decoder.guidance == 1 else 2)
        distance = ((drawn - reference).norm() / reference.norm()).item()
        row = {"model": name, "sampler": sampler, "steps": count, "rows": rows, "distance": distance}
        yield row | quality.named(model, judge, questions, drawn, asked.batch)


def plot(rows: Sequence[dict[str, Any]], out: Path) -> None:
    """Draw the judge's share and the distance against steps, a line for each sampler of each model."""
    import matplotlib  # pyright: ignore[reportMissingImports] - of the extra `train`

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt  # pyright: ignore[reportMissingImports]

    figure, (named, near) = plt.subplots(1, 2, figsize=(9, 3.6))
    for model, sampler in dict.fromkeys((row["model"], row["sampler"]) for row in rows):
        line = sorted(
            (row for row in rows if (row["model"], row["sampler"]) == (model, sampler)), key=lambda row: row["steps"]
        )
        steps = [row["steps"] for row in line]
        ends = [[row["top1"] - row["top1_low"] for row in line], [row["top1_high"] - row["top1"] for row in line]]
        look = {"marker": "s" if model == "student" else "o", "label": f"{model}, {sampler}"}
        named.errorbar(steps, [row["top1"] for row in line], yerr=ends, capsize=2, **look)
        near.plot(steps, [row["distance"] for row in line], **look)
    named.set(xscale="log", xlabel="steps", ylabel="named right by the judge (top-1)")
    near.set(xscale="log", xlabel="steps", ylabel="distance to the full walk")
    near.legend()
    figure.tight_layout()
    figure.savefig(out, dpi=110)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", type=Path, required=True, help="folder of the emoji world, for the judge")
    parser.add_argument("--model", default="dalle2", help="bundled model or model folder")
    parser.add_argument("--student", help="a student of it, made by `python -m opendalle.recipes.few_steps`")
    parser.add_argument("--judge", default="judge", help="bundled judge or its folder")
    parser.add_argument("--samplers", nargs="+", default=["ddim", "dpm++2m"], choices=SAMPLERS)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4, 8, 20])
    parser.add_argument("--num", type=int, default=100, help="seen names asked, the first ones of the list")
    parser.add_argument("--batch", type=int, default=8, help="pictures drawn at once")
    parser.add_argument("--threads", type=int, default=0, help="of torch")
    parser.add_argument("--plot", type=Path, help="write the plot here, as PNG")
    parser.add_argument("--out", type=Path, help="folder of the JSON; default bench/results")
    asked = parser.parse_args(arguments)
    if asked.threads:
        torch.set_num_threads(asked.threads)
    dalle, judge = pretrained.load(asked.model), pretrained.load(asked.judge)
    student = pretrained.load(asked.student) if asked.student else None
    about = machine() | {"model": dalle.origin, "student": student.origin if student else None, "names": asked.num}
    print(describe(about), flush=True)
    rows = []
    for row in measure(dalle, student, judge, asked):
        rows.append(row)
        print(f"  {row['model']} {row['sampler']} {row['steps']}", file=sys.stderr, flush=True)
    print(table(rows))
    print(write("steps", about, rows, asked.out).name)
    if asked.plot:
        plot(rows, asked.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
