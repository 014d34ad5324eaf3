"""The ledger's tables, and the records that their rows become.

The schema is written twice on purpose: here for queries, in migrations/ for
history. tests/gateway/ledger/test_migrations.py compares the two.
"""

from datetime import UTC, datetime
from typing import Any

from msgspec import Struct
from sqlalchemy import Column, DateTime, Dialect, LargeBinary, MetaData, String, Table
from sqlalchemy.types import TypeDecorator

MAX_NAME_CHARACTERS = 200


class Instant(TypeDecorator[datetime]):
    """A moment in UTC, in every database: SQLite forgets time zones, so it gets none."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse a moment without a zone: nobody knows when that is."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone")
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Say again that it is UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData()

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("team", String(MAX_NAME_CHARACTERS), nullable=False),
    Column("name", String(MAX_NAME_CHARACTERS), nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant),
    Column("revoked_at", Instant),
    Column("last_used_at", Instant),
    Column("digest", LargeBinary(32), nullable=False),
    Column("pepper_version", String(16), nullable=False),
)


class ApiKey(Struct, frozen=True, kw_only=True):
    """What is kept of an API key. The secret is not: only its digest under a pepper."""

    id: str  # the public part; safe to log
    team: str
    name: str
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    digest: bytes
    pepper_version: str

    def is_usable(self, now: datetime) -> bool:
        """Neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)
