"""POST /api/generate: a prompt in, what follows out. A stream unless told otherwise.

Without `raw` and `suffix` a prompt is a conversation of one message, which the model's
template renders; `context` is what was said before.
"""

from collections.abc import Callable
from typing import Any

import msgspec
from litestar.types import ASGIApp
from msgspec import Struct

from engines.protocol import Capability, GenerateRequest, Message, Text
from gateway import pipeline
from gateway.api.bodies import Incoming
from gateway.api.framing import NDJSON_TYPE
from gateway.api.model_endpoint import model_endpoint
from gateway.api.ollama.abilities import check_abilities, known_of
from gateway.api.ollama.answers import (
    Format,
    Think,
    nothing_to_answer,
    to_constraint,
    to_effort,
    to_num_logprobs,
)
from gateway.api.ollama.conversation import from_context, to_context
from gateway.api.ollama.durations import now
from gateway.api.ollama.given_template import with_template
from gateway.api.ollama.images import to_images
from gateway.api.ollama.lines import lines, member, whole
from gateway.api.ollama.model_names import in_ollamas_words, named, public_name
from gateway.api.ollama.opening import opened, read
from gateway.api.ollama.options import Options, read_options
from gateway.api.ollama.pieces import Piece
from gateway.api.ollama.residence import KeepAlive, keep_alive_of, load_or_unload
from gateway.api.replies import JsonReply, StreamReply
from gateway.call import Call
from gateway.errors import BadRequest
from gateway.gateway import Gateway


class Generate(Struct, kw_only=True):
    """The request body."""

    model: str = ""
    prompt: str | None = None
    suffix: str | None = None
    images: list[str] | None = None
    format: Format = None
    options: dict[str, Any] | None = None
    system: str | None = None
    template: str | None = None
    context: list[int] | None = None
    stream: bool | None = None
    raw: bool | None = None
    keep_alive: KeepAlive = None
    think: Think = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    truncate: bool | None = None  # nothing is ever cut; see docs/ollama-api.md
    shift: bool | None = None


_DECODER = msgspec.json.Decoder(Generate)


def to_request(
    call: Call, body: Generate, options: Options, *, has_template: bool
) -> GenerateRequest:
    """The request. Raises `BadRequest` that names a field."""
    _check(body)
    request = GenerateRequest(
        id=f"{call.id}-0",
        model=body.model,
        max_tokens=options.max_tokens,
        stop=options.stops,
        sampling=options.sampling,
        constraint=to_constraint(body.format),
        logprobs=to_num_logprobs(logprobs=body.logprobs, top_logprobs=body.top_logprobs),
        reasoning_effort=to_effort(body.think),
        keep_alive_seconds=keep_alive_of(call, body.keep_alive),
    )
    if body.raw or body.suffix or not has_template:
        return msgspec.structs.replace(request, prompt=_raw(body), suffix=body.suffix or None)
    return msgspec.structs.replace(request, messages=_messages(body))


@model_endpoint("/api/generate", name="ollama.generate")
async def create_generation(request: Incoming) -> ASGIApp:
    """Go on from a prompt, or load or unload a model."""
    gateway, call = opened(request)
    body = await read(request, _DECODER)
    asked_for = named(body.model)
    body.model = await public_name(gateway, call, asked_for)
    with in_ollamas_words(asked_for):
        if not (body.prompt or body.images or body.suffix):
            return await _without_prompt(gateway, call, body, asked_for)
        options = read_options(call, body.options)
        info = await known_of(gateway, call, body.model)
        # A model without a template goes on from the prompt as it stands.
        able = frozenset[Capability]() if info is None else info.capabilities
        has_template = not able or Capability.CHAT in able or bool(body.template)
        asked = to_request(call, body, options, has_template=has_template)
        await check_abilities(gateway, call, asked, options)
        at_end = _context_of(body, asked)
        if body.template:
            asked = await with_template(gateway, call, body.template, asked)
        (events,) = await pipeline.run(gateway, call, [asked])
    if body.stream is False:
        return JsonReply(await whole(call, asked_for, events, _said, at_end))  # pyright: ignore[reportReturnType]
    call.streams = True
    frames = lines(call, asked_for, events, _said, at_end)
    return StreamReply(frames, content_type=NDJSON_TYPE)  # pyright: ignore[reportReturnType]


async def _without_prompt(gateway: Gateway, call: Call, body: Generate, asked_for: str) -> ASGIApp:
    reason = await load_or_unload(gateway, call, body.model, body.keep_alive)
    answer = {
        "model": asked_for,
        "created_at": now(),
        "response": "",
        **nothing_to_answer(call, reason),
    }
    return JsonReply(msgspec.json.encode(answer))  # pyright: ignore[reportReturnType]


def _check(body: Generate) -> None:
    if body.raw and (body.template or body.system or body.context):
        raise BadRequest("raw mode does not support template, system, or context", param="raw")
    if body.suffix and (body.images or body.context or body.system or body.template):
        raise BadRequest(
            "suffix fills a gap in a text, with which images, context, system and template do not "
            "go",
            param="suffix",
        )
    if body.template and body.images:
        raise BadRequest("images do not go with a template of your own", param="template")


def _raw(body: Generate) -> str:
    """The prompt as the model is to read it."""
    if body.images:
        raise BadRequest("images need a model with a chat template, and no raw", param="images")
    said = from_context(body.context) if body.context else []
    before = "".join(message.text for message in said)
    system = f"{body.system}\n\n" if body.system else ""
    return before + system + (body.prompt or "")


def _messages(body: Generate) -> list[Message]:
    """What was said before, then the prompt; a new system message takes the old one's place."""
    messages = from_context(body.context) if body.context else []
    if body.system:
        messages = [message for message in messages if message.role != "system"]
        messages.insert(0, Message(role="system", parts=[Text(body.system)]))
    images = to_images(body.images, "images")
    text = [Text(body.prompt or "")] if body.prompt or not images else []
    return [*messages, Message(role="user", parts=[*text, *images])]


def _context_of(body: Generate, asked: GenerateRequest) -> Callable[[Piece], bytes]:
    """The `context` of the last line; none for raw prompts."""
    if body.raw:
        return lambda everything: b""
    said = asked.messages
    if asked.prompt is not None:
        said = [Message(role="user", parts=[Text(str(asked.prompt))])]
    return lambda everything: member("context", to_context(said, everything.text))


def _said(piece: Piece) -> bytes:
    response = b'"response":%b' % msgspec.json.encode(piece.text)
    return response + (member("thinking", piece.thinking) if piece.thinking else b"")
