"""POST /api/pull: fetch a model from a registry, Hugging Face or a URL."""

from typing import Any

import msgspec
from litestar import Request, post
from litestar.types import ASGIApp
from msgspec import Struct

from gateway.api.ollama.management import kept, record, told
from gateway.api.ollama.model_names import in_ollamas_words, named, public_name
from gateway.api.ollama.opening import opened, read


class Pull(Struct, kw_only=True):
    """The request body."""

    model: str = ""
    name: str = ""
    insecure: bool | None = None  # without effect: plain HTTP is asked for with http://
    stream: bool | None = None


_DECODER = msgspec.json.Decoder(Pull)


@post("/api/pull", name="ollama.pull", status_code=200)
async def pull_model(request: Request[Any, Any, Any]) -> ASGIApp:
    """Fetch it, and tell how far it is; what was fetched stays if the caller leaves."""
    gateway, call = opened(request)
    body = await read(request, _DECODER)
    asked_for = named(body.model, body.name)
    with in_ollamas_words(asked_for):
        place = await kept(request, await public_name(gateway, call, asked_for))
        await record(gateway, call, "pull", place)
        steps = place.library.pull(place.model)
        return await told(call, asked_for, steps, stream=body.stream)
