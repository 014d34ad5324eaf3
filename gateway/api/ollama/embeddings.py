"""POST /api/embeddings: the older form of ollama.embed, one text and one vector."""

from typing import Any

import msgspec
from litestar.types import ASGIApp
from msgspec import Struct

from engines.protocol import EmbedRequest
from gateway import pipeline
from gateway.api.bodies import Incoming
from gateway.api.model_endpoint import model_endpoint
from gateway.api.ollama.cutting import Cutting
from gateway.api.ollama.model_names import in_ollamas_words, named, public_name
from gateway.api.ollama.opening import opened, read
from gateway.api.ollama.options import read_options
from gateway.api.ollama.residence import KeepAlive, keep_alive_of, load
from gateway.api.replies import JsonReply


class CreateEmbedding(Struct, kw_only=True):
    """The request body."""

    model: str = ""
    prompt: str | None = None
    keep_alive: KeepAlive = None
    options: dict[str, Any] | None = None


_DECODER = msgspec.json.Decoder(CreateEmbedding)


@model_endpoint("/api/embeddings", name="ollama.embeddings")
async def create_embedding(request: Incoming) -> ASGIApp:
    """Turn one text into a vector; no text loads the model and gives an empty one."""
    gateway, call = opened(request)
    body = await read(request, _DECODER)
    asked_for = named(body.model)
    name = await public_name(gateway, call, asked_for)
    read_options(call, body.options)
    vector = []
    with in_ollamas_words(asked_for):
        if body.prompt:
            asked = EmbedRequest(
                id=f"{call.id}-0",
                model=name,
                inputs=[body.prompt],
                keep_alive_seconds=keep_alive_of(call, body.keep_alive),
            )
            found = await pipeline.embed(gateway, call, asked, shorten=Cutting(gateway, call))
            vector = list(found.vectors[0])
        else:
            await load(gateway, call, name, body.keep_alive)
    return JsonReply(msgspec.json.encode({"embedding": vector}))  # pyright: ignore[reportReturnType]
