"""POST /api/embed: texts in, one vector for each out."""

from typing import Any

import msgspec
from litestar.types import ASGIApp
from msgspec import Struct

from engines.protocol import EmbedRequest
from gateway import pipeline
from gateway.api.bodies import Incoming
from gateway.api.model_endpoint import model_endpoint
from gateway.api.ollama.cutting import Cutting
from gateway.api.ollama.durations import nanoseconds
from gateway.api.ollama.model_names import in_ollamas_words, named, public_name
from gateway.api.ollama.opening import opened, read
from gateway.api.ollama.options import read_options
from gateway.api.ollama.residence import KeepAlive, keep_alive_of, load
from gateway.api.replies import JsonReply
from gateway.errors import BadRequest

MAX_INPUTS = 2048
MAX_DIMENSIONS = 65_536


class Embed(Struct, kw_only=True):
    """The request body."""

    model: str = ""
    input: str | list[str] | None = None
    truncate: bool | None = None
    dimensions: int | None = None
    keep_alive: KeepAlive = None
    options: dict[str, Any] | None = None


_DECODER = msgspec.json.Decoder(Embed)


@model_endpoint("/api/embed", name="ollama.embed")
async def create_embeddings(request: Incoming) -> ASGIApp:
    """Turn texts into vectors of length one."""
    gateway, call = opened(request)
    body = await read(request, _DECODER)
    asked_for = named(body.model)
    name = await public_name(gateway, call, asked_for)
    read_options(call, body.options)
    inputs = _inputs(body)
    vectors, num_tokens, loading = [], 0, 0.0
    with in_ollamas_words(asked_for):
        if inputs:
            asked = EmbedRequest(
                id=f"{call.id}-0",
                model=name,
                inputs=inputs,
                dimensions=body.dimensions,
                keep_alive_seconds=keep_alive_of(call, body.keep_alive),
            )
            cutting = Cutting(gateway, call) if body.truncate is not False else None
            found = await pipeline.embed(gateway, call, asked, shorten=cutting)
            vectors, num_tokens = list(found.vectors), found.usage.prompt_tokens
        else:
            await load(gateway, call, name, body.keep_alive)
            loading = call.seconds
    answer = {
        "model": asked_for,
        "embeddings": vectors,
        "total_duration": nanoseconds(call.seconds),
        "load_duration": nanoseconds(loading),
        "prompt_eval_count": num_tokens,
    }
    return JsonReply(msgspec.json.encode(answer))  # pyright: ignore[reportReturnType]


def _inputs(body: Embed) -> list[str]:
    """The texts; none, where a client only wants the model loaded."""
    if body.dimensions is not None and not 1 <= body.dimensions <= MAX_DIMENSIONS:
        raise BadRequest(f"dimensions must be from 1 to {MAX_DIMENSIONS}", param="dimensions")
    inputs = [body.input] if isinstance(body.input, str) else body.input or []
    if len(inputs) > MAX_INPUTS:
        raise BadRequest(f"input has {len(inputs)} entries; at most {MAX_INPUTS}", param="input")
    if inputs in ([], [""]):
        return []
    for place, text in enumerate(inputs):
        if not text:
            raise BadRequest(f"input[{place}] is empty", param=f"input[{place}]")
    return inputs
