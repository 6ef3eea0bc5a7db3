"""Ending a run gently: by Ctrl-C, by SIGTERM, by the clock."""

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Notes the wish to stop, so that the loop can finish its step, save once and end.

    The first signal is only noted and the former handlers come back at once: a second Ctrl-C acts as usual (a save
    that it cuts off is never read).  Outside the main thread, where Python allows no handlers, only the clock works.

    Args:
        max_minutes: of the block's duration; None: no limit.
    """

    def __init__(self, max_minutes: float | None = None) -> None:
        self.reason: str | None = None  # why the run should end: a signal's name or "max-minutes"
        self._deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes
        self._former: dict[int, Any] = {}

    @property
    def wanted(self) -> bool:
        """Whether the run should end after this step."""
        if self.reason is None and self._deadline is not None and time.monotonic() >= self._deadline:
            self.reason = "max-minutes"
        return self.reason is not None

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():
            self._former = {one: signal.signal(one, self._note) for one in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.reason = signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        for one, handler in self._former.items():
            signal.signal(one, handler)
        self._former = {}
