"""Fetches one file in parallel parts, and gives it a name when it is what it must be.

    blobs/KEY-partial         the bytes so far, each at its own place
    blobs/KEY-partial.json    which they are (parts.py)
    blobs/.locks/KEY          who is at it
    blobs/.urls/KEY           what a file turned out to be whose digest nobody told us

Whoever holds the lock downloads; anybody else who wants the same file, in this
process or another, watches the state, and goes on from it if the first gives up.
A file is renamed to its digest after all of it was read back and hashed.
"""

import asyncio
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import structlog
from msgspec import Struct

from engines.errors import EngineError, Unavailable
from engines.gguf.files.digests import Digest, digest_of_file, parse_digest
from engines.gguf.files.file_lock import FileLock
from engines.gguf.files.folder import ModelFolder
from engines.gguf.files.in_thread import in_thread
from engines.gguf.files.manifests import MAX_LAYER_BYTES
from engines.gguf.files.writing import make_folder, write_whole
from engines.gguf.registry.parts import Parts, done_bytes_of
from engines.gguf.registry.transfer import NoRanges, OpenRange, Transfer, Wanted
from engines.gguf.registry.web import Patience

log = structlog.get_logger()

_WATCH_SECONDS = 0.1
_SAVE_SECONDS = 0.5


def free_bytes(folder: Path) -> int:
    """What may still be written where this folder is."""
    return shutil.disk_usage(folder).free


class HowToFetch(Struct, frozen=True, kw_only=True):
    """How downloads are made."""

    patience: Patience = Patience()
    part_bytes: int = 64 * 1024 * 1024
    num_streams: int = 8  # parts that are fetched at once
    spare_bytes: int = 64 * 1024 * 1024  # that must stay free on the disk
    free_bytes: Callable[[Path], int] = free_bytes

    def check_disk(self, folder: Path, missing_bytes: int) -> None:
        """Raise `Unavailable` if so much more does not fit."""
        make_folder(folder)
        free = self.free_bytes(folder) - self.spare_bytes
        if missing_bytes > max(0, free):
            raise Unavailable(
                f"{_gigabytes(missing_bytes)} are missing and the disk of {str(folder)!r} has "
                f"{_gigabytes(max(0, free))} left: make room, or choose another models folder"
            )


class Download:
    """One fetching of one file: `run` it once, and look at `done_bytes` meanwhile."""

    def __init__(
        self, folder: ModelFolder, wanted: Wanted, open_range: OpenRange, how: HowToFetch
    ) -> None:
        self.total_bytes = wanted.size_bytes
        self.is_verifying = False
        self._folder = folder
        self._wanted = wanted
        self._open_range = open_range
        self._how = how
        self._parts: Parts | None = None
        self._watched_bytes = 0
        self._path = folder.blobs / f"{wanted.key}-partial"
        self._state = folder.blobs / f"{wanted.key}-partial.json"
        self._note = folder.blobs / ".urls" / wanted.key
        self._lock = FileLock(folder.blobs / ".locks" / wanted.key)

    @property
    def done_bytes(self) -> int:
        """How much of the file is there, whoever fetched it."""
        return self._parts.done_bytes if self._parts is not None else self._watched_bytes

    async def run(self) -> Digest:
        """Return when the blob is in the folder. Raises any `EngineError`.

        Cancelled or failed, it leaves what the next one can go on from, and nothing else."""
        if not 0 <= self.total_bytes <= MAX_LAYER_BYTES:
            raise Unavailable(f"a file of {self.total_bytes} bytes is no model's")
        self._folder.check_writable()
        while True:
            if (there := self._there()) is not None:
                self._watched_bytes = self.total_bytes
                return there
            if self._lock.try_take():
                try:
                    if self._there() is None:
                        return await self._fetch()
                except OSError as error:
                    raise self._disk_failed(error) from None
                finally:
                    if not self._wanted.is_one:
                        self._forget()
                    self._lock.release(remove=True)
            else:
                self._watched_bytes = done_bytes_of(self._state)
                await asyncio.sleep(_WATCH_SECONDS)

    def _there(self) -> Digest | None:
        """The digest of the blob if it has been fetched already."""
        digest = self._wanted.digest or self._noted()
        if digest is None:
            return None
        path = self._folder.blob(digest)
        is_there = path.is_file() and path.stat().st_size == self.total_bytes
        return digest if is_there else None

    def _noted(self) -> Digest | None:
        """What this version of a file without a known digest turned out to be."""
        try:
            tag, _, digest = self._note.read_text().rpartition("\n")
            return parse_digest(digest) if tag == self._wanted.tag else None
        except (OSError, ValueError):
            return None

    async def _fetch(self) -> Digest:
        while True:
            parts = self._opened(self._how.part_bytes if self._wanted.is_one else self._one_part)
            resumed_bytes = parts.done_bytes
            try:
                await self._fill(parts)
            except NoRanges:
                self._forget()
                await self._fill(self._opened(self._one_part))
            digest = await self._verified()
            if self._wanted.digest in (None, digest):
                await in_thread(self._folder.adopt, self._path, digest)
                self._forget()
                if self._wanted.tag:
                    make_folder(self._note.parent)
                    write_whole(self._note, f"{self._wanted.tag}\n{digest}".encode(), lasts=False)
                return digest
            self._forget()
            if not resumed_bytes:
                raise Unavailable(
                    f"what was fetched has digest {digest}, not {self._wanted.digest}: it was "
                    "damaged on its way or is something else; it was thrown away"
                )
            # The machine may have stopped before some bytes were on its disk.
            log.warning("download_began_anew", digest=str(self._wanted.digest), found=str(digest))

    def _opened(self, part_bytes: int) -> Parts:
        """The file and its state, new or as they were left; the disk has room for the rest."""
        size_bytes, tag = self.total_bytes, self._wanted.tag
        parts = Parts.kept(self._state, size_bytes, tag) if self._wanted.is_one else None
        if parts is None or not self._path.is_file():
            self._forget()
            parts = Parts.new(self._state, size_bytes, tag, part_bytes)
        self._how.check_disk(self._folder.blobs, size_bytes - parts.done_bytes)
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            os.ftruncate(handle, size_bytes)
        finally:
            os.close(handle)
        parts.save()
        self._parts = parts
        return parts

    async def _fill(self, parts: Parts) -> None:
        """Fetch what is missing, several parts at once."""
        transfer = Transfer(self._open_range, self._wanted, self._how.patience, self._path)
        missing = parts.missing

        async def work() -> None:
            while missing:
                await transfer.fetch(missing.pop(0))

        saver = asyncio.create_task(_saved_now_and_then(parts))
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._how.num_streams, len(missing))):
                    group.create_task(work())
        except BaseExceptionGroup as failed:
            raise _worst(failed) from None
        finally:
            saver.cancel()
            await asyncio.wait({saver})
            parts.save_if_possible()

    async def _verified(self) -> Digest:
        self.is_verifying = True
        try:
            return await in_thread(digest_of_file, self._path)
        finally:
            self.is_verifying = False

    @property
    def _one_part(self) -> int:
        return max(1, self.total_bytes)

    def _disk_failed(self, error: OSError) -> EngineError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            kept = "; what was fetched is kept" if self._wanted.is_one else ""
            return Unavailable(
                f"the disk of {str(self._path.parent)!r} is full{kept}: make room and pull again"
            )
        return Unavailable(f"{str(self._path)!r} cannot be written: {error.strerror or error}")

    def _forget(self) -> None:
        self._path.unlink(missing_ok=True)
        self._state.unlink(missing_ok=True)


async def _saved_now_and_then(parts: Parts) -> None:
    while True:
        await asyncio.sleep(_SAVE_SECONDS)
        await in_thread(parts.save_if_possible)


def _worst(failed: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure to tell of: parts of one file fail for one reason, most of the time."""
    for kind in (asyncio.CancelledError, EngineError, NoRanges, OSError):
        found = failed.subgroup(kind)
        while isinstance(found, BaseExceptionGroup):
            found = found.exceptions[0]
        if found is not None:
            return found
    return failed


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
