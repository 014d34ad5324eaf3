"""API keys: list, create, change, revoke. A secret is in the answer that made it and in no other.

`GET`, `POST /admin/keys`; `GET`, `DELETE /admin/keys/{id}`; `POST /admin/keys/{id}/disable`,
`/enable`, `/expire`, `/narrow`, `/rotate`.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

import msgspec
from litestar import Request, delete, post
from litestar.types import ASGIApp
from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.api.admin.admission import admitted, entry_of, json_reply, read_query
from gateway.api.bodies import read_body
from gateway.api.get_endpoint import get_endpoint
from gateway.call import Role
from gateway.errors import BadRequest, NotFound
from gateway.keys import ApiKey, KeyChange, KeyRow, check_minting, is_id, row_of
from gateway.ledger import KeyState
from gateway.narrowing import NOT_NARROWED, Narrowing

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.gateway import Gateway

Thing = TypeVar("Thing")

LONGEST_SECONDS = 315_360_000  # ten years
Seconds = Annotated[int, Meta(ge=1, le=LONGEST_SECONDS)]
Lists = Sequence[str] | None
Action = Callable[[str], Awaitable[KeyChange | None]]


class _NoQuery(Struct, frozen=True, forbid_unknown_fields=True):
    pass


class _Query(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    team: str | None = None
    state: KeyState | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    after: str | None = None  # the last key's id of the page before


class _Page(Struct, kw_only=True):
    keys: Sequence[KeyRow]
    next: str | None  # the `after` of the next page


class _Wanted(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    team: str
    name: str
    role: Role = "member"
    expires_seconds: Seconds | None = None
    models: Lists = None
    endpoints: Lists = None
    networks: Lists = None
    limits: str | None = None


class _Expiry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    expires_seconds: Seconds | None  # from now; null: never


class _Narrowed(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    models: Lists | UnsetType = UNSET
    endpoints: Lists | UnsetType = UNSET
    networks: Lists | UnsetType = UNSET
    limits: str | UnsetType | None = UNSET


class _Rotation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    grace_seconds: Annotated[int, Meta(ge=0, le=LONGEST_SECONDS)] = 86_400


class _WithSecret(Struct, kw_only=True):
    key: KeyRow
    secret: str


_WANTED = msgspec.json.Decoder(_Wanted)
_EXPIRY = msgspec.json.Decoder(_Expiry)
_NARROWED = msgspec.json.Decoder(_Narrowed)
_ROTATION = msgspec.json.Decoder(_Rotation)


@get_endpoint("/admin/keys", name="admin.keys")
async def list_keys(request: Request[Any, Any, Any]) -> ASGIApp:
    """Every key, oldest first, revoked and expired ones too."""
    gateway, _ = admitted(request)
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
    """Make a key for a team of the policy, which may do no more than whoever makes it."""
    gateway, call = admitted(request)
    wanted = await read_body(request, _WANTED, max_bytes=gateway.settings.max_body_bytes)
    narrowing = _narrowing_of(wanted)
    check_minting(gateway.policy, call.principal, team=wanted.team, narrowing=narrowing)
    async with gateway.ledger.audited() as record:
        new = await gateway.keys.create(
            wanted.team,
            wanted.name,
            _time(wanted.expires_seconds),
            role=wanted.role,
            narrowing=narrowing,
        )
        row = row_of(new.key, datetime.now(UTC))
        await record(entry_of(call, "keys.create", new.key.id, after=row))
    return json_reply(_WithSecret(key=row, secret=new.secret), status=201)


@get_endpoint("/admin/keys/{key_id:str}", opt={"endpoint": "admin.keys"})
async def show_key(request: Request[Any, Any, Any]) -> ASGIApp:
    """One key by its public id."""
    gateway, _ = admitted(request)
    read_query(request, _NoQuery)
    key_id = _key_id(request)
    return json_reply(row_of(_found(key_id, await gateway.keys.get(key_id)), datetime.now(UTC)))


@delete("/admin/keys/{key_id:str}", opt={"endpoint": "admin.keys"}, status_code=200)
async def revoke_key(request: Request[Any, Any, Any]) -> ASGIApp:
    """End a key for good; one that is revoked already stays as it is."""
    gateway, call = admitted(request)
    return await _changed(request, gateway, call, "revoke", gateway.keys.revoke)


@post("/admin/keys/{key_id:str}/disable", opt={"endpoint": "admin.keys"}, status_code=200)
async def disable_key(request: Request[Any, Any, Any]) -> ASGIApp:
    """Stop a key until it is enabled."""
    gateway, call = admitted(request)
    return await _changed(request, gateway, call, "disable", gateway.keys.disable)


@post("/admin/keys/{key_id:str}/enable", opt={"endpoint": "admin.keys"}, status_code=200)
async def enable_key(request: Request[Any, Any, Any]) -> ASGIApp:
    """Let a disabled key work again."""
    gateway, call = admitted(request)

    async def enable(key_id: str) -> KeyChange | None:
        await _check_may_have(gateway, call, key_id)
        return await gateway.keys.enable(key_id)

    return await _changed(request, gateway, call, "enable", enable)


@post("/admin/keys/{key_id:str}/expire", opt={"endpoint": "admin.keys"}, status_code=200)
async def expire_key(request: Request[Any, Any, Any]) -> ASGIApp:
    """Let a key end after a time from now, or never."""
    gateway, call = admitted(request)
    wanted = await read_body(request, _EXPIRY, max_bytes=gateway.settings.max_body_bytes)

    async def expire(key_id: str) -> KeyChange | None:
        await _check_may_have(gateway, call, key_id)
        return await gateway.keys.expire(key_id, _time(wanted.expires_seconds))

    return await _changed(request, gateway, call, "expire", expire)


@post("/admin/keys/{key_id:str}/narrow", opt={"endpoint": "admin.keys"}, status_code=200)
async def narrow_key(request: Request[Any, Any, Any]) -> ASGIApp:
    """Replace what a key may do less than its team, within what the caller may do."""
    gateway, call = admitted(request)
    wanted = await read_body(request, _NARROWED, max_bytes=gateway.settings.max_body_bytes)
    if wanted == _Narrowed():
        # A body that somebody forgot to fill must not give the key more than it had.
        raise BadRequest(
            "say what the key is narrowed to; "
            '{"models": null} and nothing else takes away all that narrowed it',
            param="models",
        )
    narrowing = _narrowing_of(wanted)

    async def narrow(key_id: str) -> KeyChange | None:
        await _check_may_have(gateway, call, key_id, narrowing)
        return await gateway.keys.narrow(key_id, narrowing)

    return await _changed(request, gateway, call, "narrow", narrow)


@post("/admin/keys/{key_id:str}/rotate", opt={"endpoint": "admin.keys"}, status_code=200)
async def rotate_key(request: Request[Any, Any, Any]) -> ASGIApp:
    """Give a key a new secret; the one before works on for a grace."""
    gateway, call = admitted(request)
    read_query(request, _NoQuery)
    wanted = await read_body(request, _ROTATION, max_bytes=gateway.settings.max_body_bytes)
    key_id = _key_id(request)
    async with gateway.ledger.audited() as record:
        await _check_may_have(gateway, call, key_id)
        found = await gateway.keys.rotate(key_id, timedelta(seconds=wanted.grace_seconds))
        new, change = _found(key_id, found)
        now = datetime.now(UTC)
        before, after = row_of(change.before, now), row_of(change.after, now)
        await record(entry_of(call, "keys.rotate", key_id, before=before, after=after))
    await gateway.keys.announce(key_id)
    return json_reply(_WithSecret(key=after, secret=new.secret))


async def _changed(
    request: Request[Any, Any, Any], gateway: "Gateway", call: "Call", verb: str, action: Action
) -> ASGIApp:
    """Do it, and record it in the audit log unless it changed nothing."""
    read_query(request, _NoQuery)
    key_id = _key_id(request)
    async with gateway.ledger.audited() as record:
        change = _found(key_id, await action(key_id))
        now = datetime.now(UTC)
        before, after = row_of(change.before, now), row_of(change.after, now)
        if change.before != change.after:
            await record(entry_of(call, f"keys.{verb}", key_id, before=before, after=after))
    await gateway.keys.announce(key_id)
    return json_reply(after)


async def _check_may_have(
    gateway: "Gateway", call: "Call", key_id: str, narrowing: Narrowing | None = None
) -> None:
    """Refuse to make a key more useful that the caller could not have made.

    To be called in the transaction of the change. Taking away needs no more than the role.
    """
    key: ApiKey = _found(key_id, await gateway.keys.get(key_id))
    wanted = key.narrowing if narrowing is None else narrowing
    check_minting(gateway.policy, call.principal, team=key.team, narrowing=wanted)


def _narrowing_of(wanted: _Wanted | _Narrowed) -> Narrowing:
    given = {name: getattr(wanted, name) for name in Narrowing.__struct_fields__}
    given = {name: value for name, value in given.items() if value is not UNSET}
    return Narrowing(**given) if given else NOT_NARROWED


def _time(seconds: int | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)


def _key_id(request: Request[Any, Any, Any]) -> str:
    """The id in the path. Raises `NotFound` for what no key can be called."""
    key_id = cast(str, request.path_params["key_id"])
    return _found(key_id, key_id if is_id(key_id) else None)


def _found(key_id: str, thing: Thing | None) -> Thing:
    if thing is None:
        raise NotFound(
            f"there is no key {key_id[:64]!r}; GET /admin/keys lists those that there are"
        )
    return thing
