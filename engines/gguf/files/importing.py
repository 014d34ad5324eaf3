"""Brings a file of this machine into a models folder, as a blob.

It is copied and hashed in one go, so what has the name is what was hashed, even
if somebody writes to the original meanwhile. On file systems that can share
blocks the copy takes no room (copy_file_range).
"""

import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engines.errors import RequestRefused, Unavailable
from engines.gguf.files.digests import Digest, digest_of_file
from engines.gguf.files.file_lock import FileLock
from engines.gguf.files.folder import ModelFolder
from engines.gguf.files.writing import make_folder

_CHUNK_BYTES = 4 * 1024 * 1024


def import_file(folder: ModelFolder, path: Path, expected: Digest | None = None) -> Digest:
    """Copy a file in; `expected` is what it must be. Raises any `EngineError`."""
    with unfinished(folder) as copy:
        try:
            _copy(path, copy)
        except OSError as error:
            raise Unavailable(
                f"{path.name!r} cannot be copied: {error.strerror or error}"
            ) from None
        return keep(folder, copy, expected)


@contextmanager
def unfinished(folder: ModelFolder) -> Iterator[Path]:
    """A file without a name that others see; it is gone at the end unless it was kept.

    What a process leaves that is killed is removed by the next one that makes such a file."""
    folder.check_writable()
    make_folder(folder.blobs)
    copies = folder.blobs / ".copies"
    _sweep(copies)
    path = copies / uuid.uuid4().hex
    lock = FileLock(path)
    lock.try_take()
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
        lock.release()


def keep(folder: ModelFolder, path: Path, expected: Digest | None = None) -> Digest:
    """Make an unfinished file a blob. Raises `RequestRefused` if it is not what was expected."""
    try:
        digest = digest_of_file(path)
        if expected not in (None, digest):
            raise RequestRefused(f"the file has digest {digest}, not {expected}", param="digest")
        folder.adopt(path, digest)
    except OSError as error:
        raise Unavailable(f"a blob cannot be written: {error.strerror or error}") from None
    return digest


def _copy(source: Path, target: Path) -> None:
    # Not blocked by a pipe that nobody writes to.
    handle = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(handle, "rb", buffering=0), target.open("r+b", buffering=0) as written:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise RequestRefused(f"{source.name!r} is not a regular file")
        copied = _copy_in_kernel(handle, written.fileno(), status.st_size)
        while chunk := os.read(handle, _CHUNK_BYTES):
            copied += len(chunk)
            while chunk:  # a disk that is nearly full takes less than it is given
                chunk = chunk[os.write(written.fileno(), chunk) :]
    if copied < status.st_size:
        raise Unavailable(f"{source.name!r} has become shorter while it was copied")


def _copy_in_kernel(source: int, target: int, num_bytes: int) -> int:
    """How much of it was copied: all, or as much as this file system does that way."""
    copied = 0
    try:
        while copied < num_bytes:
            more = os.copy_file_range(source, target, num_bytes - copied)
            if not more:
                break
            copied += more
    except OSError:
        pass  # whoever copies the rest meets the reason again
    return copied


def _sweep(copies: Path) -> None:
    """Remove the copies that nobody is making any more."""
    if not copies.is_dir():
        return
    for path in copies.iterdir():
        lock = FileLock(path)
        if lock.try_take():
            lock.release(remove=True)
