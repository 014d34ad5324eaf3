"""POST /api/copy: give a model another name."""

from typing import Any

import msgspec
from litestar import Request, post
from litestar.types import ASGIApp
from msgspec import Struct

from gateway.api.ollama.management import kept, place_of, record
from gateway.api.ollama.model_names import in_ollamas_words, named, public_name
from gateway.api.ollama.opening import opened, read
from gateway.api.replies import JsonReply
from gateway.errors import BadRequest, unknown_as


class Copy(Struct, kw_only=True):
    """The request body."""

    source: str = ""
    destination: str = ""


_DECODER = msgspec.json.Decoder(Copy)


@post("/api/copy", name="ollama.copy", status_code=200)
async def copy_model(request: Request[Any, Any, Any]) -> ASGIApp:
    """Copy within one engine; no weights are copied, they get a second name."""
    gateway, call = opened(request)
    body = await read(request, _DECODER)
    if not body.destination:
        raise BadRequest("destination is required", param="destination")
    asked_for = named(body.source)
    target = await place_of(gateway, call, named(body.destination))
    with in_ollamas_words(asked_for):
        source = await kept(request, await public_name(gateway, call, asked_for))
        if source.engine != target.engine:
            raise BadRequest(
                f"{asked_for[:200]!r} is a model of {source.engine}, and "
                f"{body.destination[:200]!r} would be one of {target.engine}",
                param="destination",
            )
        await record(gateway, call, "copy", source, {"destination": target.model})
        with unknown_as(asked_for):
            await source.library.copy(source.model, target.model)
    return JsonReply(b"")  # pyright: ignore[reportReturnType]
