"""POST /api/push: send a model to the registry that its name begins with."""

from typing import Any

import msgspec
from litestar import Request, post
from litestar.types import ASGIApp
from msgspec import Struct

from gateway.api.ollama.management import kept, record, told
from gateway.api.ollama.model_names import in_ollamas_words, named, public_name
from gateway.api.ollama.opening import opened, read


class Push(Struct, kw_only=True):
    """The request body."""

    model: str = ""
    name: str = ""
    insecure: bool | None = None  # without effect: plain HTTP is asked for with http://
    stream: bool | None = None


_DECODER = msgspec.json.Decoder(Push)


@post("/api/push", name="ollama.push", status_code=200)
async def push_model(request: Request[Any, Any, Any]) -> ASGIApp:
    """Send it, and tell how far it is."""
    gateway, call = opened(request)
    body = await read(request, _DECODER)
    asked_for = named(body.model, body.name)
    with in_ollamas_words(asked_for):
        place = await kept(request, await public_name(gateway, call, asked_for))
        await record(gateway, call, "push", place)
        steps = place.library.push(place.model)
        return await told(call, asked_for, steps, stream=body.stream)
