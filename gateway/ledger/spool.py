"""Records that wait on this machine's disk for a database that is away.

Lines of JSON in files of a private directory. A process writes to one file, which it
holds locked; a full one, and one whose process is gone, may be taken by any process that
shares the directory. What `append` has returned for survives a crash. A file is removed
when its records are in the database; until then it may be read twice, so whatever writes
them must be able to meet a record again.
"""

import fcntl
import os
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from gateway.ledger.private_files import private_directory

FILE_BYTES = 1024 * 1024  # from here on a file is full


class Spooled(Struct, frozen=True):
    """One file's worth: whole lines, and where they are until `Spool.done`."""

    path: Path
    lines: Sequence[bytes]


class Spool:
    """The waiting records of one kind. Blocks on the disk: call it in a thread.

    Any number of processes may share a directory. All its files together are at most
    `max_bytes`.
    """

    def __init__(
        self, directory: Path, *, max_bytes: int, clock: Callable[[], int] = time.time_ns
    ) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._own: Path | None = None
        self._descriptor = -1

    def append(self, lines: Sequence[bytes]) -> int:
        """Keep as many of these, from the first on, as there is room for; how many it was.

        They are on the disk when this returns. Raises `OSError` if the disk will not have
        them, and then none is kept.
        """
        with self._lock:
            room = self._max_bytes - self._size()
            kept: list[bytes] = []
            for line in lines:
                room -= len(line) + 1
                if room < 0:
                    break
                kept.append(line + b"\n")
            if kept:
                self._write(b"".join(kept))
            return len(kept)

    def take(self) -> Spooled | None:
        """The oldest records, to be written down and then `done`; None if nothing waits."""
        with self._lock:
            self._seal()
            self._adopt()
            for path in sorted(self._directory.glob("*.ready")):
                with suppress(FileNotFoundError):  # another process was done with it
                    return Spooled(path, _whole_lines(path.read_bytes()))
            return None

    def done(self, spooled: Spooled) -> None:
        """Forget what is written down."""
        spooled.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let others have the file."""
        with self._lock:
            self._seal()

    def _write(self, content: bytes) -> None:
        if self._own is None:
            self._begin()
        size = os.fstat(self._descriptor).st_size
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(self._descriptor, view) :]
            os.fsync(self._descriptor)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._descriptor, size)
            raise
        if size + len(content) >= FILE_BYTES:
            self._seal()

    def _begin(self) -> None:
        private_directory(self._directory)
        path = self._directory / f"{self._clock():020d}-{secrets.token_hex(8)}.open"
        self._descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        self._own = path
        _sync_directory(self._directory)

    def _seal(self) -> None:
        """Say of our own file that nobody writes to it any more."""
        if self._own is None:
            return
        path, self._own = self._own, None
        with suppress(FileNotFoundError):
            path.rename(path.with_suffix(".ready"))
        os.close(self._descriptor)

    def _adopt(self) -> None:
        """Seal the files of processes that are gone: nobody holds their lock."""
        for path in self._directory.glob("*.open"):
            try:
                descriptor = os.open(path, os.O_WRONLY)
            except OSError:
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.rename(path.with_suffix(".ready"))
            except OSError:  # its process lives, or another one was faster
                continue
            finally:
                os.close(descriptor)

    def _size(self) -> int:
        size = 0
        for pattern in ("*.open", "*.ready"):
            for path in self._directory.glob(pattern):
                with suppress(FileNotFoundError):
                    size += path.stat().st_size
        return size


def _whole_lines(content: bytes) -> Sequence[bytes]:
    # A crash may have cut off the last line; nobody was told that it is kept.
    return content.split(b"\n")[:-1]


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
