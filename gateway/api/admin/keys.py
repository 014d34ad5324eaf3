"""API keys: list, create, revoke. Only the answer that creates a key holds its secret.

`GET`, `POST /admin/keys`; `GET`, `DELETE /admin/keys/{id}`.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, cast

import msgspec
from litestar import Request, delete, get, post
from litestar.types import ASGIApp
from msgspec import Meta, Struct

from gateway.api.admin.admission import admitted, entry_of, json_reply, read_query
from gateway.api.bodies import read_body
from gateway.errors import BadRequest, NotFound
from gateway.keys import ApiKey
from gateway.policy.problems import way_out

State = Literal["active", "revoked", "expired"]


class KeyRow(Struct, kw_only=True):
    """A key as admins see it."""

    id: str
    team: str
    name: str
    state: State
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class _Query(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    team: str | None = None
    state: State | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    after: str | None = None  # the last key's id of the page before


class _Page(Struct, kw_only=True):
    keys: Sequence[KeyRow]
    next: str | None  # the `after` of the next page


class _Wanted(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    team: str
    name: str
    expires_seconds: Annotated[int, Meta(ge=1, le=315_360_000)] | None = None


class _Created(Struct, kw_only=True):
    key: KeyRow
    secret: str


_WANTED = msgspec.json.Decoder(_Wanted)


@get("/admin/keys", name="admin.keys")
async def list_keys(request: Request[Any, Any, Any]) -> ASGIApp:
    """Every key, oldest first, revoked and expired ones too."""
    gateway, _ = await admitted(request)
    query = read_query(request, _Query)
    now = datetime.now(UTC)
    rows = [row_of(key, now) for key in await gateway.keys.list()]
    if query.after is not None:
        ids = [row.id for row in rows]
        if query.after not in ids:
            raise BadRequest(f"there is no key {query.after[:64]!r} to go on after", param="after")
        rows = rows[ids.index(query.after) + 1 :]
    rows = [
        row for row in rows if query.team in (None, row.team) and query.state in (None, row.state)
    ]
    page = rows[: query.limit]
    following = page[-1].id if len(rows) > len(page) else None
    return json_reply(_Page(keys=page, next=following))


@post("/admin/keys", opt={"endpoint": "admin.keys"})
async def create_key(request: Request[Any, Any, Any]) -> ASGIApp:
    """Make a key for a team of the policy."""
    gateway, call = await admitted(request)
    wanted = await read_body(request, _WANTED, max_bytes=gateway.settings.max_body_bytes)
    if wanted.team not in gateway.policy.teams:
        hint = way_out(wanted.team, gateway.policy.teams)
        raise BadRequest(f"the policy has no team {wanted.team[:60]!r}{hint}", param="team")
    expires_in = None
    if wanted.expires_seconds is not None:
        expires_in = timedelta(seconds=wanted.expires_seconds)
    async with gateway.ledger.audited() as record:
        new = await gateway.keys.create(wanted.team, wanted.name, expires_in)
        row = row_of(new.key, datetime.now(UTC))
        await record(entry_of(call, "keys.create", new.key.id, after=row))
    return json_reply(_Created(key=row, secret=new.secret), status=201)


@get("/admin/keys/{key_id:str}", opt={"endpoint": "admin.keys"})
async def show_key(request: Request[Any, Any, Any]) -> ASGIApp:
    """One key by its public id."""
    gateway, _ = await admitted(request)
    key_id = cast(str, request.path_params["key_id"])
    key = await gateway.ledger.key(key_id)
    if key is None:
        raise _no_key(key_id)
    return json_reply(row_of(key, datetime.now(UTC)))


@delete("/admin/keys/{key_id:str}", opt={"endpoint": "admin.keys"}, status_code=200)
async def revoke_key(request: Request[Any, Any, Any]) -> ASGIApp:
    """End a key for good; one that is revoked already stays as it is."""
    gateway, call = await admitted(request)
    key_id = cast(str, request.path_params["key_id"])
    async with gateway.ledger.audited() as record:
        before = await gateway.ledger.key(key_id)
        after = await gateway.keys.revoke(key_id) if before is not None else None
        if before is None or after is None:
            raise _no_key(key_id)
        now = datetime.now(UTC)
        if before.revoked_at is None:
            entry = entry_of(
                call, "keys.revoke", key_id, before=row_of(before, now), after=row_of(after, now)
            )
            await record(entry)
    # Once more, now that others can see it: whoever looked in between has remembered it.
    await gateway.keys.revoke(key_id)
    return json_reply(row_of(after, datetime.now(UTC)))


def row_of(key: ApiKey, now: datetime) -> KeyRow:
    """A key as admins see it at this moment."""
    state: State = "active" if key.is_usable(now) else "expired"
    return KeyRow(
        id=key.id,
        team=key.team,
        name=key.name,
        state="revoked" if key.revoked_at is not None else state,
        created_at=key.created_at,
        expires_at=key.expires_at,
        revoked_at=key.revoked_at,
        last_used_at=key.last_used_at,
    )


def _no_key(key_id: str) -> NotFound:
    return NotFound(f"there is no key {key_id[:64]!r}; GET /admin/keys lists those that there are")
