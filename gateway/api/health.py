"""Is the process alive, and can it serve?"""

from typing import Any

import msgspec
from litestar import Request, get
from litestar.types import ASGIApp
from msgspec import Struct

from gateway.api.replies import JsonReply


class _Health(Struct):
    status: str
    engines: dict[str, str]


@get("/healthz", name="health.live", opt={"public": True})
async def live() -> ASGIApp:
    """The event loop answers; nothing else is asked, so a slow engine does not end us."""
    return JsonReply(b'{"status":"ok"}')


@get("/readyz", name="health.ready", opt={"public": True})
async def ready(request: Request[Any, Any, Any]) -> ASGIApp:
    """Every engine is ready; 503 with the engines that are not otherwise."""
    gateway = request.app.state.gateway
    engines: dict[str, str] = {}
    is_ready = gateway.ready
    for name, engine in gateway.engines.items():
        health = await engine.health()
        engines[name] = "ready" if health.ready else "not ready"
        is_ready = is_ready and health.ready
    body = _Health("ok" if is_ready else "unavailable", engines)
    return JsonReply(msgspec.json.encode(body), status=200 if is_ready else 503)
