"""Passes requests on as their clients wrote them, where whoever answers speaks this dialect too.

If every target of a model does (see `Relay` in engines/protocol.py), the body is
read only as far as policy needs it, and what its other fields mean is between the
client and whoever answers. Any other model's requests are held to docs/api.md,
field by field; where one of its targets could pass the body on, it is carried along.
"""

from collections.abc import AsyncGenerator, Sequence
from functools import lru_cache
from typing import Any, Literal, TypeVar, cast

import msgspec
from litestar.types import ASGIApp
from msgspec import Struct

from engines.abilities import Relay
from engines.protocol import Event, GenerateRequest, Message, Started, Text
from engines.wire import Relayed, UpstreamHead, WireRequest
from gateway import pipeline
from gateway.api.bodies import Incoming, decode_body, read_either
from gateway.api.framing import SSE_DONE, SSE_HEARTBEAT, SSE_TYPE
from gateway.api.openai.answers import error_frame
from gateway.api.openai.sampling import MAX_CHOICES, check_ranges
from gateway.api.replies import JsonReply, StreamReply
from gateway.call import Call
from gateway.errors import BadRequest, ModelUnknown
from gateway.gateway import Gateway

DIALECT = "openai"

Extent = Literal["all", "some", "none"]


class AnyMessage(Struct, frozen=True):
    """A message, as far as it has text."""

    role: str = ""
    content: Any = None


class AnyRequest(Struct, frozen=True, kw_only=True):
    """Of a body that is passed on, what policy needs to know."""

    model: str
    messages: list[AnyMessage] | None = None
    prompt: Any = None
    input: Any = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None
    prompt_cache_key: str | None = None
    user: str | None = None
    n: int | None = None
    best_of: int | None = None


Body = TypeVar("Body")

# Each answer is computed and paid for, so policy's limits would mean little without these.
_RANGES = {"n": (1, MAX_CHOICES), "best_of": (1, MAX_CHOICES)}

_Decoder = msgspec.json.Decoder[Any]
_DECODER = msgspec.json.Decoder(AnyRequest)


async def read_relayable(
    gateway: Gateway,
    call: Call,
    request: Incoming,
    path: str,
    decoder: msgspec.json.Decoder[Body],
) -> tuple[Body | AnyRequest, WireRequest | None]:
    """The body, and what there is to pass on if somebody could.

    An `AnyRequest` where every target of its model passes it on; else what `decoder` makes
    of it. Raises `BadRequest`, `BodyTooLarge`, `MediaTypeUnknown`.
    """
    found: Extent = "none"

    def choose(model: str) -> _Decoder:
        nonlocal found
        found = extent(gateway, call, model, path)
        return _DECODER if found == "all" else decoder

    raw, body = await read_either(request, choose, max_bytes=gateway.settings.max_body_bytes)
    return body, None if found == "none" else to_wire(request, call, path, raw)


def carrying(
    requests: list[GenerateRequest], wire: WireRequest | None
) -> Sequence[GenerateRequest]:
    """The requests; one that is alone has the body that it came in with it.

    Several are of one body, and whoever got it would answer all of them each time.
    """
    if wire is None or len(requests) != 1:
        return requests
    return [msgspec.structs.replace(requests[0], wire=wire)]


def extent(gateway: Gateway, call: Call, model: str, path: str, method: str = "POST") -> Extent:
    """How many of a model's targets pass requests of this path on."""
    policy = call.policy.resolve(model)
    if policy is None:
        return "none"
    found = {
        relays(gateway, target.engine, path, method)
        for target in (*policy.targets, *policy.fallbacks)
    }
    if True not in found:
        return "none"
    return "some" if False in found else "all"


def relays(gateway: Gateway, engine: str, path: str, method: str = "POST") -> bool:
    """Does this engine pass requests of this path on?"""
    found = gateway.engines.get(engine)
    if found is None or not _is_relay(type(found)):
        return False
    return cast(Relay, found).relays(DIALECT, method, path)


@lru_cache(maxsize=64)  # asking whether a class has a protocol's methods takes long
def _is_relay(kind: type) -> bool:
    return issubclass(kind, Relay)


def to_wire(
    request: Incoming, call: Call, path: str, body: bytes, *, is_all: bool = False
) -> WireRequest:
    """The request as it came."""
    return WireRequest(
        dialect=DIALECT,
        method=request.scope["method"],
        path=path,
        body=body,
        query=request.scope["query_string"].decode("latin-1"),
        headers=call.headers,
        is_all=is_all,
    )


def to_request(body: AnyRequest, call_id: str, wire: WireRequest) -> GenerateRequest:
    """The request, as far as this gateway reads it. Raises `BadRequest` that names a field."""
    if not body.model:
        raise BadRequest("model is empty; GET /v1/models lists the names", param="model")
    check_ranges(body, _RANGES)
    caps = (body.max_completion_tokens, body.max_tokens, body.max_output_tokens)
    return GenerateRequest(
        id=f"{call_id}-0",
        model=body.model,
        messages=[
            Message(role=message.role, parts=(Text(_text(message.content)),))
            for message in body.messages or ()
        ],
        prompt=None if body.prompt is None else _prompt(body.prompt),
        # A number below 1 is some servers' word for "no limit".
        max_tokens=next((cap for cap in caps if cap is not None and cap > 0), None),
        wire=wire,
    )


def num_answers(body: AnyRequest) -> int:
    """How many answers are computed for a body: `n` or `best_of` of each of its prompts."""
    prompt: Any = body.prompt
    several = cast(list[Any], prompt) if isinstance(prompt, list) else []
    # A list of numbers is one prompt, in tokens.
    prompts = len(several) if several and not isinstance(several[0], int) else 1
    return prompts * max(body.n or 1, body.best_of or 1)


async def relayed(
    gateway: Gateway,
    call: Call,
    body: AnyRequest,
    wire: WireRequest | None,
    decoder: msgspec.json.Decoder[Any],
) -> ASGIApp:
    """The answer to a request that every target passes on.

    By `decoder` a body is judged that is not passed on. A caller who may not know that the
    model is there hears what it would hear if it were not: what is wrong with its body.
    """
    assert wire is not None
    call.session = body.prompt_cache_key or body.user or ""
    request = to_request(body, call.id, wire)
    call.answers_per_request = num_answers(body)
    try:
        streams = await pipeline.run(gateway, call, [request])
    except ModelUnknown:
        if call.route is None:
            decode_body(wire.body, decoder)
        raise
    reply = await relayed_reply(call, streams)
    assert reply is not None, "a target that passes requests on gave an answer of another kind"
    return reply


async def relayed_reply(
    call: Call, streams: Sequence[AsyncGenerator[Event, None]], *, done: bytes = SSE_DONE
) -> ASGIApp | None:
    """The reply, if the one stream of this call is an upstream's own answer; else None.

    In that case nothing of the stream is lost but its `Started`.
    """
    if len(streams) != 1 or call.requests[0].wire is None:
        return None
    events = streams[0]
    started = await anext(events)
    head = started.head if isinstance(started, Started) else None
    if head is None:
        return None
    call.response_headers.update(head.headers)
    if head.content_type == "application/json":
        body = b"".join([event.data async for event in events if isinstance(event, Relayed)])
        return JsonReply(body, status=head.status)  # pyright: ignore[reportReturnType]
    call.streams = True
    return _streamed(call, events, head, done)  # pyright: ignore[reportReturnType]


def _streamed(
    call: Call, events: AsyncGenerator[Event, None], head: UpstreamHead, done: bytes
) -> StreamReply:
    is_events = head.content_type == SSE_TYPE
    return StreamReply(
        _frames(call, events, done, tells_errors=is_events),
        content_type=head.content_type,
        heartbeat=SSE_HEARTBEAT if is_events else b"",
        status=head.status,
    )


async def _frames(
    call: Call, events: AsyncGenerator[Event, None], done: bytes, *, tells_errors: bool
) -> AsyncGenerator[bytes, None]:
    try:
        async for event in events:
            if isinstance(event, Relayed):
                yield event.data
    except Exception as error:
        if not tells_errors:
            raise  # in sound there is no place for words: the connection breaks off
        yield error_frame(call, error)
        return
    if done:
        yield done


def _prompt(prompt: Any) -> str | list[int]:
    """All prompts of a body as one: their text, or their token ids."""
    items = cast(list[Any], prompt) if isinstance(prompt, list) else []
    lists = [cast(list[Any], item) if isinstance(item, list) else [item] for item in items]
    tokens = [token for each in lists for token in each if isinstance(token, int)]
    return tokens or _text(prompt)


def _text(content: Any) -> str:
    """The text in a message's content or a prompt, for those who guess how long it is."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    items = cast(list[Any], content)
    return "".join(
        item if isinstance(item, str) else str(cast(dict[str, Any], item).get("text") or "")
        for item in items
        if isinstance(item, str | dict)
    )
