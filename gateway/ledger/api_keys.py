"""The records of API keys, and the statements that read and write them.

Every statement runs in a transaction of its caller's (gateway/ledger/__init__.py).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec
from msgspec import Struct
from sqlalchemy import RowMapping, bindparam, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.ledger.tables import api_keys, key_changes
from gateway.narrowing import Narrowing

KeyState = Literal["active", "disabled", "expired", "revoked"]
Used = Mapping[str, datetime]  # key id -> when

_LISTS = ("models", "endpoints", "networks")


class ApiKey(Struct, frozen=True, kw_only=True):
    """What is kept of an API key. A secret is not: only its digest under a pepper."""

    id: str  # the public part; safe to log
    team: str
    name: str
    role: Literal["member", "admin"] = "member"
    created_at: datetime
    expires_at: datetime | None = None
    disabled_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    digest: bytes
    pepper_version: str
    # The secret before the last rotation works until `previous_expires_at`.
    rotated_at: datetime | None = None
    previous_digest: bytes | None = None
    previous_pepper_version: str | None = None
    previous_expires_at: datetime | None = None
    previous_used_at: datetime | None = None
    models: tuple[str, ...] | None = None
    endpoints: tuple[str, ...] | None = None
    networks: tuple[str, ...] | None = None
    limits: str | None = None
    change: int = 0  # the number of its last change, over all keys

    @property
    def narrowing(self) -> Narrowing:
        """What the key may do less than its team."""
        return Narrowing(
            models=self.models,
            endpoints=self.endpoints,
            networks=self.networks,
            limits=self.limits,
        )

    def state(self, now: datetime) -> KeyState:
        """What the key is good for; what cannot be undone is said first."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and now >= self.expires_at:
            return "expired"
        return "active" if self.disabled_at is None else "disabled"

    def is_usable(self, now: datetime) -> bool:
        """Neither revoked, nor expired, nor disabled."""
        return self.state(now) == "active"

    def previous_is_usable(self, now: datetime) -> bool:
        """Does the secret before the last rotation still work?"""
        return (
            self.is_usable(now)
            and self.previous_digest is not None
            and self.previous_expires_at is not None
            and now < self.previous_expires_at
        )


class KeyChange(Struct, frozen=True):
    """A key before and after a change."""

    before: ApiKey
    after: ApiKey


async def insert_key(connection: AsyncConnection, key: ApiKey) -> None:
    """Keep a new key."""
    await connection.execute(insert(api_keys).values(**_values(key)))


async def find_key(
    connection: AsyncConnection, key_id: str, *, to_change: bool = False
) -> ApiKey | None:
    """The key with this public id, whatever its state."""
    query = select(api_keys).where(api_keys.c.id == key_id)
    if to_change:
        query = query.with_for_update()
    row = (await connection.execute(query)).mappings().one_or_none()
    return None if row is None else _key_of(row)


async def list_keys(connection: AsyncConnection, team: str | None) -> list[ApiKey]:
    """Every key ever made, or every one of a team, oldest first."""
    query = select(api_keys).order_by(api_keys.c.created_at, api_keys.c.id)
    if team is not None:
        query = query.where(api_keys.c.team == team)
    return [_key_of(row) for row in (await connection.execute(query)).mappings()]


async def change_key(
    connection: AsyncConnection, key_id: str, change: Callable[[ApiKey], ApiKey]
) -> KeyChange | None:
    """Write what `change` makes of a key; None if there is no such key.

    A change that changes nothing is not counted. `change` may raise to change nothing.
    """
    # The count first: it is the lock that all changes queue for.
    await connection.execute(update(key_changes).values(last=key_changes.c.last + 1))
    before = await find_key(connection, key_id, to_change=True)
    if before is None:
        return None
    after = change(before)
    if after == before:
        return KeyChange(before, before)
    after = msgspec.structs.replace(after, id=before.id, change=await last_change(connection))
    values = _values(after)
    statement = update(api_keys).where(api_keys.c.id == key_id).values(**values)
    await connection.execute(statement)
    return KeyChange(before, after)


async def last_change(connection: AsyncConnection) -> int:
    """The number of the last change of any key."""
    return int((await connection.execute(select(key_changes.c.last))).scalar_one())


async def changed_keys(connection: AsyncConnection, after: int) -> Collection[str]:
    """The ids of the keys that were changed after the change with this number."""
    query = select(api_keys.c.id).where(api_keys.c.change > after)
    return frozenset((await connection.execute(query)).scalars())


async def touch_keys(connection: AsyncConnection, used: Used, *, previous: bool) -> None:
    """Note when secrets were last used; an older time than the one noted changes nothing."""
    if not used:
        return
    column = api_keys.c.previous_used_at if previous else api_keys.c.last_used_at
    change = (
        update(api_keys)
        .where(
            api_keys.c.id == bindparam("used_id"),
            or_(column.is_(None), column < bindparam("used_at")),
        )
        .values({column: bindparam("used_at")})
    )
    # In one order everywhere, so that two gateways never wait for each other.
    rows: Sequence[Mapping[str, Any]] = [
        {"used_id": key_id, "used_at": at} for key_id, at in sorted(used.items())
    ]
    await connection.execute(change, rows)


def _values(key: ApiKey) -> dict[str, Any]:
    values = msgspec.structs.asdict(key)
    return values | {name: list(values[name]) for name in _LISTS if values[name] is not None}


def _key_of(row: RowMapping) -> ApiKey:
    values: dict[str, Any] = dict(row)
    for name in _LISTS:
        values[name] = None if values[name] is None else tuple(values[name])
    return ApiKey(**values)
