"""Loads and unloads models, and decides whose `keep_alive` counts.

How long a model stays in memory is everybody's business, so a caller with the role
admin may say it. In development that is whoever works on this machine. What others
say is let pass and changes nothing (docs/decisions/0052-who-keeps-a-model.md).
"""

import time

from engines.protocol import Engine
from gateway import pipeline
from gateway.api.ollama.durations import keep_alive_seconds
from gateway.api.ollama.opening import tell_ignored
from gateway.call import Call, Target
from gateway.errors import Forbidden, unknown_as
from gateway.gateway import Gateway

KeepAlive = float | str | None


def keep_alive_of(call: Call, given: KeepAlive) -> float | None:
    """For how long the model is to stay; None: as its engine says. Raises `BadRequest`."""
    seconds = keep_alive_seconds(given)
    if seconds is None or call.principal.is_admin:
        return seconds
    tell_ignored(call, ["keep_alive"])
    return None


def asks_to_unload(given: KeepAlive) -> bool:
    """Does a request without a prompt mean to free the model? Raises `BadRequest`."""
    return keep_alive_seconds(given) == 0


async def load_or_unload(gateway: Gateway, call: Call, name: str, given: KeepAlive) -> str:
    """What a request with nothing to answer is for; returns which of the two was done."""
    if asks_to_unload(given):
        await unload(gateway, call, name)
        return "unload"
    await load(gateway, call, name, given)
    return "load"


async def load(gateway: Gateway, call: Call, name: str, given: KeepAlive) -> None:
    """Return when the model is ready. Raises `Refusal` or `EngineError`."""
    keep_alive = keep_alive_of(call, given)
    engine, target = await _first_target(gateway, call, name)
    with unknown_as(name):
        await engine.load(target.model, keep_alive_seconds=keep_alive)
    call.first_output_at = time.monotonic()  # so that limits count it as an answered request


async def unload(gateway: Gateway, call: Call, name: str) -> None:
    """Free the model when its running requests have finished. Raises `Refusal`, `EngineError`."""
    if not call.principal.is_admin:
        await pipeline.authorize(gateway, call, name)
        raise Forbidden("models are unloaded by callers with the role admin")
    engine, target = await _first_target(gateway, call, name)
    with unknown_as(name):
        await engine.unload(target.model)


async def _first_target(gateway: Gateway, call: Call, name: str) -> tuple[Engine, Target]:
    route = await pipeline.choose(gateway, call, name)
    target = call.target = route.targets[0]
    return gateway.engines[target.engine], target
