"""GET /api/tags: the models that the caller may use."""

from collections.abc import Sequence
from typing import Any

import msgspec
from litestar import Request, route
from litestar.enums import HttpMethod
from litestar.types import ASGIApp
from msgspec import Struct, UnsetType

from gateway.api.ollama.details import Details, capabilities_of, details_of, digest_of, kind_of
from gateway.api.ollama.durations import rfc3339
from gateway.api.ollama.opening import opened
from gateway.api.replies import JsonReply
from gateway.api.usable_models import UsableModel, usable_models
from gateway.call import Call
from gateway.gateway import Gateway


class Tag(Struct, frozen=True, kw_only=True):
    """One model."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: Details
    capabilities: Sequence[str] | UnsetType


@route("/api/tags", http_method=[HttpMethod.GET, HttpMethod.HEAD], name="ollama.tags")
async def list_tags(request: Request[Any, Any, Any]) -> ASGIApp:
    """Every model and alias that this caller may use, the last changed first."""
    gateway, call = opened(request)
    usable = await usable_models(gateway, call)
    found = [(_modified_at(gateway, model), model) for model in usable.values()]
    found.sort(key=lambda entry: (-entry[0], entry[1].name))
    tags = [_tag(call, model, at) for at, model in found]
    return JsonReply(msgspec.json.encode({"models": tags}))  # pyright: ignore[reportReturnType]


def _modified_at(gateway: Gateway, model: UsableModel) -> float:
    changed_at = max((info.modified_at or 0.0 for info in model.infos), default=0.0)
    return changed_at or gateway.started_at


def _tag(call: Call, model: UsableModel, modified_at: float) -> Tag:
    info = model.infos[0] if model.infos else None
    return Tag(
        name=model.name,
        model=model.name,
        modified_at=rfc3339(modified_at),
        size=(info.size_bytes if info is not None else None) or 0,
        digest=digest_of(model.policy.name, info),
        details=details_of(kind_of(call, model), info),
        # A request may go to any target, so what all of them can do counts.
        capabilities=capabilities_of(model.infos),
    )
