"""The durable records: API keys today; usage and the audit log join them later.

    async with open_ledger(settings.ledger_url) as ledger:
        key = await ledger.key("k3v9…")

An SQLite file by default, any database that SQLAlchemy can speak to by URL. No
call waits here on the hot path: gateway/keys keeps what it looked up.
"""

from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from gateway.errors import LedgerUnavailable
from gateway.ledger import api_keys
from gateway.ledger.api_keys import ApiKey, KeyChange, KeyState, Used
from gateway.ledger.opening import WRITES_FIRST, LedgerNotOpened, open_engine, reason_of
from gateway.ledger.tables import MAX_NAME_CHARACTERS

__all__ = [
    "MAX_NAME_CHARACTERS",
    "ApiKey",
    "KeyChange",
    "KeyState",
    "Ledger",
    "LedgerNotOpened",
    "open_ledger",
]

log: Any = structlog.get_logger()


class Ledger:
    """The records of one gateway, or of several that share a database.

    Every method raises `LedgerUnavailable` when the database does not answer.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

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
    async def _transaction(
        self, *, writes_first: bool = False
    ) -> AsyncGenerator[AsyncConnection, None]:
        try:
            async with self._engine.connect() as connection:
                await connection.execution_options(**{WRITES_FIRST: writes_first})
                async with connection.begin():
                    yield connection
        except (SQLAlchemyError, OSError) as error:
            log.error("ledger_failed", reason=reason_of(error))
            raise LedgerUnavailable from error


@asynccontextmanager
async def open_ledger(url: str) -> AsyncGenerator[Ledger, None]:
    """The ledger at this SQLAlchemy URL, with its schema up to date. Raises `LedgerNotOpened`."""
    engine = await open_engine(url)
    try:
        yield Ledger(engine)
    finally:
        await engine.dispose()
