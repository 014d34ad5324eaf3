"""DELETE /api/delete: remove a name, and its files when nothing else needs them."""

from typing import Any

import msgspec
from litestar import Request, delete
from litestar.types import ASGIApp
from msgspec import Struct

from gateway.api.ollama.management import kept, record
from gateway.api.ollama.model_names import in_ollamas_words, named, public_name
from gateway.api.ollama.opening import opened, read
from gateway.api.replies import JsonReply
from gateway.errors import unknown_as


class Delete(Struct, kw_only=True):
    """The request body."""

    model: str = ""
    name: str = ""


_DECODER = msgspec.json.Decoder(Delete)


@delete("/api/delete", name="ollama.delete", status_code=200)
async def delete_model(request: Request[Any, Any, Any]) -> ASGIApp:
    """Remove it; who is being answered by the model is answered to the end."""
    gateway, call = opened(request)
    body = await read(request, _DECODER)
    asked_for = named(body.model, body.name)
    with in_ollamas_words(asked_for):
        place = await kept(request, await public_name(gateway, call, asked_for))
        await record(gateway, call, "delete", place)
        with unknown_as(asked_for):
            await place.library.delete(place.model)
    return JsonReply(b"")  # pyright: ignore[reportReturnType]
