"""A plain table for people, and JSON for whoever compares two days."""

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from measuring.clock import Spread

RESULTS = Path(__file__).parents[1] / "results"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Lay records out in columns: the names of the first one's fields, then a line each."""
    if not rows:
        return "(nothing)"
    heads = list(rows[0])
    lines = [heads, *([_cell(row.get(head)) for head in heads] for row in rows)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(heads))]
    laid = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    laid.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(laid)


def machine() -> dict[str, Any]:
    """Tell what the numbers were measured on; no name of it, and no paths."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": load,  # tasks that wanted a core when we asked; above the number of cores, wall times are too long
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def describe(about: Mapping[str, Any]) -> str:
    """Say in one line what `machine` told."""
    load = "" if about["load"] is None else f", load {about['load']:.1f}"
    return (
        f"{about['processor']}, {about['cores']} cores{load}; {about['threads']} threads, {about['capability']}, "
        f"torch {about['torch']}"
    )


def is_busy(about: Mapping[str, Any]) -> bool:
    """Whether other programs wanted the cores too, so that wall times are too long."""
    return about["load"] is not None and about["load"] > 0.5 * about["cores"]


def write(name: str, about: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], folder: Path | None = None) -> Path:
    """Write a report as JSON.

    Args:
        name: of the benchmark.
        about: what was measured, and on what.
        rows: the table's records, numbers unrounded; a Spread is written by its three numbers.
        folder: where it goes; None: bench/results.
    """
    folder = folder or RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    plain = [{key: vars(one) if isinstance(one, Spread) else one for key, one in row.items()} for row in rows]
    path.write_text(json.dumps({"about": about, "rows": plain}, indent=1) + "\n", encoding="utf-8")
    return path


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _processor() -> str:
    listed = Path("/proc/cpuinfo")
    if listed.is_file():
        for line in listed.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
