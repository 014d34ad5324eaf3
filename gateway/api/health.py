"""Is the process alive, and is it worse than another gateway? Neither asks the ledger or the store.

A gateway whose database is away still serves those whom it knows, so a load
balancer that took it out would make an outage of a nuisance. The same goes for an
upstream that is away: the other gateways have the same (decision 65).
"""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from litestar import Request
from litestar.types import ASGIApp
from msgspec import UNSET, Struct, UnsetType

from engines.abilities import Relay
from engines.errors import EngineError, Unavailable
from engines.protocol import Engine
from gateway.api.get_endpoint import get_endpoint
from gateway.api.replies import JsonReply
from gateway.policy import ModelPolicy, Policy

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
    """Nothing of its own fails that others may have, and keys can be known; else 503."""
    gateway: Gateway = request.app.state.gateway
    asked: Mapping[str, Engine] = gateway.engines
    answers = await asyncio.gather(*(_is_ready(engine) for engine in asked.values()))
    answered = dict(zip(asked, answers, strict=True))
    knows_keys = _knows_keys(gateway)
    is_ready = gateway.ready and knows_keys and _can_serve(gateway.policy, asked, answered)
    engines = {name: "ready" if answer else "not ready" for name, answer in answered.items()}
    ledger = UNSET if knows_keys else "not opened yet"
    body = _Health("ok" if is_ready else "unavailable", engines, ledger)
    return JsonReply(msgspec.json.encode(body), status=200 if is_ready else 503)


def _knows_keys(gateway: "Gateway") -> bool:
    """A gateway that has never seen its ledger knows no key at all: others are the better choice.

    One that has seen it and lost it knows those that called.
    """
    return gateway.ledger.was_opened or "api_keys" not in gateway.policy.plugins


def _can_serve(policy: Policy, engines: Mapping[str, Engine], is_ready: Mapping[str, bool]) -> bool:
    """Does no model wait for an engine of this gateway's own, and is any engine ready at all?

    When no upstream answers, it may be this machine's network that is at fault.
    """
    if is_ready and not any(is_ready.values()):
        return False
    for model in policy.models.values():
        usual, others = _engines_of(model)
        if any(is_ready.get(name) for name in (*usual, *others)):
            continue
        if any(name in engines and not isinstance(engines[name], Relay) for name in usual):
            return False
    return True


def _engines_of(model: ModelPolicy) -> tuple[set[str], set[str]]:
    """Where anybody's calls of a model go, and where they go when that is unavailable."""
    usual = {one.engine for one in model.targets if one.weight and not (one.drain or one.canary)}
    others = {one.engine for one in model.fallbacks if Unavailable.code in one.on and not one.drain}
    return usual, others


async def _is_ready(engine: Engine) -> bool:
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return (await engine.health()).ready
    except (TimeoutError, EngineError):
        return False
