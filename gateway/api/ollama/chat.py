"""POST /api/chat: a conversation in, the next message out. A stream unless told otherwise."""

from typing import Any

import msgspec
from litestar.types import ASGIApp
from msgspec import Struct

from engines.protocol import GenerateRequest
from gateway import pipeline
from gateway.api.bodies import Incoming
from gateway.api.framing import NDJSON_TYPE
from gateway.api.model_endpoint import model_endpoint
from gateway.api.ollama.abilities import check_abilities
from gateway.api.ollama.answers import (
    Format,
    Think,
    nothing_to_answer,
    to_constraint,
    to_effort,
    to_num_logprobs,
)
from gateway.api.ollama.durations import now
from gateway.api.ollama.lines import lines, whole
from gateway.api.ollama.messages import SentMessage, to_messages
from gateway.api.ollama.model_names import in_ollamas_words, named, public_name
from gateway.api.ollama.opening import opened, read
from gateway.api.ollama.options import Options, read_options
from gateway.api.ollama.pieces import Piece, WireToolCall
from gateway.api.ollama.residence import KeepAlive, keep_alive_of, load_or_unload
from gateway.api.ollama.tools import SentTool, to_tools
from gateway.api.replies import JsonReply, StreamReply
from gateway.call import Call
from gateway.gateway import Gateway


class Chat(Struct, kw_only=True):
    """The request body."""

    model: str = ""
    messages: list[SentMessage] | None = None
    tools: list[SentTool] | None = None
    format: Format = None
    options: dict[str, Any] | None = None
    stream: bool | None = None
    keep_alive: KeepAlive = None
    think: Think = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    truncate: bool | None = None  # nothing is ever cut; see docs/ollama-api.md
    shift: bool | None = None


class AnswerMessage(Struct, omit_defaults=True):
    """The assistant's message, or a bit of it."""

    role: str
    content: str
    thinking: str = ""
    tool_calls: list[WireToolCall] = []


_DECODER = msgspec.json.Decoder(Chat)


def to_request(call: Call, body: Chat, options: Options) -> GenerateRequest:
    """The request. Raises `BadRequest` that names a field."""
    return GenerateRequest(
        id=f"{call.id}-0",
        model=body.model,
        messages=to_messages(body.messages or ()),
        max_tokens=options.max_tokens,
        stop=options.stops,
        sampling=options.sampling,
        tools=to_tools(body.tools),
        constraint=to_constraint(body.format),
        logprobs=to_num_logprobs(logprobs=body.logprobs, top_logprobs=body.top_logprobs),
        reasoning_effort=to_effort(body.think),
        keep_alive_seconds=keep_alive_of(call, body.keep_alive),
    )


@model_endpoint("/api/chat", name="ollama.chat")
async def create_chat(request: Incoming) -> ASGIApp:
    """Answer a conversation, or load or unload a model."""
    gateway, call = opened(request)
    body = await read(request, _DECODER)
    asked_for = named(body.model)
    body.model = await public_name(gateway, call, asked_for)
    with in_ollamas_words(asked_for):
        if not body.messages:
            return await _without_messages(gateway, call, body, asked_for)
        options = read_options(call, body.options)
        asked = to_request(call, body, options)
        await check_abilities(gateway, call, asked, options)
        (events,) = await pipeline.run(gateway, call, [asked])
    if body.stream is False:
        answer = await whole(call, asked_for, events, _said)
        return JsonReply(answer)  # pyright: ignore[reportReturnType]
    call.streams = True
    frames = lines(call, asked_for, events, _said)
    return StreamReply(frames, content_type=NDJSON_TYPE)  # pyright: ignore[reportReturnType]


async def _without_messages(gateway: Gateway, call: Call, body: Chat, asked_for: str) -> ASGIApp:
    reason = await load_or_unload(gateway, call, body.model, body.keep_alive)
    answer = {
        "model": asked_for,
        "created_at": now(),
        "message": AnswerMessage("assistant", ""),
        **nothing_to_answer(call, reason),
    }
    return JsonReply(msgspec.json.encode(answer))  # pyright: ignore[reportReturnType]


def _said(piece: Piece) -> bytes:
    message = AnswerMessage("assistant", piece.text, piece.thinking, list(piece.calls))
    return b'"message":%b' % msgspec.json.encode(message)
