"""What was used: one row for each call, and sums of them by team, key, model, day.

A row is kept once, however often it is written: the call's id is its key. Rows hold
names, counts and times, never a word of what was asked or answered.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    String,
    Table,
    case,
    cast,
    func,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, StatementError
from sqlalchemy.sql import ColumnElement, Select

from gateway.errors import LedgerUnavailable
from gateway.ledger.database import Database
from gateway.ledger.tables import Instant, metadata

WRITE_SECONDS = 5.0
REPORT_SECONDS = 30.0

usage_records = Table(
    "usage_records",
    metadata,
    Column("call_id", String(64), primary_key=True),
    Column("at", Instant, nullable=False),
    Column("day", String(10), nullable=False),
    Column("team", String(200), nullable=False),
    Column("key_id", String(64)),
    Column("principal", String(200), nullable=False),
    Column("endpoint", String(100), nullable=False),
    Column("model", String(300)),
    Column("engine", String(200)),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("cost_micros", BigInteger),
    Column("first_output_seconds", Float),
    Column("seconds", Float, nullable=False),
    Column("streamed", Boolean, nullable=False),
    Column("status", Integer),
    Column("outcome", String(50), nullable=False),
    Column("policy", String(12), nullable=False),
    Index("ix_usage_records_at", "at"),
    Index("ix_usage_records_team_day", "team", "day"),
    Index("ix_usage_records_key_id_day", "key_id", "day"),
)

_columns = usage_records.c
# What sums can be made by, and filtered by.
GROUPS: Mapping[str, Column[Any]] = {
    "day": _columns.day,
    "team": _columns.team,
    "key": _columns.key_id,
    "principal": _columns.principal,
    "model": _columns.model,
    "engine": _columns.engine,
    "endpoint": _columns.endpoint,
    "outcome": _columns.outcome,
    "call": _columns.call_id,
}
_LENGTHS = {
    column.name: column.type.length
    for column in usage_records.columns
    if isinstance(column.type, String)
}


class UsageRecord(Struct, frozen=True, kw_only=True):
    """One call that ended. `at` is when it began; costs are in millionths of the price's unit."""

    call_id: str
    at: datetime
    team: str
    key_id: str | None = None
    principal: str = "-"
    endpoint: str
    model: str | None = None
    engine: str | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    cost_micros: int | None = None
    first_output_seconds: float | None = None
    seconds: float = 0.0
    streamed: bool = False
    status: int | None = None
    outcome: str = "ok"
    policy: str = ""  # the beginning of the policy's digest: which rules and prices held


class UsageTotal(Struct, frozen=True, kw_only=True):
    """The sum over one group. `cost_micros` is None if no call of it had a price."""

    group: Mapping[str, str | None]
    calls: int
    failed: int  # of them, those with an outcome other than ok
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    cost_micros: int | None


class UsageQuery(Struct, frozen=True, kw_only=True):
    """Which calls to sum up, and by what (names in `GROUPS`)."""

    by: Sequence[str] = ()
    since: datetime | None = None
    until: datetime | None = None  # not included
    only: Mapping[str, str] = {}  # a name of `GROUPS` -> its value
    limit: int = 100
    offset: int = 0


class RecordRefused(Exception):
    """The database will never take this batch, or a row in it: another attempt is of no use."""


class UsageRecords:
    """The table. Every method raises `LedgerUnavailable` when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, records: Sequence[UsageRecord]) -> None:
        """Keep each of these once; those that are there already stay as they are.

        Raises `RecordRefused` for what no attempt could write.
        """
        dialect = postgresql if self._database.dialect == "postgresql" else sqlite
        statement = dialect.insert(usage_records).on_conflict_do_nothing(index_elements=["call_id"])
        try:
            rows = [_row(record) for record in records]
            async with self._database.transaction(
                seconds=WRITE_SECONDS, writes_first=True
            ) as connection:
                await connection.execute(statement, rows)
        except LedgerUnavailable as error:
            if _is_about_the_rows(error.__cause__):
                raise RecordRefused from error.__cause__
            raise
        except Exception as error:
            # Not the database's word: a driver could not send a value (sqlite3 raises
            # OverflowError), or we could not make a row. It would be so for ever.
            raise RecordRefused from error

    async def totals(self, query: UsageQuery) -> list[UsageTotal]:
        """The sums, in the order of the groups' values; without `by`, one sum of everything."""
        groups = [GROUPS[name].label(f"by_{name}") for name in query.by]
        statement = _narrowed(select(*groups, *_sums()), query)
        if groups:
            order = [GROUPS[name].asc().nulls_first() for name in query.by]
            statement = statement.group_by(*(GROUPS[name] for name in query.by)).order_by(*order)
        statement = statement.limit(query.limit).offset(query.offset)
        async with self._database.transaction(seconds=REPORT_SECONDS) as connection:
            rows = (await connection.execute(statement)).mappings().all()
        return [
            UsageTotal(
                group={name: row[f"by_{name}"] for name in query.by},
                **{name: row[name] for name in UsageTotal.__struct_fields__ if name != "group"},
            )
            for row in rows
        ]

    async def calls(self, query: UsageQuery) -> list[UsageRecord]:
        """The rows themselves, newest first."""
        columns = [_columns[name] for name in UsageRecord.__struct_fields__]
        statement = _narrowed(select(*columns), query)
        statement = statement.order_by(_columns.at.desc(), _columns.call_id.desc())
        statement = statement.limit(query.limit).offset(query.offset)
        async with self._database.transaction(seconds=REPORT_SECONDS) as connection:
            rows = (await connection.execute(statement)).mappings().all()
        return [UsageRecord(**row) for row in rows]


def _sums() -> list[ColumnElement[Any]]:
    def total(column: Column[Any]) -> ColumnElement[Any]:
        # PostgreSQL adds up big integers to a decimal.
        return cast(func.sum(column), BigInteger)

    counted = ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")
    failed = cast(func.sum(case((_columns.outcome == "ok", 0), else_=1)), BigInteger)
    return [
        func.count().label("calls"),
        func.coalesce(failed, 0).label("failed"),
        *(func.coalesce(total(_columns[name]), 0).label(name) for name in counted),
        total(_columns.cost_micros).label("cost_micros"),
    ]


def _narrowed(statement: Select[Any], query: UsageQuery) -> Select[Any]:
    if query.since is not None:
        statement = statement.where(_columns.at >= query.since)
    if query.until is not None:
        statement = statement.where(_columns.at < query.until)
    for name, value in query.only.items():
        statement = statement.where(GROUPS[name] == value)
    return statement


def _is_about_the_rows(cause: BaseException | None) -> bool:
    """Would the database say so of these rows whenever it is asked?"""
    if isinstance(cause, DataError | IntegrityError) or type(cause) is StatementError:
        return True
    # What PostgreSQL says, and asyncpg itself of a value that it cannot send. SQLAlchemy has no
    # error of its own for them; their class is the SQL standard's `data exception`.
    state = getattr(cause.orig, "sqlstate", None) if isinstance(cause, DBAPIError) else None
    return isinstance(state, str) and state.startswith("22")


def _row(record: UsageRecord) -> dict[str, Any]:
    row = msgspec.structs.asdict(record)
    row["day"] = record.at.astimezone(UTC).date().isoformat()
    return {name: _fitting(name, value) for name, value in row.items()}


def _fitting(name: str, value: Any) -> Any:
    """Text as every database takes it: a name behind a glob is a caller's choice."""
    if not isinstance(value, str):
        return value
    # PostgreSQL knows no NUL in text, and no half of a surrogate pair is UTF-8.
    plain = value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()
    return plain[: _LENGTHS[name]]
