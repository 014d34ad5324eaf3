"""The audit log: what was done to the gateway, by whom, before and after, in a chain of hashes.

Each row holds the SHA-256 of itself and of the row before, so that no row can be
changed, taken out or put in without every later hash being wrong. Whoever can write to
the database can still make the whole chain anew, or cut off its end: for that, keep a
head (number and hash, which each `audit_recorded` log line has) elsewhere and verify
against it.
"""

import hashlib
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog
from msgspec import Struct
from sqlalchemy import BigInteger, Column, Index, String, Table, Text, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.ledger.database import Database
from gateway.ledger.tables import metadata

log: Any = structlog.get_logger()

FIRST = "0" * 64  # what stands before the first row
VERIFY_AT_ONCE = 1000  # rows
READ_SECONDS = 30.0
_LOCK = 0x6175646974  # "audit": one appends at a time

# Times are text, exactly as they were hashed.
audit_log = Table(
    "audit_log",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("id", String(64), nullable=False, unique=True),
    Column("at", String(40), nullable=False),
    Column("action", String(64), nullable=False),
    Column("subject", Text, nullable=False),
    Column("outcome", String(50), nullable=False),
    Column("principal", Text, nullable=False),
    Column("team", Text, nullable=False),
    Column("key_id", String(64)),
    Column("role", String(50), nullable=False),
    Column("client", Text),
    Column("call_id", String(64)),
    Column("before", Text),
    Column("after", Text),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    Index("ix_audit_log_action", "action"),
)


class AuditEntry(Struct, frozen=True, kw_only=True):
    """One thing that was done. `before` and `after` are canonical JSON, or None for nothing."""

    id: str  # drawn once, so that an entry that is written twice is there once
    at: str  # UTC, ISO 8601 with microseconds
    action: str  # `keys.create`
    subject: str  # what it was done to: a key's id, an engine's name
    outcome: str = "ok"
    principal: str = "-"
    team: str = "-"
    key_id: str | None = None
    role: str = "-"
    client: str | None = None
    call_id: str | None = None
    before: str | None = None
    after: str | None = None


class DoneBy(Struct, frozen=True, kw_only=True):
    """Who did it: a caller of the admin API, a command, a signal."""

    principal: str
    team: str = "-"
    key_id: str | None = None
    role: str = "-"
    client: str | None = None
    call_id: str | None = None


class AuditRow(Struct, frozen=True, kw_only=True):
    """An entry in its place in the chain."""

    seq: int  # 1, 2, 3, without a gap
    entry: AuditEntry
    previous: str
    hash: str


class AuditHead(Struct, frozen=True):
    """The end of the chain as somebody saw it."""

    seq: int
    hash: str


class Verification(Struct, frozen=True, kw_only=True):
    """What going through the chain found; `bad_seq` is the first row that does not hold."""

    rows: int  # that hold, from the first on
    head: AuditHead | None  # the last of them
    bad_seq: int | None = None
    reason: str = ""


def canonical(value: object) -> str:
    """JSON in one way only: keys in order, no spaces."""
    return msgspec.json.encode(value, order="sorted").decode()


def new_entry(
    done_by: DoneBy,
    action: str,
    subject: str,
    *,
    before: object = None,
    after: object = None,
    outcome: str = "ok",
) -> AuditEntry:
    """An entry of this moment."""
    who = {name: _plain(value) for name, value in msgspec.structs.asdict(done_by).items()}
    return AuditEntry(
        id=f"aud_{secrets.token_hex(16)}",
        at=datetime.now(UTC).isoformat(timespec="microseconds"),
        action=action,
        subject=_plain(subject),
        outcome=outcome,
        before=None if before is None else canonical(before),
        after=None if after is None else canonical(after),
        **who,
    )


def _plain(text: Any) -> Any:
    """Text as every database takes it: without NUL."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}") if isinstance(text, str) else text


def hash_of(seq: int, previous: str, entry: AuditEntry) -> str:
    """The hash of one row: SHA-256 over its canonical JSON, the hash before it included."""
    fields = {**msgspec.structs.asdict(entry), "seq": seq, "previous": previous}
    return hashlib.sha256(canonical(fields).encode()).hexdigest()


def note(row: AuditRow) -> None:
    """Log the new head of the chain: a copy that whoever changes the database does not reach."""
    entry = row.entry
    log.info(
        "audit_recorded",
        seq=row.seq,
        hash=row.hash,
        action=entry.action,
        subject=entry.subject,
        principal=entry.principal,
        outcome=entry.outcome,
    )


class AuditLog:
    """The table; rows can only be appended, and triggers in the database hold to that.

    Every method raises `LedgerUnavailable` when the database does not answer.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, entry: AuditEntry) -> AuditRow:
        """Put an entry at the end of the chain; one that is there already stays as it is.

        Several processes may append at once: the database makes them wait for each other.
        """
        async with self._database.transaction(writes_first=True) as connection:
            if self._database.dialect == "postgresql":
                await connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
            found = select(audit_log).where(audit_log.c.id == entry.id)
            if (row := (await connection.execute(found)).mappings().one_or_none()) is not None:
                return _row_of(row)
            row = await _next_row(connection, entry)
            fields = msgspec.structs.asdict(row.entry)
            await connection.execute(
                insert(audit_log).values(
                    **fields, seq=row.seq, previous=row.previous, hash=row.hash
                )
            )
            return row

    async def rows(
        self,
        *,
        before: int | None = None,
        action: str | None = None,
        subject: str | None = None,
        limit: int = 100,
    ) -> list[AuditRow]:
        """Rows, newest first; `before` is a row's number that all of them are below."""
        query = select(audit_log).order_by(audit_log.c.seq.desc()).limit(limit)
        if before is not None:
            query = query.where(audit_log.c.seq < before)
        if action is not None:
            query = query.where(audit_log.c.action == action)
        if subject is not None:
            query = query.where(audit_log.c.subject == subject)
        return await self._read(query)

    async def verify(self, *, expected: AuditHead | None = None) -> Verification:
        """Go through the whole chain to the first row that does not hold.

        `expected` is a head that was noted elsewhere: the chain must pass through it.
        """
        seq, previous = 0, FIRST
        while True:
            query = select(audit_log).where(audit_log.c.seq > seq).order_by(audit_log.c.seq)
            rows = await self._read(query.limit(VERIFY_AT_ONCE))
            for row in rows:
                if reason := _fault(row, seq + 1, previous, expected):
                    return _verified(seq, previous, bad_seq=seq + 1, reason=reason)
                seq, previous = row.seq, row.hash
            if len(rows) < VERIFY_AT_ONCE:
                break
        if expected is not None and seq < expected.seq:
            reason = f"the log ends before row {expected.seq}, which was seen"
            return _verified(seq, previous, bad_seq=seq + 1, reason=reason)
        return _verified(seq, previous)

    async def _read(self, query: Any) -> list[AuditRow]:
        async with self._database.transaction(seconds=READ_SECONDS) as connection:
            return [_row_of(row) for row in (await connection.execute(query)).mappings()]


async def _next_row(connection: AsyncConnection, entry: AuditEntry) -> AuditRow:
    last = select(audit_log.c.seq, audit_log.c.hash).order_by(audit_log.c.seq.desc()).limit(1)
    head = (await connection.execute(last)).one_or_none()
    seq, previous = (1, FIRST) if head is None else (head.seq + 1, head.hash)
    return AuditRow(seq=seq, entry=entry, previous=previous, hash=hash_of(seq, previous, entry))


def _fault(row: AuditRow, seq: int, previous: str, expected: AuditHead | None) -> str:
    """Why this row cannot be the next one of the chain; empty if it is."""
    if row.seq != seq:
        return f"row {seq} is missing: the next one there is has number {row.seq}"
    if row.previous != previous:
        return "it does not follow from the row before: one of the two was changed"
    if row.hash != hash_of(row.seq, row.previous, row.entry):
        return "its content was changed: the hash is of something else"
    if expected is not None and row.seq == expected.seq and row.hash != expected.hash:
        return "it is not the row that was seen: the chain was made anew"
    return ""


def _verified(
    seq: int, previous: str, *, bad_seq: int | None = None, reason: str = ""
) -> Verification:
    head = AuditHead(seq, previous) if seq else None
    return Verification(rows=seq, head=head, bad_seq=bad_seq, reason=reason)


def _row_of(row: Any) -> AuditRow:
    names: Sequence[str] = AuditEntry.__struct_fields__
    return AuditRow(
        seq=row["seq"],
        entry=AuditEntry(**{name: row[name] for name in names}),
        previous=row["previous"],
        hash=row["hash"],
    )
