"""A database that is asked with a deadline: what does not answer is cut off, not waited for.

A server that was stopped takes what is sent and says nothing, for ever; asking it to
cancel hangs too. So each transaction has so many seconds, after which its connection is
closed under it, and for a moment nobody else is made to wait for the same server.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import structlog
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from gateway.errors import LedgerUnavailable
from gateway.ledger.opening import ANSWER_SECONDS, WRITES_FIRST, reason_of

log: Any = structlog.get_logger()

REST_SECONDS = 1.0  # how long a server that did not answer in time is left alone


class Database:
    """The ledger's connections. Owned by the event loop.

    Whatever goes wrong in a transaction is `LedgerUnavailable`, with its cause.
    """

    def __init__(
        self, engine: AsyncEngine, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._engine = engine
        self._monotonic = monotonic
        self._is_sqlite = engine.dialect.name == "sqlite"
        self._open: set[Any] = set()  # asyncpg's own connections
        self._busy: set[Any] = set()
        self._shared: dict[asyncio.Task[Any] | None, AsyncConnection] = {}
        self._left_alone_until = 0.0
        self.is_open = False  # until its schema is up to date
        if not self._is_sqlite:
            event.listen(engine.sync_engine, "connect", self._note_open)

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._engine.dialect.name

    @asynccontextmanager
    async def transaction(
        self, *, seconds: float = ANSWER_SECONDS, writes_first: bool = False, shared: bool = False
    ) -> AsyncGenerator[AsyncConnection, None]:
        """A transaction; committed at the end of the block, rolled back if it raises.

        `writes_first` takes SQLite's write lock at once. What the same task asks of a
        `shared` one while it is open becomes a part of it.
        """
        task = asyncio.current_task()
        with _explained():
            if (outer := self._shared.get(task)) is not None:
                yield outer
                return
            async with self._begun(seconds, writes_first=writes_first) as connection:
                if shared:
                    self._shared[task] = connection
                try:
                    yield connection
                finally:
                    self._shared.pop(task, None)

    async def close(self) -> None:
        """Close every connection; one that does not say goodbye is cut off."""
        cutting = asyncio.get_running_loop().call_later(ANSWER_SECONDS, self._cut, set(self._open))
        try:
            await self._engine.dispose()
        finally:
            cutting.cancel()
            self._cut(set(self._open))

    @asynccontextmanager
    async def _begun(
        self, seconds: float, *, writes_first: bool
    ) -> AsyncGenerator[AsyncConnection, None]:
        if not self.is_open or self._monotonic() < self._left_alone_until:
            raise LedgerUnavailable
        mine: set[Any] = set()
        loop = asyncio.get_running_loop()
        deadline = loop.call_later(seconds, self._give_up, mine) if not self._is_sqlite else None
        try:
            async with self._engine.connect() as connection:
                if not self._is_sqlite:
                    mine.add((await connection.get_raw_connection()).driver_connection)
                    self._busy |= mine
                if writes_first:
                    await connection.execution_options(**{WRITES_FIRST: True})
                async with connection.begin():
                    yield connection
        except TimeoutError:  # nor does it take a new connection
            self._left_alone_until = self._monotonic() + REST_SECONDS
            raise
        finally:
            self._busy -= mine
            if deadline is not None:
                deadline.cancel()

    def _give_up(self, mine: set[Any]) -> None:
        """The deadline of a transaction is over, whose connection is `mine` if it has one yet."""
        now = self._monotonic()
        if now >= self._left_alone_until:
            log.warning("ledger_slow")
        self._left_alone_until = now + REST_SECONDS
        # Without one it waits for an idle connection to say that it is alive.
        self._cut(mine or self._open - self._busy)

    def _cut(self, connections: set[Any]) -> None:
        for connection in list(connections):
            connection.terminate()
            self._open.discard(connection)

    def _note_open(self, connection: Any, _record: object) -> None:
        self._open = {one for one in self._open if not one.is_closed()}
        self._open.add(connection.driver_connection)


@contextmanager
def _explained() -> Generator[None, None, None]:
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        log.error("ledger_failed", reason=reason_of(error))
        raise LedgerUnavailable from error
