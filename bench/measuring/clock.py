"""A fair clock: rivals take turns in one process, so that whatever else the machine does disturbs both alike."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Spread:
    """A median with the smallest and the largest value."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g} .. {self.high:.3g})"


def spread(values: list[float]) -> Spread:
    """Sum up repeated measurements."""
    return Spread(statistics.median(values), min(values), max(values))


@dataclass
class Laps:
    """What one rival needed, turn by turn."""

    wall: list[float] = field(default_factory=list)  # seconds on the wall
    cpu: list[float] = field(default_factory=list)  # seconds of processor time, all threads together


def take_turns(rivals: Mapping[str, Callable[[], Tensor]], repeats: int) -> tuple[dict[str, Laps], dict[str, Tensor]]:
    """Let rivals run one after another, again and again.

    Who begins changes from round to round (A B, B A, A B, ...): nobody always runs in a cache that the other left.

    Args:
        rivals: name -> what it computes.
        repeats: rounds that count; one more before them warms up.

    Returns:
        Each rival's times, and what it computed last.
    """
    laps = {name: Laps() for name in rivals}
    outputs = {name: compute() for name, compute in rivals.items()}
    for turn in range(repeats):
        for name in list(rivals)[:: 1 if turn % 2 == 0 else -1]:
            wall, cpu = time.perf_counter(), time.process_time()
            outputs[name] = rivals[name]()
            laps[name].wall.append(time.perf_counter() - wall)
            laps[name].cpu.append(time.process_time() - cpu)
    return laps, outputs


def times(slow: Laps, fast: Laps) -> dict[str, Spread]:
    """How many times faster one rival was, on the wall and by processor time, as fields of a record."""
    return {"times_wall": ratio(slow.wall, fast.wall), "times_cpu": ratio(slow.cpu, fast.cpu)}


def ratio(slow: list[float], fast: list[float]) -> Spread:
    """How many times faster one rival was, round by round."""
    return spread([s / f for s, f in zip(slow, fast, strict=True)])
