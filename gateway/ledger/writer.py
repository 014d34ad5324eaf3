"""Takes usage records off calls' hands and writes them in batches, wherever they can go.

`put` never waits. A task writes what has gathered to the database; when that does not
answer, to the spool on disk, and from there to the database once it is back. A record
is dropped only if neither takes it and the queue is full; then it is counted.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Protocol

import msgspec
import structlog
from msgspec import Struct

from gateway.errors import LedgerUnavailable
from gateway.ledger.spool import Spool, Spooled
from gateway.ledger.usage import RecordRefused, UsageRecord

log: Any = structlog.get_logger()

MAX_QUEUED = 50_000
BATCH = 500
GATHER_SECONDS = 0.25  # how long records gather before they are written
FIRST_RETRY_SECONDS = 0.5
MAX_RETRY_SECONDS = 5.0
LOOK_SECONDS = 60.0  # how often to look for what a dead process left in the spool

_DECODER = msgspec.json.Decoder(UsageRecord)


class TakesUsage(Protocol):
    """Where the records go in the end."""

    async def insert(self, records: Sequence[UsageRecord]) -> None: ...


class WriterReport(Struct, frozen=True):
    """What became of the records so far. Spooled ones are counted as written when they are."""

    queued: int
    written: int
    spooled: int
    dropped: int  # neither database nor disk took them in time
    refused: int  # the database would never take them
    is_behind: bool  # the database does not answer, or the spool is not empty yet


class UsageWriter:
    """The records of one process on their way. Owned by the event loop.

    `async with` it; leaving the block writes or spools what is left.
    """

    def __init__(
        self,
        records: TakesUsage,
        spool: Spool,
        *,
        max_queued: int = MAX_QUEUED,
        gather_seconds: float = GATHER_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._records = records
        self._spool = spool
        self._max_queued = max_queued
        self._gather_seconds = gather_seconds
        self._monotonic = monotonic
        self._queue: deque[UsageRecord] = deque()
        self._work = asyncio.Event()
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._retry_seconds = 0.0  # how long the next retry is put off; 0: the database answers
        self._retry_at = 0.0
        self._spool_has_some = True  # until it was looked at
        self._num_written = self._num_spooled = self._num_dropped = self._num_refused = 0

    def put(self, record: UsageRecord) -> None:
        """Hand over a record; returns at once, whatever state the database is in."""
        if len(self._queue) >= self._max_queued:
            if not self._num_dropped % 1000:
                log.error("usage_dropped", dropped=self._num_dropped + 1)
            self._num_dropped += 1
            return
        self._queue.append(record)
        self._work.set()

    def report(self) -> WriterReport:
        """What became of the records so far."""
        return WriterReport(
            queued=len(self._queue),
            written=self._num_written,
            spooled=self._num_spooled,
            dropped=self._num_dropped,
            refused=self._num_refused,
            is_behind=self._retry_seconds > 0 or self._spool_has_some,
        )

    async def __aenter__(self) -> "UsageWriter":
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._task is not None
        self._closing.set()
        self._work.set()
        await self._task
        await asyncio.to_thread(self._spool.close)

    async def _run(self) -> None:
        while not self._closing.is_set():
            await self._next_work()
            try:
                await self._round()
            except Exception as error:
                # Whatever it was, the next round may do better, and nobody else would know.
                log.error("usage_writer_failed", exc_info=error)
                self._put_off()
        await self._empty_queue()
        if self._queue:
            log.error("usage_dropped", dropped=len(self._queue))

    async def _next_work(self) -> None:
        """Return when something can be done: records have gathered, or a retry is due."""
        seconds = LOOK_SECONDS
        if self._spool_has_some or self._retry_seconds:
            seconds = max(0.0, self._retry_at - self._monotonic())
        await _set_within(self._work, seconds)
        if self._queue and not self._closing.is_set() and len(self._queue) < BATCH:
            await _set_within(self._closing, self._gather_seconds)
        self._work.clear()

    async def _round(self) -> None:
        await self._empty_queue()
        if self._monotonic() < self._retry_at:
            return
        while not self._closing.is_set():
            spooled = await asyncio.to_thread(self._spool.take)
            self._spool_has_some = spooled is not None
            if spooled is None or not await self._write_spooled(spooled):
                return
            await self._empty_queue()

    async def _empty_queue(self) -> None:
        """Bring what is queued to the database, or else to the disk."""
        while self._queue:
            batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
            is_retry_due = not self._retry_seconds or self._monotonic() >= self._retry_at
            try:
                is_kept = (is_retry_due and await self._write(batch)) or await self._to_spool(batch)
            except BaseException:
                self._queue.extendleft(reversed(batch))
                raise
            if not is_kept:
                return

    async def _write(self, batch: Sequence[UsageRecord]) -> bool:
        """Into the database; False if it does not answer."""
        try:
            await self._records.insert(batch)
            self._num_written += len(batch)
        except LedgerUnavailable:
            self._put_off()
            return False
        except RecordRefused as error:
            if not await self._write_singly(batch, error):
                return False
        if self._retry_seconds:
            log.info("usage_writer_recovered")
            self._retry_seconds = 0.0
        return True

    async def _write_singly(self, batch: Sequence[UsageRecord], refused: RecordRefused) -> bool:
        """One after the other, so that the row that cannot be kept does not hold up the rest."""
        if len(batch) == 1:
            # With all that is in it: the log is the only place where it is kept.
            record = msgspec.to_builtins(batch[0])
            log.error("usage_refused", call=batch[0].call_id, record=record, exc_info=refused)
            self._num_refused += 1
            return True
        for record in batch:
            if not await self._write([record]):
                return False
        return True

    async def _write_spooled(self, spooled: Spooled) -> bool:
        batch = _decoded(spooled)
        for first in range(0, len(batch), BATCH):
            if not await self._write(batch[first : first + BATCH]):
                return False
        await asyncio.to_thread(self._spool.done, spooled)
        return True

    async def _to_spool(self, batch: Sequence[UsageRecord]) -> bool:
        """Onto the disk; False, and back into the queue, if it takes nothing now."""
        lines = [msgspec.json.encode(record) for record in batch]
        try:
            kept = await asyncio.to_thread(self._spool.append, lines)
        except OSError as error:
            log.error("usage_spool_failed", reason=str(error))
            self._queue.extendleft(reversed(batch))
            return False
        self._num_spooled += kept
        self._spool_has_some = self._spool_has_some or kept > 0
        if kept < len(batch):
            log.error("usage_spool_full", dropped=len(batch) - kept)
            self._num_dropped += len(batch) - kept
        return True

    def _put_off(self) -> None:
        doubled = min(self._retry_seconds * 2, MAX_RETRY_SECONDS)
        self._retry_seconds = max(doubled, FIRST_RETRY_SECONDS)
        self._retry_at = self._monotonic() + self._retry_seconds


def _decoded(spooled: Spooled) -> list[UsageRecord]:
    records: list[UsageRecord] = []
    for line in spooled.lines:
        try:
            records.append(_DECODER.decode(line))
        except msgspec.DecodeError as error:  # a broken disk must not hold up the rest
            log.error("usage_spool_unreadable", file=spooled.path.name, reason=str(error))
    return records


async def _set_within(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
