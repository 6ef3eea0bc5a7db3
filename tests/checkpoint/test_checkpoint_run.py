import subprocess
import sys
from pathlib import Path

import pytest
import torch

from opendalle.base.errors import BadModel
from opendalle.checkpoint.run import RunFolder, RunState


def state(step: int) -> RunState:
    tensors = {"weights.net": {"w": torch.full((4, 4), float(step)), "n": torch.tensor(step)}, "empty": {}}
    return RunState(step=step, values={"pictures": step * 8}, tensors=tensors)


def same(one: RunState, other: RunState) -> bool:
    flat = [{(stem, k): v for stem, t in s.tensors.items() for k, v in t.items()} for s in (one, other)]
    equal = flat[0].keys() == flat[1].keys() and all(torch.equal(flat[0][key], flat[1][key]) for key in flat[0])
    return equal and one.step == other.step and one.values == other.values


def test_saves_come_back_and_old_ones_are_pruned(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", {"recipe": "circles"})
    for step in (1, 2, 30):
        run.save(state(step), keep=2)
    assert run.steps() == (2, 30)
    assert same(run.load(), state(30))
    assert same(run.load(2), state(2))
    assert run.about == {"recipe": "circles"}
    run.save(state(30))  # the same step again: nothing to do
    run.close()
    assert same(RunFolder.open(tmp_path / "run").load(), state(30))


@pytest.mark.parametrize("file", ["manifest.json", "state.json", "weights.net.safetensors"])
def test_a_damaged_save_is_skipped_aloud_and_never_costs_an_older_one(tmp_path: Path, file: str) -> None:
    run = RunFolder.create(tmp_path, {})
    run.save(state(1))
    path = run.save(state(2)) / file
    payload = bytearray(path.read_bytes())
    payload[len(payload) // 2] ^= 1
    path.write_bytes(payload)
    with pytest.warns(UserWarning, match="skipped a damaged save"):
        assert run.load().step == 1
    with pytest.raises(BadModel):
        run.load(2)
    with pytest.raises(BadModel):
        run.prune(1)
    assert run.steps() == (1, 2), "the older save is all there is: it stays"
    run.save(state(2))  # a damaged save of the same step is written anew
    assert same(run.load(), state(2))


def test_a_resume_never_starts_afresh(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="no run in"):
        RunFolder.open(tmp_path / "nothing")
    run = RunFolder.create(tmp_path / "run", {})
    with pytest.raises(BadModel, match="no whole save"):
        run.load()
    run.save(state(1))
    run.close()
    with pytest.raises(BadModel, match="Go on with it by --resume"):
        RunFolder.create(tmp_path / "run", {})


def test_two_writers_in_one_folder_are_refused_and_readers_are_not(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, {})
    run.save(state(1))
    with pytest.raises(BadModel, match="another process is writing"):
        RunFolder.open(tmp_path)
    assert RunFolder.open(tmp_path, to_write=False).load().step == 1
    run.close()
    RunFolder.open(tmp_path).close()


SAVE_UNTIL_KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from opendalle.checkpoint.run import RunFolder, RunState

def state(step):
    tensors = {f"part{i}": {"w": torch.full((32, 64), float(step))} for i in range(4)}
    return RunState(step=step, values={"step": step}, tensors=tensors)

folder, chance = Path(sys.argv[1]), random.Random(5)
run = RunFolder.create(folder, {})
begin = time.monotonic()
run.save(state(1))
one_save = time.monotonic() - begin
run.close()
told, cut_short = 1, 0
for kill in range(20):
    ear, mouth = os.pipe()
    child = os.fork()
    if child == 0:
        run = RunFolder.open(folder)
        step = told
        while True:
            step += 1
            run.save(state(step), keep=1)
            os.write(mouth, b"%012d" % step)
    os.close(mouth)
    # Counted in saves, not seconds, so that a busy disk cannot cut all of them short: hear of 0 to 2, then strike.
    heard = b"".join(os.read(ear, 12) for _ in range(chance.randrange(3)))
    time.sleep(chance.uniform(0.0, 1.5 * one_save))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    heard += os.read(ear, 1 << 20)
    os.close(ear)
    cut_short += any(one.name.startswith(".step") for one in folder.iterdir())
    run = RunFolder.open(folder)
    found = run.load()
    told = max(told, int(heard[-12:] or told))
    assert found.step >= told, "a save that was reported done is lost"
    assert all((one["w"] == found.step).all() and one["w"].shape == (32, 64) for one in found.tensors.values())
    assert len(found.tensors) == 4 and found.values == {"step": found.step}
    told = found.step
    run.close()
print(told, cut_short)
"""


@pytest.mark.slow
@pytest.mark.timeout(400)  # an import of torch and twenty forks on a machine that may be busy
def test_twenty_kills_at_random_moments_and_no_bad_load(tmp_path: Path) -> None:
    child = subprocess.run(
        [sys.executable, "-W", "error", "-c", SAVE_UNTIL_KILLED, str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    saves, cut_short = map(int, child.stdout.split())
    assert saves >= 10, "the kills must fall among real saves"
    assert cut_short >= 3, "some kills must fall inside a save"
