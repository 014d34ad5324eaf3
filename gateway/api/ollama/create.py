"""POST /api/create: make a model, of another one or of files that were sent before."""

from collections.abc import Mapping
from typing import Any

import msgspec
from litestar import Request, post
from litestar.types import ASGIApp
from msgspec import Struct

from gateway.api.ollama.management import Kept, kept, place_of, record, told
from gateway.api.ollama.messages import SentMessage
from gateway.api.ollama.model_names import in_ollamas_words, named, public_name
from gateway.api.ollama.modelfile import Draft, instructions_of
from gateway.api.ollama.opening import opened, read
from gateway.call import Call
from gateway.errors import BadRequest
from gateway.gateway import Gateway


class Create(Struct, kw_only=True):
    """The request body. `modelfile` is the older form of all the others."""

    model: str = ""
    name: str = ""
    from_: str = msgspec.field(default="", name="from")
    files: dict[str, str] | None = None
    adapters: dict[str, str] | None = None
    template: str | None = None
    license: str | list[str] | None = None
    system: str | None = None
    parameters: dict[str, Any] | None = None
    messages: list[SentMessage] | None = None
    renderer: str | None = None
    parser: str | None = None
    requires: str | None = None
    modelfile: str | None = None
    quantize: str | None = None
    quantization: str | None = None  # the older name
    stream: bool | None = None


_DECODER = msgspec.json.Decoder(Create)


@post("/api/create", name="ollama.create", status_code=200)
async def create_model(request: Request[Any, Any, Any]) -> ASGIApp:
    """Make it, and tell how far it is."""
    gateway, call = opened(request)
    body = await read(request, _DECODER)
    asked_for = named(body.model, body.name)
    source = await _source(gateway, call, body)
    with in_ollamas_words(asked_for):
        place = await kept(request, await public_name(gateway, call, asked_for))
    if source is not None and source.engine != place.engine:
        raise BadRequest(
            f"{body.from_[:200]!r} is a model of {source.engine}, and {asked_for[:200]!r} would be "
            f"one of {place.engine}",
            param="from",
        )
    modelfile = body.modelfile or instructions_of(_draft(body, source))
    await record(gateway, call, "create", place, _noted(body))
    quantize = body.quantize or body.quantization
    if quantize:
        steps = place.library.create(place.model, modelfile, quantize=quantize)
    else:
        steps = place.library.create(place.model, modelfile)
    return await told(call, asked_for, steps, stream=body.stream)


async def _source(gateway: Gateway, call: Call, body: Create) -> Kept | None:
    """The model that it is made from. Raises `BadRequest` if there is nothing to make it of."""
    given = [bool(body.from_), bool(body.files), bool(body.modelfile)]
    if not any(given):
        raise BadRequest("neither 'from' or 'files' was specified", param="from")
    if body.modelfile or not body.from_:
        return None
    name = await public_name(gateway, call, body.from_)
    with in_ollamas_words(body.from_):
        return await place_of(gateway, call, name)


def _draft(body: Create, source: Kept | None) -> Draft:
    licenses = [body.license] if isinstance(body.license, str) else body.license or []
    return Draft(
        source=source.model if source is not None else None,
        files=body.files or {},
        adapters=body.adapters or {},
        texts={
            "TEMPLATE": body.template,
            "SYSTEM": body.system,
            "RENDERER": body.renderer,
            "PARSER": body.parser,
            "REQUIRES": body.requires,
        },
        licenses=licenses,
        parameters=body.parameters or {},
        messages=[(one.role, one.content or "") for one in body.messages or ()],
    )


def _noted(body: Create) -> Mapping[str, object]:
    """What of it is worth keeping in the audit log: what the model is made of, not its words."""
    made_of: dict[str, object] = {
        "from": body.from_,
        "files": body.files,
        "quantize": body.quantize,
    }
    return {name: value for name, value in made_of.items() if value}
