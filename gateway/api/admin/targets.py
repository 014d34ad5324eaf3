"""How the targets are, and taking one out of service for a while.

`GET /admin/targets`, `POST /admin/targets/drain`, `POST /admin/targets/resume`.
"""

from typing import Annotated, Any

import msgspec
from litestar import Request, post
from litestar.types import ASGIApp
from msgspec import Meta, Struct

from gateway.api.admin.admission import admitted, entry_of, json_reply, read_query
from gateway.api.bodies import read_body
from gateway.api.get_endpoint import get_endpoint
from gateway.errors import NotFound
from gateway.policy.problems import way_out

Text = Annotated[str, Meta(min_length=1, max_length=300)]


class _NoQuery(Struct, frozen=True, forbid_unknown_fields=True):
    pass


class _Wanted(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    engine: Text
    model: Text | None = None  # the engine's own name for it; left out: all of the engine's


class _Drained(Struct, kw_only=True):
    engine: str
    model: str | None
    drained: bool
    calls: int  # that still run there


_WANTED = msgspec.json.Decoder(_Wanted)


@get_endpoint("/admin/targets", name="admin.targets")
async def show_targets(request: Request[Any, Any, Any]) -> ASGIApp:
    """Every target that was used: breaker, latency, what runs there."""
    gateway, _ = admitted(request)
    read_query(request, _NoQuery)
    return json_reply(gateway.targets_report())


@post("/admin/targets/drain", opt={"endpoint": "admin.targets"}, status_code=200)
async def drain_target(request: Request[Any, Any, Any]) -> ASGIApp:
    """Send no new calls there; those that run go on."""
    return await _changed(request, drained=True)


@post("/admin/targets/resume", opt={"endpoint": "admin.targets"}, status_code=200)
async def resume_target(request: Request[Any, Any, Any]) -> ASGIApp:
    """Take it back into service."""
    return await _changed(request, drained=False)


async def _changed(request: Request[Any, Any, Any], *, drained: bool) -> ASGIApp:
    gateway, call = admitted(request)
    wanted = await read_body(request, _WANTED, max_bytes=gateway.settings.max_body_bytes)
    if wanted.engine not in gateway.engines:
        hint = way_out(wanted.engine, gateway.engines)
        raise NotFound(f"there is no engine {wanted.engine[:60]!r}{hint}")
    subject = wanted.engine if wanted.model is None else f"{wanted.engine}/{wanted.model}"
    was_drained = gateway.targets.is_drained(wanted.engine, wanted.model)
    action = "targets.drain" if drained else "targets.resume"
    entry = entry_of(
        call, action, subject, before={"drained": was_drained}, after={"drained": drained}
    )
    await gateway.audit.record(entry)
    if drained:
        gateway.drain_target(wanted.engine, wanted.model)
    else:
        gateway.resume_target(wanted.engine, wanted.model)
    calls = gateway.targets.in_flight(wanted.engine, wanted.model)
    return json_reply(
        _Drained(engine=wanted.engine, model=wanted.model, drained=drained, calls=calls)
    )
