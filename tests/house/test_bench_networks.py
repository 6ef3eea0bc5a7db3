"""The benchmark against the other library runs, at a size that takes no time, and what it compares is equal."""

import json
import sys
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script as a module; what it does to torch's threads is undone."""
    monkeypatch.syspath_prepend(str(BENCH))
    spec = util.spec_from_file_location("bench_networks", BENCH / "networks.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "bench_networks", module)
    spec.loader.exec_module(module)
    threads = torch.get_num_threads()
    yield module
    torch.set_num_threads(threads)


def test_both_sides_compute_the_same(networks: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = networks.main(["--shape", "tiny", "--repeats", "1", "--out", str(tmp_path)])
    assert [row["what"].split()[0].rstrip(",") for row in rows] == ["decoder", "decoder", "prior", "prior", "prior"]
    assert max(row["difference"] for row in rows) <= 1e-5
    written = json.loads((tmp_path / "networks-tiny.json").read_text(encoding="utf-8"))
    assert [row["what"] for row in written["rows"]] == [row["what"] for row in rows]
    assert written["about"]["dtype"] == "float32"
    assert all(row["what"] in capsys.readouterr().out for row in rows[:1])
