"""Who asks and what for, and who did what: the beginning of every handler in this folder."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec
from litestar import Request
from msgspec import Struct

from gateway.api.body_errors import named
from gateway.api.replies import JsonReply
from gateway.call import Call
from gateway.errors import BadRequest
from gateway.ledger import AuditEntry, DoneBy, new_entry
from gateway.policy.problems import way_out

if TYPE_CHECKING:
    from gateway.gateway import Gateway

Query = TypeVar("Query", bound=Struct)


def admitted(request: Request[Any, Any, Any]) -> "tuple[Gateway, Call]":
    """The gateway, and the call of an admin: the middleware lets nobody else in here.

    It decides by the endpoint's name (gateway/permission.py), before a handler runs.
    """
    gateway = cast("Gateway", request.app.state.gateway)
    return gateway, cast(Call, request.scope["state"]["call"])


def entry_of(
    call: Call,
    action: str,
    subject: str,
    *,
    before: object = None,
    after: object = None,
) -> AuditEntry:
    """The audit log's entry of what this call does."""
    principal = call.principal
    done_by = DoneBy(
        principal=principal.name,
        team=principal.team,
        key_id=principal.key_id,
        role=principal.role,
        client=call.client.host,
        call_id=call.id,
    )
    return new_entry(done_by, action, subject, before=before, after=after)


def read_query(request: Request[Any, Any, Any], shape: type[Query]) -> Query:
    """The query's parameters. Raises `BadRequest` for one that is unknown, doubled or wrong."""
    given: dict[str, str] = {}
    known = [field.encode_name for field in msgspec.structs.fields(shape)]
    for name, value in request.query_params.multi_items():
        if name not in known:
            raise BadRequest(f"unknown parameter {name[:60]!r}{way_out(name, known)}", param=name)
        if name in given:
            raise BadRequest(f"the parameter {name!r} is given twice", param=name)
        if "\0" in value:
            # PostgreSQL knows no NUL in text; what we keep has none, so nothing would be found.
            raise BadRequest(f"the parameter {name!r} has a NUL in it; leave it out", param=name)
        given[name] = value
    try:
        return msgspec.convert(given, type=shape, strict=False)
    except msgspec.ValidationError as error:
        raise named(error, shape) from None


def json_reply(
    value: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Any:
    """An answer of this dialect: never kept by a browser or a proxy."""
    body = msgspec.json.encode(value)
    return JsonReply(body, status=status, headers={"cache-control": "no-store", **(headers or {})})
