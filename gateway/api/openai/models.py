"""GET /v1/models and /v1/models/{id}: the models that the caller may use.

A policy's models and their aliases, as far as the caller's team and key may use them;
where the policy has a wildcard, also what its engines have, by their own
names. A model that is unknown and one that is not for this caller are the same
404.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from litestar import Request
from litestar.types import ASGIApp
from msgspec import UNSET, Struct, UnsetType

from engines.protocol import Capability, ModelInfo
from gateway.api.get_endpoint import get_endpoint
from gateway.api.openai.answers import opened
from gateway.api.replies import JsonReply
from gateway.api.usable_models import UsableModel, usable_models
from gateway.call import Call
from gateway.errors import ModelUnknown
from gateway.gateway import Gateway
from gateway.listed_names import LATEST


class Model(Struct, frozen=True, kw_only=True):
    """A model as OpenAI describes one, and what else helps to choose."""

    id: str
    object: str = "model"
    created: int
    owned_by: str = "penstock"
    kind: str  # of its first target's engine
    kinds: Sequence[str] | UnsetType = UNSET  # of all, in their order, where there are several
    context_length: int | UnsetType = UNSET
    capabilities: Sequence[str] | UnsetType = UNSET  # what every target of it can do
    alias_of: str | UnsetType = UNSET


class ModelList(Struct, frozen=True):
    """The answer to the list."""

    object: str
    data: Sequence[Model]


@get_endpoint("/v1/models", name="openai.models")
async def list_models(request: Request[Any, Any, Any]) -> ASGIApp:
    """Every model that this caller may use."""
    gateway, call = opened(request)
    await gateway.hooks.authorize(call)
    entries = await _entries(gateway, call)
    answer = ModelList("list", [entries[name] for name in sorted(entries)])
    return JsonReply(msgspec.json.encode(answer))  # pyright: ignore[reportReturnType]


@get_endpoint("/v1/models/{model_id:path}", opt={"endpoint": "openai.models"})
async def retrieve_model(request: Request[Any, Any, Any]) -> ASGIApp:
    """One of them. Its name may hold slashes, so the rest of the path is the name."""
    gateway, call = opened(request)
    name = str(request.path_params["model_id"]).removeprefix("/")
    listed = await (call.serving or gateway).listed_name(name)
    call.model = call.policy.resolve(listed)
    try:
        await gateway.hooks.authorize(call)
    except ModelUnknown:
        # What an alias stands for is not for everyone.
        raise ModelUnknown(name) from None
    entries = await _entries(gateway, call)
    found = entries.get(listed) or entries.get(f"{listed}{LATEST}")
    if found is None:
        raise ModelUnknown(name)
    return JsonReply(msgspec.json.encode(found))  # pyright: ignore[reportReturnType]


async def _entries(gateway: Gateway, call: Call) -> Mapping[str, Model]:
    """Each model and alias that the caller may use, by name."""
    usable = await usable_models(gateway, call)
    return {name: _entry(gateway, call, model) for name, model in usable.items()}


def _entry(gateway: Gateway, call: Call, model: UsableModel) -> Model:
    infos = model.infos
    engines = call.policy.engines
    kinds = list(dict.fromkeys(engines[target.engine].kind for target in model.policy.targets))
    changed_at = max((info.modified_at or 0.0 for info in infos), default=0.0)
    return Model(
        id=model.name,
        created=int(changed_at or gateway.started_at),
        kind=kinds[0],
        kinds=kinds if len(kinds) > 1 else UNSET,
        # A request may be sent to any target, so the smallest context counts.
        context_length=min(
            (info.context_tokens for info in infos if info.context_tokens), default=UNSET
        ),
        capabilities=_common(infos),
        alias_of=model.alias_of or UNSET,
    )


def _common(infos: Sequence[ModelInfo]) -> Sequence[str] | UnsetType:
    """What every one of these can do, if that is known of all of them."""
    if not infos or not all(info.capabilities for info in infos):
        return UNSET
    return sorted(
        one.value for one in Capability if all(one in info.capabilities for info in infos)
    )
