"""Two processes that really talk to each other make the steps that one makes."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from opendalle.checkpoint.run import RunFolder

TWO_PROCESSES = """
import os, sys
from pathlib import Path
import torch
from torch import nn
from opendalle.base.protocols import Losses
from opendalle.training.config import TrainConfig, Upkeep
from opendalle.training.distributed import joined_world
from opendalle.training.loop import train
from opendalle.training.start import open_run
import torch._dynamo  # optimisers import it when first made: once is enough for both processes

class Plain:
    def __init__(self, born):
        torch.manual_seed(born)
        self.net = nn.ModuleDict({"used": nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))})
        self.net["unused"] = nn.Linear(2, 2)
        self.groups = {"net": self.net}

    def __call__(self, batch, rng):
        return Losses(total={"net": (self.net["used"](batch) - batch.sum(1, keepdim=True)).square().mean()})

class OwnBackward(Plain):
    def backward(self, batch, rng):
        losses = self(batch, rng)
        losses.total["net"].backward()
        return losses

def batches(world):
    def feed(position):
        while True:
            yield world.slice(torch.randn(8, 4, generator=torch.Generator().manual_seed(position)))
            position += 1
    return feed

def go(folder, world, kind, resume=False, stop=None):
    run = open_run(folder, {}, resume=resume, world=world)
    config = TrainConfig(pictures=64, batch_size=8, accumulate=2, ema_halflife=32)
    steps = train(kind(0), batches(world), config, run, resume=resume, world=world, upkeep=Upkeep(save_every=32))
    for step in steps:
        if step.step == stop:
            break
    run.close()
    world.barrier()

folder = Path(sys.argv[1])
rank = int(os.fork() == 0)
os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
with joined_world() as world:
    for kind in (Plain, OwnBackward):
        go(folder / f"two-{kind.__name__}", world, kind)
    go(folder / "pieces", world, Plain, stop=2)
    go(folder / "pieces", world, Plain, resume=True)
if rank:
    os._exit(0)
assert os.wait()[1] == 0
for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
    del os.environ[name]
with joined_world() as world:
    for kind in (Plain, OwnBackward):
        go(folder / f"one-{kind.__name__}", world, kind)
"""


@pytest.mark.slow
@pytest.mark.timeout(400)  # two imports of torch on a machine that may be busy
def test_two_processes_equal_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    child = subprocess.run(
        [sys.executable, "-c", TWO_PROCESSES, str(tmp_path)],
        env={**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    loaded = {one.name: RunFolder.open(one, to_write=False).load() for one in tmp_path.iterdir()}
    one = loaded["one-Plain"].tensors
    for name in ("two-Plain", "two-OwnBackward", "one-OwnBackward"):
        for stem in ("weights.net", "average.net"):
            for key, tensor in one[stem].items():
                assert torch.allclose(tensor, loaded[name].tensors[stem][key], atol=1e-6), (name, key)
    for stem, tensors in loaded["two-Plain"].tensors.items():
        for key, tensor in tensors.items():
            assert torch.equal(tensor, loaded["pieces"].tensors[stem][key]), (stem, key)
    ranks = {key.split("/")[0] for key in loaded["two-Plain"].tensors["chance"]}
    assert ranks == {"0", "1"}, "each process's chance is remembered"
    assert len((tmp_path / "two-Plain" / "log.jsonl").read_text().splitlines()) == 4, "one process writes the log"
