"""Is the process alive, and can it serve? Neither asks the ledger or the store.

A gateway whose database is away still serves those whom it knows, so a load
balancer that took it out would make an outage of a nuisance.
"""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from litestar import Request
from litestar.types import ASGIApp
from msgspec import UNSET, Struct, UnsetType

from engines.errors import EngineError
from engines.protocol import Engine
from gateway.api.get_endpoint import get_endpoint
from gateway.api.replies import JsonReply

if TYPE_CHECKING:
    from gateway.gateway import Gateway

PATIENCE_SECONDS = 2.0  # with an engine; who asks has a time-out too


class _Health(Struct):
    status: str
    engines: dict[str, str]
    ledger: str | UnsetType = UNSET  # only where it is the reason


@get_endpoint("/healthz", name="health.live", opt={"public": True})
async def live() -> ASGIApp:
    """The event loop answers; nothing else is asked, so a slow engine does not end us."""
    return JsonReply(b'{"status":"ok"}')


@get_endpoint("/readyz", name="health.ready", opt={"public": True})
async def ready(request: Request[Any, Any, Any]) -> ASGIApp:
    """Every engine is ready, and keys can be known; else 503 with what is not."""
    gateway: Gateway = request.app.state.gateway
    asked: Mapping[str, Engine] = gateway.engines
    answers = await asyncio.gather(*(_is_ready(engine) for engine in asked.values()))
    knows_keys = _knows_keys(gateway)
    is_ready = gateway.ready and all(answers) and knows_keys
    engines = {
        name: "ready" if answer else "not ready"
        for name, answer in zip(asked, answers, strict=True)
    }
    ledger = UNSET if knows_keys else "not opened yet"
    body = _Health("ok" if is_ready else "unavailable", engines, ledger)
    return JsonReply(msgspec.json.encode(body), status=200 if is_ready else 503)


def _knows_keys(gateway: "Gateway") -> bool:
    """A gateway that has never seen its ledger knows no key at all: others are the better choice.

    One that has seen it and lost it knows those that called.
    """
    return gateway.ledger.was_opened or "api_keys" not in gateway.policy.plugins


async def _is_ready(engine: Engine) -> bool:
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return (await engine.health()).ready
    except (TimeoutError, EngineError):
        return False
