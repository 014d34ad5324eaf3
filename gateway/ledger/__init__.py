"""The durable records: API keys, the usage of each call, the audit log.

    async with open_ledger(settings.ledger_url) as ledger:
        key = await ledger.key("k3v9…")
        sums = await ledger.usage.totals(UsageQuery(by=["team"]))

An SQLite file by default, PostgreSQL by URL. No call waits here on the hot path:
gateway/keys keeps what it looked up, and usage goes through writer.py.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import RowMapping, bindparam, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

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
from gateway.ledger.opening import LedgerNotOpened, open_engine
from gateway.ledger.tables import MAX_NAME_CHARACTERS, ApiKey, api_keys
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
    "Ledger",
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


class Ledger:
    """The records of one gateway, or of several that share a database.

    Every method raises `LedgerUnavailable` when the database does not answer.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._database = Database(engine)
        self.usage = UsageRecords(self._database)
        self.audit = AuditLog(self._database)

    async def insert_key(self, key: ApiKey) -> None:
        """Keep a new key."""
        async with self._transaction() as connection:
            await connection.execute(insert(api_keys).values(**msgspec.structs.asdict(key)))

    async def key(self, key_id: str) -> ApiKey | None:
        """The key with this public id, revoked and expired ones too."""
        async with self._transaction() as connection:
            return await _key(connection, key_id)

    async def keys(self) -> list[ApiKey]:
        """Every key ever made, oldest first."""
        query = select(api_keys).order_by(api_keys.c.created_at, api_keys.c.id)
        async with self._transaction() as connection:
            return [_key_of(row) for row in (await connection.execute(query)).mappings()]

    async def revoke_key(self, key_id: str, at: datetime) -> ApiKey | None:
        """Mark a key revoked and return it; the first revocation's time stands.

        Keys are never deleted: old usage must still say whose it was.
        """
        change = (
            update(api_keys)
            .where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
            .values(revoked_at=at)
        )
        async with self._transaction() as connection:
            await connection.execute(change)
            return await _key(connection, key_id)

    async def touch_keys(self, last_used: Mapping[str, datetime]) -> None:
        """Note when keys were last used; an older time than the one noted changes nothing."""
        if not last_used:
            return
        change = (
            update(api_keys)
            .where(
                api_keys.c.id == bindparam("used_id"),
                or_(
                    api_keys.c.last_used_at.is_(None),
                    api_keys.c.last_used_at < bindparam("used_at"),
                ),
            )
            .values(last_used_at=bindparam("used_at"))
        )
        rows: Sequence[Mapping[str, Any]] = [
            {"used_id": key_id, "used_at": at} for key_id, at in sorted(last_used.items())
        ]
        async with self._transaction() as connection:
            await connection.execute(change, rows)

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

    def _transaction(self) -> AbstractAsyncContextManager[AsyncConnection]:
        return self._database.transaction()


@asynccontextmanager
async def open_ledger(url: str) -> AsyncGenerator[Ledger, None]:
    """The ledger at this SQLAlchemy URL, with its schema up to date. Raises `LedgerNotOpened`."""
    ledger = Ledger(await open_engine(url))
    try:
        yield ledger
    finally:
        await ledger.close()


async def _key(connection: AsyncConnection, key_id: str) -> ApiKey | None:
    query = select(api_keys).where(api_keys.c.id == key_id)
    row = (await connection.execute(query)).mappings().one_or_none()
    return None if row is None else _key_of(row)


def _key_of(row: RowMapping) -> ApiKey:
    return ApiKey(**row)
