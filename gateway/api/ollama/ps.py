"""GET /api/ps: which of the models that the caller may use are loaded."""

from collections.abc import Iterator
from typing import Any

import msgspec
from litestar import Request, get
from litestar.types import ASGIApp
from msgspec import Struct

from engines.protocol import ModelInfo
from gateway.api.ollama.details import Details, details_of, digest_of, kind_of
from gateway.api.ollama.durations import rfc3339
from gateway.api.ollama.opening import opened
from gateway.api.replies import JsonReply
from gateway.api.usable_models import UsableModel, usable_models


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


@get("/api/ps", name="ollama.ps")
async def list_running(request: Request[Any, Any, Any]) -> ASGIApp:
    """Every loaded model under its public name; aliases are not listed again."""
    gateway, call = opened(request)
    usable = await usable_models(gateway, call)
    running = [
        Running(
            name=model.name,
            model=model.name,
            size=info.memory_bytes or info.size_bytes or 0,
            digest=digest_of(model.name, info),
            details=details_of(kind_of(call, model), info),
            expires_at=rfc3339(info.expires_at),
            size_vram=info.gpu_bytes,
            context_length=info.context_tokens,
        )
        for model in usable.values()
        if model.alias_of is None
        for info in _loaded(model)
    ]
    return JsonReply(msgspec.json.encode({"models": running}))  # pyright: ignore[reportReturnType]


def _loaded(model: UsableModel) -> Iterator[ModelInfo]:
    """What is told of it: once, wherever it is loaded first."""
    loaded = [info for info in model.infos if info.loaded]
    yield from loaded[:1]
