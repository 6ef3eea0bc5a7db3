"""What stands between a benchmark and other people's code; the peers themselves are in nobody's environment."""

import sys
from importlib import util
from pathlib import Path

import pytest
import torch

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCH))
    spec = util.spec_from_file_location("bench_peers", BENCH / "measuring" / "peers.py")
    module = util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "bench_peers", module)
    spec.loader.exec_module(module)
    return module


def test_an_import_leaves_the_process_as_it_was(peers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "modules", sys.modules.copy())
    code = "import torch\nfrom no_such_downloader import get\ntorch.set_grad_enabled(False)\ntorch.set_num_threads(7)\n"
    (tmp_path / "rude_peer.py").write_text(f"{code}SEEN = get\n", encoding="utf-8")
    threads = torch.get_num_threads()
    module = peers.import_from(tmp_path, "rude_peer", ("no_such_downloader",))
    assert torch.is_grad_enabled()
    assert torch.get_num_threads() == threads
    assert isinstance(module.SEEN(1, two=2), module.SEEN)  # a class that does nothing


def test_other_outputs_end_the_run(peers) -> None:
    theirs = torch.linspace(-1, 1, 5)
    assert peers.require_equal("words", theirs, theirs + 1e-6) < 1e-5
    with pytest.raises(SystemExit, match="words differ"):
        peers.require_equal("words", theirs, theirs + 1e-3)
    with pytest.raises(SystemExit, match="words differ"):
        peers.require_equal("words", theirs, theirs * float("nan"))


def test_a_peer_must_be_there(peers, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no folder"):
        peers.beside("beside_min_dalle", tmp_path / "nowhere", [])
