"""POST /v1/rerank: which of some texts answer a question best, in Jina's and Cohere's words.

No engine here reranks by itself, so a request is always passed on.
"""

from typing import Any

import msgspec
from litestar import Request, post
from litestar.types import ASGIApp
from msgspec import Struct

from engines.errors import Unsupported
from engines.protocol import GenerateRequest
from gateway import pipeline
from gateway.api.bodies import read_either
from gateway.api.openai.answers import opened
from gateway.api.openai.relay import extent, relayed_reply, to_wire

PATH = "rerank"


class CreateRerank(Struct, frozen=True, kw_only=True):
    """The request body, as far as it is looked at here."""

    model: str
    query: str | dict[str, Any]
    documents: list[str | dict[str, Any]]
    top_n: int | None = None
    return_documents: bool | None = None


_DECODER = msgspec.json.Decoder(CreateRerank)


@post("/v1/rerank", name="openai.rerank")
async def create_rerank(request: Request[Any, Any, Any]) -> ASGIApp:
    """Order texts by how well they answer a question."""
    gateway, call = opened(request)
    raw, body = await read_either(
        request, lambda _: _DECODER, max_bytes=gateway.settings.max_body_bytes
    )
    texts = [body.query, *body.documents]
    asked = GenerateRequest(
        id=f"{call.id}-0",
        model=body.model,
        prompt="\n".join(text for text in texts if isinstance(text, str)),
        wire=to_wire(request, call, PATH, raw),
    )
    if extent(gateway, call, body.model, PATH) != "all":
        call.requests = [asked]
        await pipeline.authorize(gateway, call, body.model)
        raise Unsupported(f"{body.model!r} does not rerank", param="model")
    streams = await pipeline.run(gateway, call, [asked])
    reply = await relayed_reply(call, streams)
    assert reply is not None, "a target that passes requests on gave an answer of another kind"
    return reply
