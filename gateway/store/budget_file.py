"""Keeps the memory store's windows over a restart, in a file of the data directory.

A monthly budget that a restart gives back is none. Rates and leases are not kept:
they would be over by the time that the process is back.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import structlog

from gateway.store.memory import MemoryStore

log = structlog.get_logger()

WRITE_SECONDS = 5.0  # what a crash may forget

_decoder = msgspec.json.Decoder(dict[str, tuple[int, int, int]])


class KeptMemoryStore(MemoryStore):
    """A memory store whose windows are written to `path` now and then, and at the end."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._written = b""

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """Read the file, and write it while there is something new."""
        self._read()
        writing = asyncio.create_task(self._keep_writing())
        try:
            yield
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            self._write()

    def _read(self) -> None:
        try:
            self.restore(_decoder.decode(self._path.read_bytes()))
        except FileNotFoundError:
            return
        except (OSError, msgspec.DecodeError) as error:
            log.error("budgets_not_read", file=str(self._path), error=str(error))

    async def _keep_writing(self) -> None:
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            self._write()

    def _write(self) -> None:
        content = msgspec.json.encode(self.windows())
        if content == self._written or (not self._written and not self.windows()):
            return
        beside = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_bytes(content)
            beside.replace(self._path)
        except OSError as error:
            log.error("budgets_not_written", file=str(self._path), error=str(error))
        else:
            self._written = content
