"""POST /v1/embeddings."""

import array
import base64
import sys
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from litestar import Request, post
from litestar.types import ASGIApp
from msgspec import Struct

from engines.protocol import Embeddings, EmbedRequest
from gateway import pipeline
from gateway.api.bodies import read_body
from gateway.api.openai.answers import opened
from gateway.api.openai.prompts import to_prompts
from gateway.api.openai.sampling import check_ranges
from gateway.api.replies import JsonReply
from gateway.errors import BadRequest

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


@post("/v1/embeddings", name="openai.embeddings")
async def create_embedding(request: Request[Any, Any, Any]) -> ASGIApp:
    """Turn texts into vectors."""
    gateway, call = opened(request)
    body = await read_body(request, _DECODER, max_bytes=gateway.settings.max_body_bytes)
    embeddings = await pipeline.embed(gateway, call, to_request(body, call.id))
    return JsonReply(msgspec.json.encode(fold(body, embeddings)))  # pyright: ignore[reportReturnType]


def _to_floats(vector: Sequence[float]) -> Sequence[float] | str:
    return vector


def _to_base64(vector: Sequence[float]) -> Sequence[float] | str:
    numbers = array.array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode()
