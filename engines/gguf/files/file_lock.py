"""Locks that processes share: a file, `flock`, and nothing to clean up after a crash.

The kernel lifts a lock when the process that holds it ends, however it ends. The
file of a lock may be removed by whoever holds it; who waits for it meanwhile
notices that the file is another one now and takes that.
"""

import fcntl
import os
from pathlib import Path
from types import TracebackType

from engines.errors import Unavailable
from engines.gguf.files.writing import make_folder


class FileLock:
    """One taking of a lock; any thread may hold it, also beside another of the same process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None

    def __enter__(self) -> "FileLock":
        """Wait for the lock, which blocks the thread: for what is held shortly."""
        self._take(fcntl.LOCK_EX)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Give the lock back."""
        self.release()

    def try_take(self) -> bool:
        """Take the lock if nobody has it."""
        try:
            self._take(fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self, *, remove: bool = False) -> None:
        """Give the lock back; `remove` takes its file away, too."""
        if self._handle is None:
            return
        if remove:
            self._path.unlink(missing_ok=True)
        handle, self._handle = self._handle, None
        os.close(handle)

    def _take(self, operation: int) -> None:
        make_folder(self._path.parent)
        while True:
            try:
                handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise Unavailable(
                    f"{str(self._path)!r} cannot be opened: {error.strerror}"
                ) from None
            try:
                fcntl.flock(handle, operation)
            except BaseException:
                os.close(handle)
                raise
            if _is_still(self._path, handle):
                self._handle = handle
                return
            os.close(handle)


def _is_still(path: Path, handle: int) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    held = os.fstat(handle)
    return (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino)
