"""The key records that this process remembers, and how they stay true.

The ledger counts every change of a key. Four times in a second or so a task here asks
for the count and forgets the keys that were changed, so a call waits for the ledger
only where its key is new to this process, and a change made anywhere is felt within
`FRESH_SECONDS`. The task runs while calls come; the first call after a pause asks
itself.

When the ledger does not answer, keys that are known go on being good for as long as the
caller has patience. Whoever cannot reach the ledger cannot revoke a key there either,
but another gateway may: patience is how long that may go unnoticed. Keys that are not
known are `LedgerUnavailable` and never taken for bad ones.

Records are remembered by the key's public id and never by anything of its secret, which
is checked anew each time.
"""

import asyncio
import math
from collections.abc import Callable, Collection
from contextvars import Context
from typing import Any, Protocol

import structlog
from msgspec import Struct

from gateway.errors import LedgerUnavailable
from gateway.keys.short_memory import ShortMemory
from gateway.ledger import ApiKey

log: Any = structlog.get_logger()

FRESH_SECONDS = 1.0  # no call goes by what is older, while the ledger answers
CHECK_SECONDS = 0.25  # between two questions for the count
ANSWER_SECONDS = 0.5  # for the count; with the pause before it well below FRESH_SECONDS
# For the first one, as a process that has just started is busy, and knows no key meanwhile.
FIRST_ANSWER_SECONDS = 2.0
LOOK_UP_SECONDS = 1.0  # a slow database is worse than a dead one
IDLE_SECONDS = 5.0  # without calls, nobody asks
ABSENT_SECONDS = 5.0
MAX_KNOWN = 10_000
MAX_ABSENT = 1_000


class KeyRecords(Protocol):
    """What is needed of the ledger."""

    async def key(self, key_id: str) -> ApiKey | None: ...
    async def last_key_change(self) -> int: ...
    async def changed_keys(self, after: int) -> Collection[str]: ...


class KnownKeys:
    """What one process knows of keys, owned by its event loop. `close()` it at the end."""

    def __init__(self, ledger: KeyRecords, *, monotonic: Callable[[], float]) -> None:
        self._ledger = ledger
        self._monotonic = monotonic
        self._known = ShortMemory[ApiKey](MAX_KNOWN, math.inf)
        self._absent = ShortMemory[str](MAX_ABSENT, ABSENT_SECONDS)
        self._look_ups: dict[str, asyncio.Task[_Found]] = {}
        self._last: int | None = None  # the last change that is known here
        self._checked_at = -math.inf  # when the last question began that was answered
        self._is_failing = False
        self._forgettings = 0
        self._asked_at = -math.inf
        self._checking: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None

    async def find(self, key_id: str, *, patience_seconds: float) -> ApiKey | None:
        """The record with this id, whatever its state; None if there is none.

        Raises `LedgerUnavailable` when the ledger does not answer and the record is not
        known, or not known well enough.
        """
        now = self._asked_at = self._monotonic()
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch(), context=Context())
        if now - self._checked_at >= FRESH_SECONDS:
            await self._refreshed(now, patience_seconds)
        name = key_id.encode()
        key = self._known.get(name, now)
        if key is not None or self._absent.get(name, now) is not None:
            return key
        return await self._looked_up(key_id)

    def forget(self, key_id: str) -> None:
        """A key has changed: look it up again, also where a look-up is under way."""
        self._forgettings += 1
        self._known.drop(key_id.encode())

    async def close(self) -> None:
        """Let the questions under way end."""
        if self._watching is not None:
            self._watching.cancel()
        tasks = [task for task in (self._watching, self._checking) if task is not None]
        await asyncio.gather(*self._look_ups.values(), *tasks, return_exceptions=True)

    async def _refreshed(self, now: float, patience_seconds: float) -> None:
        """Ask what has changed; but nobody waits for a ledger that has just not answered."""
        check = self._check_at_once()
        if not self._is_failing:
            await asyncio.shield(check)
        if self._is_failing and now - self._checked_at >= patience_seconds:
            raise LedgerUnavailable

    def _check_at_once(self) -> "asyncio.Task[None]":
        """One question at a time; who asks meanwhile shares the answer."""
        if self._checking is None or self._checking.done():
            self._checking = asyncio.create_task(self._check(), context=Context())
        return self._checking

    async def _check(self) -> None:
        at = self._monotonic()
        seconds = FIRST_ANSWER_SECONDS if self._last is None else ANSWER_SECONDS
        try:
            async with asyncio.timeout(seconds):
                last = await self._ledger.last_key_change()
                if self._last is not None and last != self._last:
                    await self._forget_changed(last)
        except (LedgerUnavailable, TimeoutError):
            if not self._is_failing:
                log.error("key_changes_unknown", seconds=seconds)
            self._is_failing = True
            return
        if self._is_failing:
            log.info("key_changes_known_again")
        self._last, self._checked_at, self._is_failing = last, at, False

    async def _forget_changed(self, last: int) -> None:
        assert self._last is not None
        if last < self._last:
            # An older copy of the ledger was put in its place.
            self._forgettings += 1
            self._known.clear()
            return
        for key_id in await self._ledger.changed_keys(self._last):
            self.forget(key_id)

    async def _watch(self) -> None:
        while self._monotonic() - self._asked_at < IDLE_SECONDS:
            await asyncio.sleep(CHECK_SECONDS)
            await self._check_at_once()

    async def _looked_up(self, key_id: str) -> ApiKey | None:
        """Read one record; who asks for the same id meanwhile shares the answer."""
        task = self._look_ups.get(key_id)
        if task is None:
            task = asyncio.create_task(self._read(key_id), context=Context())
            self._look_ups[key_id] = task
            task.add_done_callback(lambda done: self._look_up_ended(key_id, done))
        # A caller that hangs up must not end the look-up for the others.
        found = await asyncio.shield(task)
        return found.key

    async def _read(self, key_id: str) -> "_Found":
        at, forgettings = self._monotonic(), self._forgettings
        try:
            async with asyncio.timeout(LOOK_UP_SECONDS):
                key = await self._ledger.key(key_id)
        except TimeoutError as error:
            log.error("ledger_slow", seconds=LOOK_UP_SECONDS)
            raise LedgerUnavailable from error
        if key is None:
            self._absent.put(key_id.encode(), key_id, at)
        elif forgettings == self._forgettings:
            # A record that was read before a change must not outlive it here.
            self._known.put(key_id.encode(), key, at)
        return _Found(key)

    def _look_up_ended(self, key_id: str, task: "asyncio.Task[_Found]") -> None:
        self._look_ups.pop(key_id, None)
        if not task.cancelled():
            task.exception()  # asyncio complains of a failure that nobody asked for


class _Found(Struct, frozen=True):
    """What a look-up read."""

    key: ApiKey | None
