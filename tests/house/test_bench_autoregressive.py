"""The benchmark of DALL·E 1's transformer runs, at a size that takes no time, and writes what it measured."""

import json
import sys
from importlib import util
from pathlib import Path

import pytest
import torch

BENCH = Path(__file__).parents[2] / "bench"


def test_it_measures_training_and_every_pattern(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    spec = util.spec_from_file_location("bench_autoregressive", BENCH / "autoregressive.py")
    module = util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "bench_autoregressive", module)
    spec.loader.exec_module(module)
    threads = torch.get_num_threads()
    try:
        rows = module.main(["--shape", "tiny", "--repeats", "1", "--out", str(tmp_path)])
    finally:
        torch.set_num_threads(threads)
    patterns = [f"a word, {one}" for one in ("dense", "row", "column", "convolution")]
    assert [row["what"] for row in rows] == ["training step, 8x8, width 32", *patterns]
    assert all(row["times_cpu"].median > 0 for row in rows)
    written = json.loads((tmp_path / "autoregressive-tiny.json").read_text(encoding="utf-8"))
    assert [row["what"] for row in written["rows"]] == [row["what"] for row in rows]
