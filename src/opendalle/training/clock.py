"""How fast a run goes and how long it will take."""

import time
from collections import deque

RECENT = 20  # steps whose mean speed is told


class Clock:
    """Speed and time left, from the moments at which steps ended.

    Args:
        total: pictures of the whole run.
        seen: pictures seen when this piece of the run begins.
    """

    def __init__(self, total: int, seen: int) -> None:
        self._total = total
        self._recent = deque([(time.monotonic(), seen)], maxlen=RECENT + 1)
        self._first: tuple[float, int] | None = None  # end of the first step, which is slow (compiling, filling caches)

    def tick(self, seen: int) -> tuple[float, float | None]:
        """Note the end of a step.

        Args:
            seen: pictures seen so far.

        Returns:
            Pictures a second over the last steps, and seconds left (None after the first step).
        """
        now = time.monotonic()
        self._recent.append((now, seen))
        then, before = self._recent[0]
        speed = (seen - before) / max(now - then, 1e-9)
        if self._first is None:
            self._first = (now, seen)
            return speed, None
        start, start_seen = self._first
        mean = (seen - start_seen) / max(now - start, 1e-9)  # saves and sample grids included: they take time too
        return speed, max(0, self._total - seen) / mean
