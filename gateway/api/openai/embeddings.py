"""POST /v1/embeddings."""

import array
import base64
import sys
from collections.abc import Sequence
from typing import Any, Literal, cast

import msgspec
from litestar.types import ASGIApp
from msgspec import Struct

from engines.protocol import Embeddings, EmbedRequest
from engines.wire import WireRequest
from gateway import pipeline
from gateway.api.bodies import Incoming, decode_body
from gateway.api.model_endpoint import model_endpoint
from gateway.api.openai.answers import opened
from gateway.api.openai.prompts import to_prompts
from gateway.api.openai.relay import AnyRequest, read_relayable
from gateway.api.openai.sampling import check_ranges
from gateway.api.replies import JsonReply
from gateway.call import Call
from gateway.errors import BadRequest, ModelUnknown
from gateway.gateway import Gateway

PATH = "embeddings"
MAX_INPUTS = 2048
MAX_DIMENSIONS = 65_536
IGNORED = frozenset({"user"})

EncodingFormat = Literal["float", "base64"]


class CreateEmbedding(Struct, kw_only=True, forbid_unknown_fields=True):
    """The request body."""

    input: str | list[str | int | list[int]]
    model: str
    dimensions: int | None = None
    encoding_format: EncodingFormat | None = None
    user: str | None = None


class Embedding(Struct, frozen=True, kw_only=True):
    """One input's vector: numbers, or their bytes in base64."""

    object: str = "embedding"
    index: int
    embedding: Sequence[float] | str


class EmbeddingUsage(Struct, frozen=True):
    """Tokens spent; an embedding has no answer tokens."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Struct, frozen=True, kw_only=True):
    """The answer."""

    object: str = "list"
    data: Sequence[Embedding]
    model: str
    usage: EmbeddingUsage


_DECODER = msgspec.json.Decoder(CreateEmbedding)


def to_request(body: CreateEmbedding, call_id: str) -> EmbedRequest:
    """The request. Raises `BadRequest` that names a field."""
    if not body.model:
        raise BadRequest("model is empty; GET /v1/models lists the names", param="model")
    check_ranges(body, {"dimensions": (1, MAX_DIMENSIONS)})
    return EmbedRequest(
        id=f"{call_id}-0",
        model=body.model,
        inputs=to_prompts(body.input, "input", at_most=MAX_INPUTS),
        dimensions=body.dimensions,
    )


def fold(body: CreateEmbedding, embeddings: Embeddings) -> EmbeddingList:
    """The vectors as the client asked for them."""
    encode = _to_base64 if body.encoding_format == "base64" else _to_floats
    prompt_tokens = embeddings.usage.prompt_tokens
    return EmbeddingList(
        data=[
            Embedding(index=index, embedding=encode(vector))
            for index, vector in enumerate(embeddings.vectors)
        ],
        model=body.model,
        usage=EmbeddingUsage(prompt_tokens, prompt_tokens),
    )


@model_endpoint("/v1/embeddings", name="openai.embeddings")
async def create_embedding(request: Incoming) -> ASGIApp:
    """Turn texts into vectors."""
    gateway, call = opened(request)
    body, wire = await read_relayable(gateway, call, request, PATH, _DECODER)
    if isinstance(body, AnyRequest):
        return await _relayed(gateway, call, body, wire)
    asked = msgspec.structs.replace(to_request(body, call.id), wire=wire)
    embeddings = await pipeline.embed(gateway, call, asked)
    if embeddings.relayed is not None:
        return JsonReply(embeddings.relayed)  # pyright: ignore[reportReturnType]
    return JsonReply(msgspec.json.encode(fold(body, embeddings)))  # pyright: ignore[reportReturnType]


async def _relayed(
    gateway: Gateway, call: Call, body: AnyRequest, wire: WireRequest | None
) -> ASGIApp:
    """The answer to a request that every target passes on."""
    assert wire is not None
    asked = EmbedRequest(
        id=f"{call.id}-0", model=body.model, inputs=_any_inputs(body.input), wire=wire
    )
    try:
        embeddings = await pipeline.embed(gateway, call, asked)
    except ModelUnknown:
        if call.route is None:
            # Who may not know the model hears what is wrong with the body, as if it were not there.
            decode_body(wire.body, _DECODER)
        raise
    assert embeddings.relayed is not None, "a target that passes requests on made vectors"
    return JsonReply(embeddings.relayed)  # pyright: ignore[reportReturnType]


def _any_inputs(given: Any) -> Sequence[str | Sequence[int]]:
    """The inputs, as far as they are texts or token ids."""
    if isinstance(given, str):
        return [given]
    items = cast(list[Any], given) if isinstance(given, list) else []
    if items and all(isinstance(item, int) for item in items):
        return [items]
    return [item if isinstance(item, str) else [] for item in items]


def _to_floats(vector: Sequence[float]) -> Sequence[float] | str:
    return vector


def _to_base64(vector: Sequence[float]) -> Sequence[float] | str:
    numbers = array.array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode()
