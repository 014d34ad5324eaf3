"""POST /api/show: what a model's files say of it."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec
from litestar import Request, post
from litestar.types import ASGIApp
from msgspec import UNSET, Struct, UnsetType

from engines.errors import Unsupported
from engines.protocol import Message, ModelDetails, ModelInfo, ModelLibrary
from gateway import pipeline
from gateway.api.ollama.abilities import known_of
from gateway.api.ollama.details import Details, capabilities_of, details_of
from gateway.api.ollama.durations import rfc3339
from gateway.api.ollama.model_names import in_ollamas_words, named, public_name
from gateway.api.ollama.opening import opened, read
from gateway.api.replies import JsonReply
from gateway.call import Call
from gateway.errors import ModelUnknown, unknown_as
from gateway.gateway import Gateway

_INSERT_MARK = "tokenizer.ggml.fim_pre_token_id"  # of models that fill gaps in a text


class Show(Struct, kw_only=True):
    """The request body. Long lists of the file, which `verbose` asks for, are never shown."""

    model: str = ""
    name: str = ""
    verbose: bool | None = None
    system: str | None = None
    template: str | None = None
    options: dict[str, Any] | None = None


class WireMessage(Struct, frozen=True):
    """A message that comes before every conversation."""

    role: str
    content: str


class Shown(Struct, frozen=True, kw_only=True):
    """The answer."""

    license: str | UnsetType = UNSET
    modelfile: str
    parameters: str | UnsetType = UNSET
    template: str
    system: str | UnsetType = UNSET
    details: Details
    messages: Sequence[WireMessage] | UnsetType = UNSET
    model_info: Mapping[str, Any]
    capabilities: Sequence[str] | UnsetType
    modified_at: str
    requires: str | UnsetType = UNSET


_DECODER = msgspec.json.Decoder(Show)


@post("/api/show", name="ollama.show", status_code=200)
async def show_model(request: Request[Any, Any, Any]) -> ASGIApp:
    """Everything that is known of a model that the caller may use."""
    gateway, call = opened(request)
    body = await read(request, _DECODER)
    asked_for = named(body.model, body.name)
    name = await public_name(gateway, call, asked_for)
    with in_ollamas_words(asked_for):
        await pipeline.authorize(gateway, call, name)
        found = await _details(gateway, call, name)
    assert call.model is not None
    kind = call.policy.engines[call.model.targets[0].engine].kind
    shown = _shown(found, kind, gateway.started_at)
    return JsonReply(msgspec.json.encode(shown))  # pyright: ignore[reportReturnType]


async def _details(gateway: Gateway, call: Call, name: str) -> ModelDetails:
    """What its first target's engine says; of one that keeps no files, what little there is."""
    assert call.model is not None
    target = call.model.targets[0]
    engine = gateway.engines[target.engine]
    # A child process cannot be asked beforehand whether its engine keeps files.
    with unknown_as(name), suppress(Unsupported):
        if isinstance(engine, ModelLibrary):
            return await engine.show(target.model or call.model.name)
    info = await known_of(gateway, call, name)
    if info is None and call.model.name not in call.policy.models:
        raise ModelUnknown(name)  # only a wildcard stands for it, and its engine has none such
    nothing = ModelInfo(name=name, capabilities=frozenset(), context_tokens=0, loaded=False)
    return ModelDetails(info=info or nothing, modelfile="")


def _shown(found: ModelDetails, kind: str, default_time: float) -> Shown:
    info = found.info
    able = capabilities_of([info])
    if (
        isinstance(able, list)
        and able
        and (_INSERT_MARK in found.metadata or ".Suffix" in found.template)
    ):
        able.append("insert")
    return Shown(
        license="\n".join(found.licenses) or UNSET,
        modelfile=found.modelfile,
        parameters=found.parameters or UNSET,
        template=found.template,
        system=found.system or UNSET,
        details=details_of(kind, info),
        messages=[_message(one) for one in found.messages] or UNSET,
        model_info=_model_info(found),
        capabilities=able,
        modified_at=rfc3339(info.modified_at or default_time),
        requires=found.requires or UNSET,
    )


def _model_info(found: ModelDetails) -> Mapping[str, Any]:
    """The file's own metadata, and in its words what the engine knows besides."""
    info = found.info
    more = {
        "general.architecture": info.family,
        "general.parameter_count": info.parameters,
        f"{info.family}.context_length": info.context_tokens if info.family else None,
    }
    known = {name: value for name, value in more.items() if value}
    return {**known, **found.metadata}


def _message(message: Message) -> WireMessage:
    return WireMessage(message.role, message.text)
