"""Every other path below /v1 that some upstream of the policy may be asked for.

Which ones that are is in engines.toml (`passthrough`); none are by default. A
call's endpoint is then named by the first part of its path, `openai.passthrough.responses`
say, so that a team may be allowed one and not the other. It has the same
identification, allow-lists, limits and accounting as any call.
"""

from typing import Any

import msgspec
from litestar import Request, route
from litestar.enums import HttpMethod
from litestar.types import ASGIApp
from msgspec import Struct

from engines.protocol import GenerateRequest
from engines.wire import WireRequest
from gateway import pipeline
from gateway.api.bodies import read_either, read_raw
from gateway.api.openai.answers import opened
from gateway.api.openai.relay import extent, relayed_reply, relays, to_wire
from gateway.call import Call, Route, Target
from gateway.errors import BadRequest, NotFound
from gateway.gateway import Gateway

MODEL_HEADER = "x-penstock-model"


class AnyBody(Struct, frozen=True, kw_only=True):
    """Of a body that nobody here understands, what policy needs to know."""

    model: str = ""
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None


_DECODER = msgspec.json.Decoder(AnyBody)


@route(
    "/v1/{rest:path}",
    http_method=[
        HttpMethod.GET,
        HttpMethod.POST,
        HttpMethod.PUT,
        HttpMethod.PATCH,
        HttpMethod.DELETE,
    ],
    name="openai.passthrough",
)
async def pass_through(request: Request[Any, Any, Any]) -> ASGIApp:
    """Hand a call of an unknown path to an upstream that may be asked for it."""
    gateway, call = opened(request)
    method, path = request.scope["method"], str(request.path_params["rest"]).removeprefix("/")
    willing = [name for name in gateway.engines if relays(gateway, name, path, method)]
    if not willing:
        shown = f"{method} {request.scope['path'][:200]}"
        raise NotFound(f"there is no {shown}; docs/api.md lists the endpoints")
    call.endpoint = f"{call.endpoint}.{path.partition('/')[0]}"
    raw, body = await _read(request, gateway, method)
    wire = to_wire(request, call, path, raw, is_all=True)
    model = body.model or call.headers.get(MODEL_HEADER, "")
    asked = _to_request(body, model, call, wire)
    if model:
        await _check_model(gateway, call, asked)
        streams = await pipeline.run(gateway, call, [asked])
    else:
        target = await _only_one(gateway, call, asked, willing)
        streams = await pipeline.run_on(gateway, call, asked, Route((target,)))
    reply = await relayed_reply(call, streams, done=b"")
    assert reply is not None, "a target that passes requests on gave an answer of another kind"
    return reply


async def _read(
    request: Request[Any, Any, Any], gateway: Gateway, method: str
) -> tuple[bytes, AnyBody]:
    """The body, which is JSON: what another form asks for could not be checked."""
    limit = gateway.settings.max_body_bytes
    if method in ("GET", "DELETE"):
        if await read_raw(request, max_bytes=limit):
            raise BadRequest(f"a {method} has no body here")
        return b"", AnyBody()
    return await read_either(request, lambda _: _DECODER, max_bytes=limit)


def _to_request(body: AnyBody, model: str, call: Call, wire: WireRequest) -> GenerateRequest:
    caps = (body.max_output_tokens, body.max_completion_tokens, body.max_tokens)
    return GenerateRequest(
        id=f"{call.id}-0",
        model=model,
        # Whatever is in it, its length says about how many tokens it is.
        prompt=wire.body.decode(errors="replace"),
        max_tokens=next((cap for cap in caps if cap is not None and cap > 0), None),
        wire=wire,
    )


async def _check_model(gateway: Gateway, call: Call, asked: GenerateRequest) -> None:
    """Raises unless every target of the model may be asked for this path."""
    assert asked.wire is not None
    if extent(gateway, call, asked.model, asked.wire.path, asked.wire.method) != "all":
        call.requests = [asked]
        await pipeline.authorize(gateway, call, asked.model)
        raise BadRequest(
            f"/v1/{asked.wire.path} is not served for the model {asked.model!r}", param="model"
        )


async def _only_one(
    gateway: Gateway, call: Call, asked: GenerateRequest, willing: list[str]
) -> Target:
    """The one engine that a call without a model can mean."""
    if len(willing) > 1:
        call.requests = [asked]
        await gateway.hooks.authorize(call)
        raise BadRequest(
            f"several upstreams serve this path; name a model of one of them, in the body or "
            f"in the header {MODEL_HEADER}",
            param="model",
        )
    return Target(willing[0], "")
