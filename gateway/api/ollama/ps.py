"""GET /api/ps: which of the models that the caller may use are loaded."""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from litestar import Request
from litestar.types import ASGIApp
from msgspec import Struct

from engines.protocol import ModelInfo
from gateway.api.get_endpoint import get_endpoint
from gateway.api.ollama.details import Details, details_of, digest_of, kind_of
from gateway.api.ollama.durations import rfc3339
from gateway.api.ollama.opening import opened
from gateway.api.replies import JsonReply
from gateway.api.usable_models import UsableModel, usable_models
from gateway.call import Call


class Running(Struct, frozen=True, kw_only=True):
    """One loaded model."""

    name: str
    model: str
    size: int
    digest: str
    details: Details
    expires_at: str
    size_vram: int
    context_length: int


@get_endpoint("/api/ps", name="ollama.ps")
async def list_running(request: Request[Any, Any, Any]) -> ASGIApp:
    """Every loaded model under its public name."""
    gateway, call = opened(request)
    usable = await usable_models(gateway, call)
    running = [_running(call, model, info) for model, info in _loaded(usable.values())]
    return JsonReply(msgspec.json.encode({"models": running}))  # pyright: ignore[reportReturnType]


def _loaded(models: Iterable[UsableModel]) -> Iterator[tuple[UsableModel, ModelInfo]]:
    """Every loaded model once, by the first of its names; those of the policy come first."""
    told: set[tuple[str, str]] = set()
    for model in models:
        for engine, info in model.places:
            if info.loaded and (engine, info.name) not in told:
                told.add((engine, info.name))
                yield model, info


def _running(call: Call, model: UsableModel, info: ModelInfo) -> Running:
    return Running(
        name=model.name,
        model=model.name,
        size=info.memory_bytes or info.size_bytes or 0,
        digest=digest_of(model.name, info),
        details=details_of(kind_of(call, model), info),
        expires_at=rfc3339(info.expires_at),
        size_vram=info.gpu_bytes,
        context_length=info.context_tokens,
    )
