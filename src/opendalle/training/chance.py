"""All chance of a run.

What an objective draws comes from a generator that is a pure function of (seed, position, rank): batch 1,000 draws
the same noise whether the run came there in one piece or in ten.  Layers such as dropout draw from the process's own
generators instead; their states are written down with every save.
"""

import hashlib
import json
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Generator, Tensor

from opendalle.base.axes import Steps
from opendalle.base.rng import picture_generator
from opendalle.diffusion.schedules import Schedule


def batch_generator(seed: int, position: int, rank: int = 0) -> Generator:
    """Return the generator of one micro-batch, on the CPU.

    Args:
        seed: of the run.
        position: of the micro-batch, from 0.
        rank: of the process, from 0.
    """
    digest = hashlib.sha256(f"{seed}/{position}/{rank}".encode()).digest()
    return picture_generator(int.from_bytes(digest[:8], "little") >> 1)


def draw_share(share: float, count: int, rng: Generator) -> Bool[Tensor, " b"]:
    """Mark about this share of samples, each on its own.

    Args:
        share: 0 to 1; 1 marks all.
        count: samples.
        rng: all chance.
    """
    return torch.rand(count, generator=rng) < share


def draw_steps(
    schedule: Schedule, x0: Float[Tensor, "b *d"], rng: Generator, *, apart: int = 1
) -> tuple[Steps, Float[Tensor, "b *d"]]:
    """Draw a step for each sample, evenly, and its noise.

    Args:
        schedule: gives the number of steps.
        x0: clean data, for shape and device.
        rng: all chance, on the CPU.
        apart: so many neighbours, of one picture, are drawn from as many equal parts of the schedule, one from each.
    """
    if apart == 1:
        t = torch.randint(schedule.num_steps, (len(x0),), generator=rng)
    else:
        turned = torch.rand(len(x0) // apart, 1, generator=rng, dtype=torch.float64) + torch.arange(apart) / apart
        t = (turned.remainder(1.0) * schedule.num_steps).long().flatten()
    eps = torch.randn(x0.shape, generator=rng)
    return t.to(x0.device), eps.to(x0)


def chance_tensors() -> dict[str, UInt8[Tensor, " bytes"]]:
    """Write down the state of every process-wide generator: torch on CPU and GPU, numpy, Python."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002  (others' code may draw from it)
    plain = {"numpy": [name, np.asarray(keys).tolist(), position, has_gauss, gauss], "python": random.getstate()}
    states = {
        key: torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8) for key, value in plain.items()
    }
    states["torch.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states["torch.cuda"] = torch.cuda.get_rng_state()
    return states


def restore_chance(states: Mapping[str, UInt8[Tensor, " bytes"]]) -> None:
    """Give every process-wide generator the state that `chance_tensors` wrote down.

    Args:
        states: as written; a GPU's is left out where there is none now.
    """
    name, keys, position, has_gauss, gauss = json.loads(bytes(states["numpy"].tolist()))
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, gauss))  # noqa: NPY002
    version, internal, gauss_next = json.loads(bytes(states["python"].tolist()))
    random.setstate((version, tuple(internal), gauss_next))
    torch.set_rng_state(states["torch.cpu"])
    if "torch.cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["torch.cuda"])


@contextmanager
def undisturbed() -> Iterator[None]:
    """Whatever the block draws, the process-wide generators stand afterwards where they stood before."""
    before = chance_tensors()
    try:
        yield
    finally:
        restore_chance(before)
