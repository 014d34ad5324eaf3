"""When keys were last used, written to the ledger later and in batches.

No call waits for it. While the ledger is away the times are kept, up to a number of
keys, and are then simply late.
"""

import asyncio
from collections.abc import Mapping
from contextvars import Context
from datetime import datetime
from typing import Any, Protocol

import structlog

from gateway.errors import LedgerUnavailable

log: Any = structlog.get_logger()

WRITE_SECONDS = 10.0  # how late `last_used_at` may be in the ledger
MAX_NOTED = 20_000  # keys; more than a process remembers


class UseRecords(Protocol):
    """What is needed of the ledger."""

    async def touch_keys(
        self, used: Mapping[str, datetime], previous_used: Mapping[str, datetime]
    ) -> None: ...


class LastUse:
    """The times that the ledger does not have yet. Owned by the event loop."""

    def __init__(self, ledger: UseRecords) -> None:
        self._ledger = ledger
        self._noted: dict[tuple[str, bool], datetime] = {}
        self._writer: asyncio.Task[None] | None = None

    def note(self, key_id: str, at: datetime, *, previous: bool) -> None:
        """A key was used, by its secret or by the one before the last rotation."""
        self._noted[key_id, previous] = at
        if len(self._noted) > MAX_NOTED:
            del self._noted[next(iter(self._noted))]
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_in_batches(), context=Context())

    async def flush(self) -> None:
        """Write what is noted, or keep it if the ledger does not answer."""
        noted, self._noted = self._noted, {}
        used = {key_id: at for (key_id, previous), at in noted.items() if not previous}
        previous_used = {key_id: at for (key_id, previous), at in noted.items() if previous}
        is_written = False
        try:
            await self._ledger.touch_keys(used, previous_used)
            is_written = True
        except LedgerUnavailable:
            pass
        finally:
            if not is_written:
                self._noted = noted | self._noted

    async def close(self) -> None:
        """Write the last ones."""
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)
        await self.flush()

    async def _write_in_batches(self) -> None:
        while self._noted:
            await asyncio.sleep(WRITE_SECONDS)
            try:
                await self.flush()
            except Exception:
                log.exception("last_use_not_written")
