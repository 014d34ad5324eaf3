"""What is where: engines, their models, and what is loaded. `GET /admin/models`."""

from typing import Any

import msgspec
from litestar import Request
from litestar.types import ASGIApp
from msgspec import Struct

from engines.errors import EngineError
from gateway.api.get_endpoint import get_endpoint
from gateway.api.replies import JsonReply


class _Engine(Struct):
    name: str
    kind: str
    ready: bool
    detail: str
    running: int
    waiting: int
    cache_used: float | None


class _Model(Struct):
    name: str
    engine: str
    loaded: bool
    loading: float | None
    context_tokens: int
    memory_bytes: int | None
    size_bytes: int | None
    quantization: str | None
    family: str | None


class _State(Struct):
    engines: list[_Engine]
    models: list[_Model]


@get_endpoint("/admin/models", name="admin.models")
async def show_models(request: Request[Any, Any, Any]) -> ASGIApp:
    """Every engine and every model, as the engines tell it; loads nothing."""
    gateway = request.app.state.gateway
    call = request.scope["state"]["call"]
    await gateway.hooks.authorize(call)
    state = _State([], [])
    for name, engine in gateway.engines.items():
        health = await engine.health()
        kind = call.policy.engines[name].kind
        state.engines.append(
            _Engine(name, kind, health.ready, health.detail, health.running, health.waiting,
                    health.cache_used)
        )  # fmt: skip
        try:
            models = await engine.models()
        except EngineError:
            continue  # its health says why
        state.models += [
            _Model(
                name=model.name,
                engine=name,
                loaded=model.loaded,
                loading=model.loading,
                context_tokens=model.context_tokens,
                memory_bytes=model.memory_bytes,
                size_bytes=model.size_bytes,
                quantization=model.quantization,
                family=model.family,
            )
            for model in models
        ]
    return JsonReply(msgspec.json.encode(state))
