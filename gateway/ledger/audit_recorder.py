"""Sees to it that what is done is in the audit log, also while the database is away.

An entry is kept before the thing is done: in the database, or else on this machine's
disk, from where it goes into the chain later. Only if neither takes it is the thing
refused. In the chain an entry has the time at which it happened and the place in which
it was written down.
"""

import asyncio
from types import TracebackType
from typing import Any, Protocol

import msgspec
import structlog

from gateway.errors import LedgerUnavailable
from gateway.ledger.audit import AuditEntry, AuditRow, note
from gateway.ledger.spool import Spool, Spooled

log: Any = structlog.get_logger()

RETRY_SECONDS = 2.0
LOOK_SECONDS = 60.0  # how often to look for what a dead process left in the spool

_DECODER = msgspec.json.Decoder(AuditEntry)


class TakesEntries(Protocol):
    """Where the entries go in the end."""

    async def append(self, entry: AuditEntry) -> AuditRow: ...


class AuditRecorder:
    """Records one process's entries. `async with` it: a task brings spooled ones home."""

    def __init__(
        self, audit: TakesEntries, spool: Spool, *, retry_seconds: float = RETRY_SECONDS
    ) -> None:
        self._audit = audit
        self._spool = spool
        self._retry_seconds = retry_seconds
        self._spooling = asyncio.Lock()
        self._has_spooled = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def record(self, entry: AuditEntry) -> None:
        """Keep this entry for good. Raises `LedgerUnavailable` if nothing here can."""
        try:
            note(await self._audit.append(entry))
            return
        except LedgerUnavailable:
            pass
        try:
            async with self._spooling:
                kept = await asyncio.to_thread(self._spool.append, [msgspec.json.encode(entry)])
        except OSError as error:
            log.error("audit_spool_failed", reason=str(error))
            raise LedgerUnavailable from error
        if not kept:
            log.error("audit_spool_full")
            raise LedgerUnavailable
        log.warning("audit_spooled", action=entry.action, subject=entry.subject, id=entry.id)
        self._has_spooled.set()

    async def __aenter__(self) -> "AuditRecorder":
        self._has_spooled.set()  # a process before this one may have left some
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.to_thread(self._spool.close)

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._has_spooled.wait()
            except TimeoutError:
                pass
            self._has_spooled.clear()
            try:
                await self._bring_home()
            except LedgerUnavailable:
                self._has_spooled.set()
                await asyncio.sleep(self._retry_seconds)
            except Exception as error:
                # Entries that stay on the disk must not go unnoticed, nor end the task.
                log.error("audit_recorder_failed", exc_info=error)
                await asyncio.sleep(LOOK_SECONDS)

    async def _bring_home(self) -> None:
        while True:
            async with self._spooling:
                spooled = await asyncio.to_thread(self._spool.take)
            if spooled is None:
                return
            for entry in _decoded(spooled):
                note(await self._audit.append(entry))
            await asyncio.to_thread(self._spool.done, spooled)


def _decoded(spooled: Spooled) -> list[AuditEntry]:
    entries: list[AuditEntry] = []
    for line in spooled.lines:
        try:
            entries.append(_DECODER.decode(line))
        except msgspec.DecodeError as error:  # a broken disk must not hold up the rest
            log.error("audit_spool_unreadable", file=spooled.path.name, reason=str(error))
    return entries
