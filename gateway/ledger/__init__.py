"""The durable records: API keys, the usage of each call, the audit log.

    async with open_ledger(settings.ledger_url) as ledger:
        key = await ledger.key("k3v9…")
        sums = await ledger.usage.totals(UsageQuery(by=["team"]))

An SQLite file by default, PostgreSQL by URL. No call waits here on the hot path:
gateway/keys keeps what it looked up, and usage goes through writer.py.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from gateway.ledger import api_keys
from gateway.ledger.api_keys import ApiKey, KeyChange, KeyState, Used
from gateway.ledger.audit import (
    AuditEntry,
    AuditHead,
    AuditLog,
    AuditRow,
    DoneBy,
    Verification,
    canonical,
    new_entry,
    note,
)
from gateway.ledger.database import Database
from gateway.ledger.opening import LedgerAway, LedgerNotOpened, engine_at, upgrade
from gateway.ledger.tables import MAX_NAME_CHARACTERS
from gateway.ledger.usage import (
    GROUPS,
    RecordRefused,
    UsageQuery,
    UsageRecord,
    UsageRecords,
    UsageTotal,
)

__all__ = [
    "GROUPS",
    "MAX_NAME_CHARACTERS",
    "ApiKey",
    "AuditEntry",
    "AuditHead",
    "AuditLog",
    "AuditRow",
    "DoneBy",
    "KeyChange",
    "KeyState",
    "Ledger",
    "LedgerAway",
    "LedgerNotOpened",
    "RecordRefused",
    "UsageQuery",
    "UsageRecord",
    "UsageRecords",
    "UsageTotal",
    "Verification",
    "canonical",
    "new_entry",
    "open_ledger",
]

log = structlog.get_logger()

OPEN_AGAIN_SECONDS = 1.0


class Ledger:
    """The records of one gateway, or of several that share a database.

    Every method raises `LedgerUnavailable` when the database does not answer.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._database = Database(engine)
        self.usage = UsageRecords(self._database)
        self.audit = AuditLog(self._database)

    @property
    def was_opened(self) -> bool:
        """Has its database answered since the start? Until then nothing can be asked of it."""
        return self._database.is_open

    async def open(self) -> None:
        """Bring the schema up to date. Raises `LedgerNotOpened`, of a server away `LedgerAway`."""
        await upgrade(self._engine)
        self._database.is_open = True

    async def insert_key(self, key: ApiKey) -> None:
        """Keep a new key."""
        async with self._transaction() as connection:
            await api_keys.insert_key(connection, key)

    async def key(self, key_id: str) -> ApiKey | None:
        """The key with this public id, revoked and expired ones too."""
        async with self._transaction() as connection:
            return await api_keys.find_key(connection, key_id)

    async def keys(self, team: str | None = None) -> list[ApiKey]:
        """Every key ever made, or every one of a team, oldest first."""
        async with self._transaction() as connection:
            return await api_keys.list_keys(connection, team)

    async def change_key(self, key_id: str, change: Callable[[ApiKey], ApiKey]) -> KeyChange | None:
        """Write what `change` makes of a key and count it; None if there is no such key.

        Nobody else changes the key meanwhile. Keys are never deleted: old usage must
        still say whose it was.
        """
        async with self._transaction(writes_first=True) as connection:
            return await api_keys.change_key(connection, key_id, change)

    async def last_key_change(self) -> int:
        """The number of the last change of any key; it only grows."""
        async with self._transaction() as connection:
            return await api_keys.last_change(connection)

    async def changed_keys(self, after: int) -> Collection[str]:
        """The ids of the keys that were changed after the change with this number."""
        async with self._transaction() as connection:
            return await api_keys.changed_keys(connection, after)

    async def touch_keys(self, used: Used, previous_used: Used) -> None:
        """Note when keys were last used, by their secret and by the one before it."""
        async with self._transaction() as connection:
            await api_keys.touch_keys(connection, used, previous=False)
            await api_keys.touch_keys(connection, previous_used, previous=True)

    @asynccontextmanager
    async def audited(self) -> AsyncGenerator[Callable[[AuditEntry], Awaitable[None]], None]:
        """Changes and their entries in the audit log, kept all or not at all.

        Whatever this task asks of the ledger inside the block belongs together; the block
        is given the function that records an entry.
        """
        rows: list[AuditRow] = []

        async def record(entry: AuditEntry) -> None:
            rows.append(await self.audit.append(entry))

        async with self._database.transaction(writes_first=True, shared=True):
            yield record
        for row in rows:
            note(row)

    async def close(self) -> None:
        """Close every connection."""
        await self._database.close()

    def _transaction(
        self, *, writes_first: bool = False
    ) -> AbstractAsyncContextManager[AsyncConnection]:
        return self._database.transaction(writes_first=writes_first)


@asynccontextmanager
async def open_ledger(url: str, *, waits: bool = False) -> AsyncGenerator[Ledger, None]:
    """The ledger at this SQLAlchemy URL, with its schema up to date. Raises `LedgerNotOpened`.

    With `waits`, a server that is away is none of these: the ledger is opened as soon as
    the server answers, and raises `LedgerUnavailable` until then.
    """
    ledger = Ledger(await engine_at(url))
    opening: asyncio.Task[None] | None = None
    try:
        try:
            await ledger.open()
        except LedgerAway as error:
            if not waits:
                raise
            log.error("ledger_away", reason=str(error))
            opening = asyncio.create_task(_opened_later(ledger))
        yield ledger
    finally:
        if opening is not None:
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
        await ledger.close()


async def _opened_later(ledger: Ledger) -> None:
    said = ""
    while not ledger.was_opened:
        await asyncio.sleep(OPEN_AGAIN_SECONDS)
        try:
            await ledger.open()
        except LedgerAway:
            continue
        except LedgerNotOpened as error:
            # It is there and cannot be used, which a person may mend; the log says so once.
            if (reason := str(error)) != said:
                log.error("ledger_not_opened", reason=reason)
            said = reason
    log.info("ledger_opened")
