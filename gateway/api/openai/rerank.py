"""POST /v1/rerank: which of some texts answer a question best, in Jina's and Cohere's words.

Where every target of a model passes requests on, this one is passed on as it is; else
an engine scores the texts (`Reranks`), and the answer is put together here.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from litestar.types import ASGIApp
from msgspec import UNSET, Struct, UnsetType

from engines.protocol import GenerateRequest
from engines.reranking import Reranking, RerankRequest
from gateway import pipeline
from gateway.api.bodies import Incoming, decode_body, read_either
from gateway.api.model_endpoint import model_endpoint
from gateway.api.openai.answers import opened
from gateway.api.openai.relay import Extent, extent, relayed_reply, to_wire
from gateway.api.openai.sampling import MAX_INT32, check_ranges
from gateway.api.replies import JsonReply
from gateway.call import Call
from gateway.errors import BadRequest, ModelUnknown
from gateway.gateway import Gateway

PATH = "rerank"
MAX_DOCUMENTS = 2048


class AnyRerank(Struct, frozen=True, kw_only=True):
    """A body that is passed on, as far as it is looked at here."""

    model: str
    query: str | dict[str, Any]
    documents: list[str | dict[str, Any]]


class TextDocument(Struct, frozen=True, forbid_unknown_fields=True):
    """A text, as an object."""

    text: str


class CreateRerank(Struct, kw_only=True, forbid_unknown_fields=True):
    """The request body."""

    model: str
    query: str
    documents: list[str | TextDocument]
    top_n: int | None = None
    return_documents: bool | None = None


class Result(Struct, frozen=True, kw_only=True):
    """A document's place in the request, and how well it answers: 0 to 1."""

    index: int
    relevance_score: float
    document: TextDocument | UnsetType = UNSET


class RerankUsage(Struct, frozen=True):
    """Tokens spent: the query's count once for each document."""

    prompt_tokens: int
    total_tokens: int


class Reranked(Struct, frozen=True, kw_only=True):
    """The answer, best first."""

    id: str
    model: str
    results: Sequence[Result]
    usage: RerankUsage


_ANY_DECODER = msgspec.json.Decoder(AnyRerank)
_DECODER = msgspec.json.Decoder(CreateRerank)


def to_request(body: CreateRerank, call_id: str) -> RerankRequest:
    """The request. Raises `BadRequest` that names a field."""
    if not body.model:
        raise BadRequest("model is empty; GET /v1/models lists the names", param="model")
    if not body.query:
        raise BadRequest("query is empty", param="query")
    if not body.documents:
        raise BadRequest("documents is an empty list", param="documents")
    if len(body.documents) > MAX_DOCUMENTS:
        raise BadRequest(
            f"documents has {len(body.documents)} entries; at most {MAX_DOCUMENTS}",
            param="documents",
        )
    check_ranges(body, {"top_n": (1, MAX_INT32)})
    return RerankRequest(
        id=f"{call_id}-0",
        model=body.model,
        query=body.query,
        documents=[_text(document) for document in body.documents],
    )


def fold(body: CreateRerank, call_id: str, reranking: Reranking) -> Reranked:
    """The documents, best first, as many as were asked for; of equals the earlier one first."""
    results = [
        Result(
            index=index,
            relevance_score=score,
            document=TextDocument(_text(document)) if body.return_documents else UNSET,
        )
        for index, (document, score) in enumerate(
            zip(body.documents, reranking.scores, strict=True)
        )
    ]
    results.sort(key=lambda result: -result.relevance_score)
    prompt_tokens = reranking.usage.prompt_tokens
    return Reranked(
        id=f"rerank-{call_id}",
        model=body.model,
        results=results[: body.top_n],
        usage=RerankUsage(prompt_tokens, prompt_tokens),
    )


@model_endpoint("/v1/rerank", name="openai.rerank")
async def create_rerank(request: Incoming) -> ASGIApp:
    """Order texts by how well they answer a question."""
    gateway, call = opened(request)
    found: Extent = "none"

    def choose(model: str) -> msgspec.json.Decoder[Any]:
        nonlocal found
        found = extent(gateway, call, model, PATH)
        return _ANY_DECODER if found == "all" else _DECODER

    raw, body = await read_either(request, choose, max_bytes=gateway.settings.max_body_bytes)
    if isinstance(body, AnyRerank):
        return await _relayed(request, gateway, call, raw, body)
    reranking = await pipeline.rerank(gateway, call, to_request(body, call.id))
    return JsonReply(msgspec.json.encode(fold(body, call.id, reranking)))  # pyright: ignore[reportReturnType]


async def _relayed(
    request: Incoming, gateway: Gateway, call: Call, raw: bytes, body: AnyRerank
) -> ASGIApp:
    """The answer to a request that every target passes on."""
    texts = [body.query, *body.documents]
    asked = GenerateRequest(
        id=f"{call.id}-0",
        model=body.model,
        prompt="\n".join(text for text in texts if isinstance(text, str)),
        wire=to_wire(request, call, PATH, raw, is_all=True),
    )
    try:
        streams = await pipeline.run(gateway, call, [asked])
    except ModelUnknown:
        if call.route is None:
            # Who may not know the model hears what is wrong with the body, as if it were not there.
            decode_body(raw, _DECODER)
        raise
    reply = await relayed_reply(call, streams)
    assert reply is not None, "a target that passes requests on gave an answer of another kind"
    return reply


def _text(document: str | TextDocument) -> str:
    return document if isinstance(document, str) else document.text
