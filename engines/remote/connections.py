"""The connections to one upstream: those in use, and those that are kept for the next question.

The one that was used last is used next, so that what a quiet hour does not need is
closed. Time limits are watched by one look at all of them now and then, and not by
a timer for each answer.
"""

import asyncio
from time import monotonic

from engines.remote.config import RemoteConfig
from engines.remote.connection import Connection
from engines.remote.connector import Connector
from engines.remote.failures import AnsweredTooLate, ClosedUnanswered

KEEP_ALIVE_SECONDS = 30.0
WATCH_SECONDS = 0.1  # how late a limit may be noticed


class Connections:
    """The event loop owns it. Raises `OSError` where the certificates to trust cannot be read."""

    def __init__(self, config: RemoteConfig) -> None:
        self._connector = Connector(config)
        self._first_byte_seconds = config.first_byte_seconds
        self._idle_seconds = config.idle_seconds
        self._watch_seconds = min(
            WATCH_SECONDS,
            config.first_byte_seconds / 4,
            config.idle_seconds / 4,
            config.total_seconds / 4,
        )
        self._loop = asyncio.get_running_loop()
        self._busy: set[Connection] = set()
        self._kept: dict[Connection, None] = {}  # the one used last is the last
        self._opening: set[asyncio.Task[Connection]] = set()
        self._watch: asyncio.TimerHandle | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._is_closed = False

    @property
    def num_open(self) -> int:
        """Connections that are in use or kept for later."""
        return len(self._busy) + len(self._kept)

    def kept_one(self) -> Connection | None:
        """The kept connection that was used last, now in use; None without one."""
        if not self._kept:
            return None
        connection = self._kept.popitem()[0]
        self._busy.add(connection)
        if self._watch is None:
            self._watch = self._loop.call_later(self._watch_seconds, self._look)
        return connection

    async def fresh_one(self) -> Connection:
        """A new connection, now in use. Raises `ConnectionFailure`."""
        opening = asyncio.create_task(self._connector.connect(self._drop))
        self._opening.add(opening)
        opening.add_done_callback(self._opened)
        try:
            connection = await opening
        except asyncio.CancelledError:
            if self._is_closed and opening.cancelled():
                raise ClosedUnanswered("this gateway closed it") from None
            if opening.done() and not opening.cancelled() and opening.exception() is None:
                opening.result().abort()  # it came, but whoever wanted it is leaving
            raise
        if self._is_closed:
            connection.abort()
            raise ClosedUnanswered("this gateway closed it")
        self._busy.add(connection)
        if self._watch is None:
            self._watch = self._loop.call_later(self._watch_seconds, self._look)
        return connection

    async def try_one(self) -> None:
        """Open a connection and close it again. Raises `ConnectionFailure`."""
        (await self._connector.connect(self._drop)).abort()

    def give_back(self, connection: Connection) -> None:
        """It is not in use any more: keep it, or close it at once if it cannot be."""
        if not connection.rest() or self._is_closed:
            connection.break_off(ClosedUnanswered("its reader left"))
            return
        connection.kept_at = monotonic()
        self._busy.discard(connection)
        self._kept[connection] = None
        if self._expiry is None:
            self._expiry = self._loop.call_later(KEEP_ALIVE_SECONDS, self._expire)

    async def close(self) -> None:
        """Close all of them, those of running answers too; idempotent."""
        self._is_closed = True
        for timer in (self._watch, self._expiry):
            if timer is not None:
                timer.cancel()
        opening = tuple(self._opening)
        for task in opening:
            task.cancel()
        self._connector.close()
        for connection in (*self._busy, *self._kept):
            connection.break_off(ClosedUnanswered("this gateway closed it"))
        await asyncio.gather(*opening, return_exceptions=True)
        # A transport closes its socket one turn later; with TLS, two.
        for _ in range(2):
            await asyncio.sleep(0)

    def _opened(self, opening: asyncio.Task[Connection]) -> None:
        self._opening.discard(opening)

    def _drop(self, connection: Connection) -> None:
        """It is closed."""
        self._busy.discard(connection)
        self._kept.pop(connection, None)

    def _look(self) -> None:
        """End what takes too long, and look again later while anything is under way."""
        now = monotonic()
        for connection in tuple(self._busy):
            if connection.has_ended or connection.failure is not None:
                continue
            if now >= connection.until:
                connection.fail(AnsweredTooLate("the answer did not end in time"))
            elif connection.is_sending or connection.is_paused:
                continue  # it is not the upstream's turn
            elif not connection.status:
                if now >= connection.heard_at + self._first_byte_seconds:
                    connection.fail(AnsweredTooLate("the answer did not begin in time"))
            elif now >= connection.heard_at + self._idle_seconds:
                connection.fail(AnsweredTooLate("the answer did not go on in time"))
        self._watch = self._loop.call_later(self._watch_seconds, self._look) if self._busy else None

    def _expire(self) -> None:
        """Close what nobody has used for a while."""
        now = monotonic()
        for connection in tuple(self._kept):
            left = connection.kept_at + KEEP_ALIVE_SECONDS - now
            if left > 0:
                self._expiry = self._loop.call_later(left, self._expire)
                return
            connection.abort()
        self._expiry = None
