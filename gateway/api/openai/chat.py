"""POST /v1/chat/completions.

A body becomes one `GenerateRequest` for each choice; their events become one
stream of chunks, or, folded, one answer. What every field does is in
docs/api.md, which a test holds against the Structs here.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from types import MappingProxyType
from typing import Any, Literal

import msgspec
from litestar.types import ASGIApp
from msgspec import UNSET, Struct

from engines.errors import RequestRefused
from engines.protocol import Constraint, Event, Finished, GenerateRequest, Image
from gateway import pipeline
from gateway.api.bodies import Incoming
from gateway.api.framing import SSE_DONE, SSE_HEARTBEAT, SSE_TYPE
from gateway.api.model_endpoint import model_endpoint
from gateway.api.openai.answers import (
    AnswerHead,
    answer_head,
    error_frame,
    opened,
    to_usage,
)
from gateway.api.openai.chat_answer import ChatCompletion, FoldedChoice
from gateway.api.openai.choices import side_by_side
from gateway.api.openai.chunks import ChunkWriter
from gateway.api.openai.constraints import ResponseFormat, blame, of_response_format, only_one
from gateway.api.openai.image_links import linked_images
from gateway.api.openai.messages import WireMessage, to_messages
from gateway.api.openai.relay import (
    AnyRequest,
    carrying,
    read_relayable,
    relayed,
    relayed_reply,
)
from gateway.api.openai.sampling import (
    MAX_INT32,
    SamplingFields,
    check_ranges,
    check_shared,
    refuse,
    to_constraint,
    to_sampling,
    to_stops,
)
from gateway.api.openai.tools import (
    Function,
    WireFunctionCall,
    WireTool,
    WireToolChoice,
    function_call_to_choice,
    functions_to_tools,
    to_tool_choice,
    to_tools,
)
from gateway.api.replies import JsonReply, StreamReply
from gateway.call import Call
from gateway.errors import BadRequest

PATH = "chat/completions"

ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
ServiceTier = Literal["auto", "default", "flex", "scale", "priority", "fast"]

REFUSED: Mapping[str, str] = {
    "audio": "no model answers in sound",
    "moderation": "no moderation model runs here, and unmoderated text must not pass for moderated",
    "store": "answers are not kept, so there would be nothing to fetch later",
    "web_search_options": "models here have no web search",
}
IGNORED = frozenset(
    {
        "metadata",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "user",
        "verbosity",
    }
)


class ChatTemplateOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """vLLM's `chat_template_kwargs`, as far as it means the same for every model."""

    enable_thinking: bool | None = None


class CreateChatCompletion(SamplingFields, kw_only=True, forbid_unknown_fields=True):
    """The request body."""

    messages: list[WireMessage]
    audio: dict[str, Any] | None = None
    function_call: WireFunctionCall | None = None
    functions: list[Function] | None = None
    logprobs: bool | None = None
    max_completion_tokens: int | None = None
    metadata: dict[str, str] | None = None
    modalities: list[Literal["text", "audio"]] | None = None
    moderation: dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    prediction: dict[str, Any] | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: str | None = None
    reasoning_effort: ReasoningEffort | None = None
    response_format: ResponseFormat | None = None
    safety_identifier: str | None = None
    service_tier: ServiceTier | None = None
    store: bool | None = None
    tool_choice: WireToolChoice | None = None
    tools: list[WireTool] | None = None
    top_logprobs: int | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    web_search_options: dict[str, Any] | None = None
    chat_template_kwargs: ChatTemplateOptions | None = None  # extension

    @property
    def in_legacy_words(self) -> bool:
        """Did the client offer `functions`, and so expects `function_call` back?"""
        return self.functions is not None


_DECODER = msgspec.json.Decoder(CreateChatCompletion)


def to_requests(
    body: CreateChatCompletion, call_id: str, images: Mapping[str, Image] = MappingProxyType({})
) -> list[GenerateRequest]:
    """One request for each choice. Raises `BadRequest` that names a field."""
    _check(body)
    tools = (
        functions_to_tools(body.functions or ()) if body.functions else to_tools(body.tools or ())
    )
    choice, tools = to_tool_choice(body.tool_choice, tools)
    if body.in_legacy_words:
        choice = function_call_to_choice(body.function_call, tools)
    first = GenerateRequest(
        id=f"{call_id}-0",
        model=body.model,
        messages=to_messages(body.messages, images),
        max_tokens=body.max_completion_tokens or body.max_tokens,
        stop=to_stops(body.stop),
        sampling=to_sampling(body, nth=0),
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=body.parallel_tool_calls is not False and not body.in_legacy_words,
        constraint=only_one(_demands(body)),
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        reasoning_effort=_reasoning_effort(body),
    )
    more = [
        msgspec.structs.replace(first, id=f"{call_id}-{i}", sampling=to_sampling(body, nth=i))
        for i in range(1, body.n or 1)
    ]
    return [first, *more]


async def stream(
    call: Call,
    body: CreateChatCompletion,
    head: AnswerHead,
    streams: Sequence[AsyncGenerator[Event, None]],
) -> AsyncGenerator[bytes, None]:
    """The answer as frames: role, deltas, finish for each choice, usage if asked, the end."""
    write = ChunkWriter(
        head,
        num_choices=len(streams),
        include_usage=body.include_usage,
        obfuscate=body.obfuscate,
        in_legacy_words=body.in_legacy_words,
    )
    finished: dict[int, Finished] = {}
    for index in range(len(streams)):
        yield write.role(index)
    try:
        async with aclosing(side_by_side(streams)) as events:
            async for index, event in events:
                if isinstance(event, Finished):
                    finished[index] = event
                if frame := write.event(index, event):
                    yield frame
    except Exception as error:  # noqa: BLE001 - the status is out: the failure goes in the stream
        yield error_frame(call, error)
        return
    if body.include_usage:
        yield write.usage(to_usage(finished, choices_per_prompt=len(streams)))
    yield SSE_DONE


async def fold(
    body: CreateChatCompletion,
    head: AnswerHead,
    streams: Sequence[AsyncGenerator[Event, None]],
) -> ChatCompletion:
    """The same events as one answer."""
    choices = [FoldedChoice() for _ in streams]
    finished: dict[int, Finished] = {}
    async with aclosing(side_by_side(streams)) as events:
        async for index, event in events:
            choices[index].add(event)
            if isinstance(event, Finished):
                finished[index] = event
    return ChatCompletion(
        id=head.id,
        created=head.created,
        model=head.model,
        choices=[
            choice.to_wire(
                index,
                finished[index],
                with_logprobs=bool(body.logprobs),
                in_legacy_words=body.in_legacy_words,
            )
            for index, choice in enumerate(choices)
        ],
        usage=to_usage(finished, choices_per_prompt=len(streams)),
        service_tier=head.service_tier or UNSET,
        system_fingerprint=head.system_fingerprint,
    )


@model_endpoint("/v1/chat/completions", name="openai.chat")
async def create_chat_completion(request: Incoming) -> ASGIApp:
    """Answer a conversation."""
    gateway, call = opened(request)
    body, wire = await read_relayable(gateway, call, request, PATH, _DECODER)
    if isinstance(body, AnyRequest):
        return await relayed(gateway, call, body, wire, _DECODER)
    images = await linked_images(gateway, call, body.model, body.messages)
    requests = carrying(to_requests(body, call.id, images), wire)
    call.choices_per_prompt = body.n or 1
    call.session = body.prompt_cache_key or body.user or ""
    try:
        streams = await pipeline.run(gateway, call, requests)
    except RequestRefused as error:
        blame(error, _demands(body))
        raise
    if (reply := await relayed_reply(call, streams)) is not None:
        return reply
    head = answer_head(
        call,
        prefix="chatcmpl",
        model=body.model,
        service_tier="default" if body.service_tier else None,
    )
    if body.stream:
        call.streams = True
        frames = stream(call, body, head, streams)
        return StreamReply(frames, content_type=SSE_TYPE, heartbeat=SSE_HEARTBEAT)  # pyright: ignore[reportReturnType]
    answer = await fold(body, head, streams)
    return JsonReply(msgspec.json.encode(answer))  # pyright: ignore[reportReturnType]


def _check(body: CreateChatCompletion) -> None:
    check_shared(body)
    check_ranges(body, {"max_completion_tokens": (1, MAX_INT32), "top_logprobs": (0, 20)})
    refuse(body, REFUSED)
    if body.modalities is not None and "audio" in body.modalities:
        raise BadRequest('modalities has "audio"; only ["text"] is served', param="modalities")
    if body.top_logprobs is not None and not body.logprobs:
        raise BadRequest("top_logprobs needs logprobs: true", param="top_logprobs")
    if body.tools and body.functions:
        raise BadRequest("functions is the deprecated form of tools; send one", param="functions")
    if body.functions is None and body.function_call is not None:
        raise BadRequest("function_call needs functions", param="function_call")


def _demands(body: CreateChatCompletion) -> Mapping[str, Constraint]:
    return {**of_response_format(body.response_format), **to_constraint(body)}


def _reasoning_effort(body: CreateChatCompletion) -> str | None:
    options = body.chat_template_kwargs
    if options is not None and options.enable_thinking is False:
        return "none"
    return body.reasoning_effort
