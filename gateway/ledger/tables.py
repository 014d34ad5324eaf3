"""The ledger's tables.

The schema is written twice on purpose: here for queries, in migrations/ for
history. tests/gateway/ledger/test_migrations.py compares the two.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    Dialect,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
)
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
    Column("role", String(16), nullable=False, server_default="member"),
    Column("disabled_at", Instant),
    Column("rotated_at", Instant),
    Column("previous_digest", LargeBinary(32)),
    Column("previous_pepper_version", String(16)),
    Column("previous_expires_at", Instant),
    Column("previous_used_at", Instant),
    Column("models", JSON(none_as_null=True)),
    Column("endpoints", JSON(none_as_null=True)),
    Column("networks", JSON(none_as_null=True)),
    Column("limits", String(MAX_NAME_CHARACTERS)),
    Column("change", BigInteger, nullable=False, server_default="0", index=True),
)

# One row. Whoever changes a key counts it up first, and so waits for who did before: no
# change is ever committed with a number below one that a gateway has seen.
key_changes = Table(
    "key_changes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("last", BigInteger, nullable=False),
)
