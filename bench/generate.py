"""What a picture costs, stage by stage, and how many steps are enough.

    python bench/generate.py                                  the bundled model
    python bench/generate.py --model FOLDER --only speed
    python bench/generate.py --only quality --world emoji     by the judge; without a world, by distance

Cold is a fresh process, from the command to the file; warm is a later call in a process that has drawn before.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from measuring import quality
from measuring.clock import spread
from measuring.report import describe, is_busy, machine, table, write

from opendalle import pretrained
from opendalle.base.errors import BadModel
from opendalle.base.request import SAMPLERS

PROMPT = "a rocket over a castle"
FLOOR = {"cold": 8.0, "warm": 3.0}  # seconds of one picture at 256 px on two cores
MIB_OF_MAXRSS = 2**20 if sys.platform == "darwin" else 2**10  # the unit of ru_maxrss differs


@dataclass(frozen=True)
class Run:
    """One finished process."""

    wall: float  # seconds
    cpu: float  # seconds, all threads, with the kernel's share
    peak: float  # MiB of memory that were its own at most
    seconds: dict[str, float]  # what it printed, if it was the warm one


def run(command: Sequence[str], folder: Path) -> Run:
    """Start a process and wait for it; the kernel tells what it used."""
    began = time.perf_counter()
    with (folder / "said").open("w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)  # else Popen would look for the process again
        wall = time.perf_counter() - began
        said.seek(0)
        text = said.read()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}\n{text}")
    stages = dict(line.split("=") for line in text.splitlines() if line.startswith("stage-"))
    return Run(
        wall=wall,
        cpu=usage.ru_utime + usage.ru_stime,
        peak=usage.ru_maxrss / MIB_OF_MAXRSS,
        seconds={name.removeprefix("stage-"): float(value) for name, value in stages.items()},
    )


def cold(model: str, size: int, count: int, repeats: int) -> dict[str, Any]:
    """From the command to the file, each time in a fresh process."""
    runs = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as name:
            out = Path(name) / "out"
            words = ["generate", PROMPT, "--model", model, "--size", size, "--count", count, "--out", out]
            runs.append(run([sys.executable, "-m", "opendalle", *map(str, words)], Path(name)))
            assert len(list(out.glob("*.png"))) == count
    return _row("cold", size, count, runs)


def warm(model: str, size: int, count: int, repeats: int) -> dict[str, Any]:
    """Later calls in a process that has drawn before; one process a setting, so that its peak is that setting's."""
    with tempfile.TemporaryDirectory() as name:
        words = [__file__, "--model", model, "--warm-child", f"{size},{count},{repeats}"]
        ran = run([sys.executable, *words], Path(name))
    stages = {key: value for key, value in ran.seconds.items() if not key.startswith(("wall", "cpu"))}
    runs = [
        Run(wall=ran.seconds[f"wall{k}"], cpu=ran.seconds[f"cpu{k}"], peak=ran.peak, seconds=stages)
        for k in range(repeats)
    ]
    return _row("warm", size, count, runs)


def warm_child(model: str, size: int, count: int, repeats: int) -> None:
    """What the warm process does: draw once, then draw and tell; stages are those of the last time, all batches."""
    dalle = pretrained.load(model)
    for turn in range(-1, repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        samples = list(dalle.generate(PROMPT, count=count, width=size, height=size))
        if turn >= 0:
            print(f"stage-wall{turn}={time.perf_counter() - wall}")
            print(f"stage-cpu{turn}={time.process_time() - cpu}")
        if turn == repeats - 1:
            batches = samples[:: samples[0].request.batch]  # the first picture of each batch tells its batch's times
            for stage in samples[0].seconds:
                print(f"stage-{stage}={sum(sample.seconds[stage] for sample in batches)}")


def _row(how: str, size: int, count: int, runs: Sequence[Run]) -> dict[str, Any]:
    stages = {f"{name}_s": value for name, value in runs[-1].seconds.items()}
    return {
        "how": how,
        "pixels": size,
        "pictures": count,
        "wall_s": spread([one.wall for one in runs]),
        "cpu_s": spread([one.cpu for one in runs]),
        "peak_mib": max(one.peak for one in runs),
        **{f"{name}_s": None for name in ("text", "prior", "decoder", "codec", "upsampler")},
        **stages,
    }


def speed(model: str, sizes: Sequence[int], counts: Sequence[int], repeats: int) -> Iterator[dict[str, Any]]:
    """Every combination of cold and warm, size and count."""
    for measure in (cold, warm):
        for size in sizes:
            for count in counts:
                yield measure(model, size, count, repeats)


def measure_speed(asked: argparse.Namespace, dalle: Any, about: dict[str, Any]) -> None:
    """Print and write what a picture costs."""
    sizes = [size for size in asked.sizes or dalle.sizes if size in dalle.sizes]
    rows = []
    for row in speed(asked.model, sizes, asked.counts, asked.repeats):
        rows.append(row)
        print(f"  {row['how']} {row['pixels']} px x {row['pictures']}: {row['wall_s']} s", file=sys.stderr, flush=True)
    print(table(rows))
    for how, limit in FLOOR.items():
        for row in rows:
            if (row["how"], row["pixels"], row["pictures"]) == (how, 256, 1):
                verdict = "held" if row["wall_s"].median <= limit else "MISSED"
                busy = f" (busy: load {about['load']:.1f}; processor time {row['cpu_s'].median:.2g} s)"
                print(f"one 256 px picture, {how}: floor {limit:g} s {verdict}{busy if is_busy(about) else ''}")
    print(write("generate-speed", about, rows, asked.out).name)


def measure_quality(asked: argparse.Namespace, dalle: Any, about: dict[str, Any]) -> None:
    """Print and write how many steps are enough."""
    rows: list[dict[str, Any]] = []
    if asked.world is None:
        prompts = [*quality.SENTENCES[: asked.num]]
        found = quality.by_distance(dalle, prompts, asked.samplers, asked.steps, asked.batch)
        print(f"distance to {quality.REFERENCE[0]} with {quality.REFERENCE[1]} steps, {len(prompts)} prompts")
    else:
        judge = pretrained.load(asked.judge)
        found = quality.by_judge(dalle, judge, asked.world, asked.num, asked.samplers, asked.steps, asked.batch)
        print(f"judge on {asked.num} seen names")
    for row in found:
        rows.append(row)
        print(f"  {row['sampler']} {row['steps']}", file=sys.stderr, flush=True)
    if asked.world is not None:
        quality.mark_enough(rows)
    print(table(rows))
    print("fewest steps within 1 % of the best" if asked.world else "fewest steps within 1 % of the reference")
    print(table(quality.fewest(rows)))
    print(write("generate-quality", about | {"by": "judge" if asked.world else "distance"}, rows, asked.out).name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description="Cost of a picture by stage, and quality against steps.")
    parser.add_argument("--model", help="bundled model or model folder; default dalle2")
    parser.add_argument("--only", choices=("speed", "quality"), help="half of it")
    parser.add_argument("--sizes", type=int, nargs="+", help="sides in pixels; default: all that the model draws")
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 4], help="pictures a call")
    parser.add_argument("--repeats", type=int, default=3, help="of each cold and warm measurement")
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS), choices=SAMPLERS)
    parser.add_argument("--steps", type=int, nargs="+", default=[5, 8, 12, 20, 30, 50])
    parser.add_argument("--world", type=Path, help="folder of the emoji world, for the judge")
    parser.add_argument("--judge", default="judge", help="bundled judge or its folder")
    parser.add_argument(
        "--num", type=int, default=100, help="names for the judge; sentences for the distance, at most 8"
    )
    parser.add_argument("--batch", type=int, default=8, help="pictures drawn at once while steps are compared")
    parser.add_argument("--threads", type=int, default=0, help="of torch, where it is this process that draws")
    parser.add_argument("--out", type=Path, help="folder of the JSON; default bench/results")
    parser.add_argument("--warm-child", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    is_default, asked.model = asked.model is None, asked.model or "dalle2"
    if asked.threads:
        torch.set_num_threads(asked.threads)
    if asked.warm_child:
        size, count, repeats = (int(one) for one in asked.warm_child.split(","))
        warm_child(asked.model, size, count, repeats)
        return 0
    try:
        dalle = pretrained.load(asked.model)
    except BadModel as error:
        if not is_default:
            print(error, file=sys.stderr)
            return 2
        print("No bundled model yet, so nothing to measure. Train one (opendalle train --help), then --model FOLDER.")
        return 0
    about = machine() | {"model": dalle.origin, "repeats": asked.repeats}
    print(f"{describe(about)}; model {dalle.origin.get('model', asked.model)}", flush=True)
    if asked.only != "quality":
        measure_speed(asked, dalle, about)
    if asked.only != "speed":
        measure_quality(asked, dalle, about)
    return 0


if __name__ == "__main__":
    sys.exit(main())
