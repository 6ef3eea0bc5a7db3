"""One writer a folder.  The operating system holds the lock, so it ends with its process, even one that was killed."""

import os
import sys
from pathlib import Path
from types import TracebackType

from opendalle.base.errors import BadModel


class FolderLock:
    """The right to write in a folder, kept until `release` or the end of the process.

    Args:
        folder: an existing folder; a file `.lock` is made in it.

    Raises:
        BadModel: when another process holds it.
    """

    def __init__(self, folder: Path) -> None:
        self._descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(self._descriptor)
        except OSError:
            self.release()
            raise BadModel(
                f"{folder}, in which another process is writing", "a run folder of its own for each run"
            ) from None

    def release(self) -> None:
        """Let another process write; harmless when repeated."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> "FolderLock":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
