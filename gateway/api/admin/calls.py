"""Calls in flight, and ending one. `GET /admin/calls`, `DELETE /admin/calls/{id}`."""

from collections.abc import Sequence
from typing import Annotated, Any, cast

from litestar import Request, delete
from litestar.types import ASGIApp
from msgspec import Meta, Struct

from gateway.api.admin.admission import admitted, entry_of, json_reply, read_query
from gateway.api.get_endpoint import get_endpoint
from gateway.call import Call
from gateway.errors import Cancelled, NotFound, problem_of


class _Query(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    team: str | None = None
    key: str | None = None
    model: str | None = None
    endpoint: str | None = None
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 1000
    after: str | None = None  # the last call's id of the page before


class _Call(Struct, kw_only=True):
    id: str
    endpoint: str
    team: str
    key: str | None
    principal: str
    model: str | None
    engine: str | None
    streamed: bool
    seconds: float
    first_output_seconds: float | None  # None until there is one
    client: str | None
    policy: str  # the beginning of the digest of the policy that it keeps


class _Calls(Struct, kw_only=True):
    calls: Sequence[_Call]
    next: str | None


@get_endpoint("/admin/calls", name="admin.calls")
async def list_calls(request: Request[Any, Any, Any]) -> ASGIApp:
    """Every call in flight in this process, oldest first; this one too."""
    gateway, _ = admitted(request)
    query = read_query(request, _Query)
    shown = [_shown(call) for call in sorted(gateway.calls.values(), key=lambda call: call.id)]
    fitting = [
        call
        for call in shown
        if query.team in (None, call.team)
        and query.key in (None, call.key)
        and query.model in (None, call.model)
        and query.endpoint in (None, call.endpoint)
        and (query.after is None or call.id > query.after)
    ]
    page = fitting[: query.limit]
    following = page[-1].id if len(fitting) > len(page) else None
    return json_reply(_Calls(calls=page, next=following))


@delete("/admin/calls/{call_id:str}", opt={"endpoint": "admin.calls"}, status_code=200)
async def end_call(request: Request[Any, Any, Any]) -> ASGIApp:
    """End a call: its client is told so, its engine is free within a step."""
    gateway, call = admitted(request)
    call_id = cast(str, request.path_params["call_id"])
    ended = gateway.calls.get(call_id)
    if ended is None or ended.task is None:
        raise NotFound(f"no call {call_id[:64]!r} is in flight; GET /admin/calls lists those")
    shown = _shown(ended)
    await gateway.audit.record(entry_of(call, "calls.cancel", call_id, before=_lasting(shown)))
    ended.stop(problem_of(Cancelled()))
    return json_reply(shown)


def _shown(call: Call) -> _Call:
    first = call.first_output_at
    return _Call(
        id=call.id,
        endpoint=call.endpoint,
        team=call.principal.team,
        key=call.principal.key_id,
        principal=call.principal.name,
        model=call.model.name if call.model is not None else None,
        engine=call.target.engine if call.target is not None else None,
        streamed=call.streams,
        seconds=round(call.seconds, 3),
        first_output_seconds=None if first is None else round(first - call.started_at, 3),
        client=call.client.host,
        policy=call.policy.digest[:12],
    )


def _lasting(shown: _Call) -> dict[str, str | None]:
    """What of a call is worth keeping in the audit log."""
    return {
        "endpoint": shown.endpoint,
        "team": shown.team,
        "key": shown.key,
        "model": shown.model,
        "engine": shown.engine,
    }
