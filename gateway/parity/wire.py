"""What OpenAI-compatible servers answer, read kindly: unknown fields pass, missing ones are none.

Servers differ in what they leave out, and a comparison is to tell that and not
to stumble over it. What is no such answer at all raises `msgspec.DecodeError`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec
from msgspec import Struct

from engines.protocol import TokenLogprob, TopLogprob
from gateway.parity.answer import Notes


class WireFunction(Struct, frozen=True):
    """More of a called function."""

    name: str | None = None
    arguments: str | None = None


class WireToolCall(Struct, frozen=True):
    """More of a tool call; whole answers leave the index out."""

    index: int | None = None
    function: WireFunction | None = None


class WireMessage(Struct, frozen=True):
    """A message or a piece of one; thinking has two names among servers."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: Sequence[WireToolCall] | None = None


class WireLogprob(Struct, frozen=True):
    """A token and its log-probability, and at a token's place what else could have come."""

    token: str = ""
    logprob: float = 0.0
    bytes: Sequence[int] | None = None
    top_logprobs: Sequence["WireLogprob"] | None = None


class WireLogprobs(Struct, frozen=True):
    """Of a chat's choice `content`, of a completion's the lists."""

    content: Sequence[WireLogprob] | None = None
    tokens: Sequence[str] | None = None
    token_logprobs: Sequence[float | None] | None = None
    top_logprobs: Sequence[Mapping[str, float] | None] | None = None


class WireChoice(Struct, frozen=True):
    """One choice, or a piece of it, of either endpoint."""

    delta: WireMessage | None = None
    message: WireMessage | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: WireLogprobs | None = None


class WireUsage(Struct, frozen=True):
    """Tokens spent."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class WireAnswer(Struct, frozen=True):
    """An answer, or a chunk of it; `error` in its place where a stream broke."""

    choices: Sequence[WireChoice] = ()
    usage: WireUsage | None = None
    error: Any = None


class WireVector(Struct, frozen=True):
    """One input's vector."""

    embedding: Sequence[float]
    index: int = 0


class WireEmbeddings(Struct, frozen=True):
    """The answer of the embeddings endpoint."""

    data: Sequence[WireVector]
    usage: WireUsage | None = None


class WireModel(Struct, frozen=True):
    """A model of the list."""

    id: str


class WireModels(Struct, frozen=True):
    """The list of models."""

    data: Sequence[WireModel] = ()


ANSWER = msgspec.json.Decoder(WireAnswer)
EMBEDDINGS = msgspec.json.Decoder(WireEmbeddings)
MODELS = msgspec.json.Decoder(WireModels)


def note(answer: WireAnswer, notes: Notes) -> None:
    """Take in an answer or a chunk."""
    if answer.usage is not None:
        notes.prompt_tokens = answer.usage.prompt_tokens
        notes.completion_tokens = answer.usage.completion_tokens
    for choice in answer.choices:
        message = choice.delta or choice.message or WireMessage()
        if thought := message.reasoning_content or message.reasoning:
            notes.reasoning(thought)
        text = message.content or choice.text or ""
        logprobs = _logprobs(choice.logprobs) if choice.logprobs is not None else []
        if text or logprobs:
            notes.text(text, logprobs)
        for place, call in enumerate(message.tool_calls or ()):
            function = call.function or WireFunction()
            index = place if call.index is None else call.index
            notes.tool_call(index, function.name, function.arguments or "")
        notes.finish_reason = choice.finish_reason or notes.finish_reason


def problem_in(body: bytes) -> tuple[str, str]:
    """The code and the message of an error's body, as far as it has any."""
    try:
        return problem_of(msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "", body[:300].decode("utf-8", "replace")


def problem_of(body: object) -> tuple[str, str]:
    """The same of an error that is read already; servers put it at different depths."""
    if not isinstance(body, Mapping):
        return "", str(body)[:300]
    fields = cast(Mapping[str, Any], body)
    if fields.get("error"):
        return problem_of(fields["error"])
    message = fields.get("message") or fields.get("detail") or ""
    return str(fields.get("code") or fields.get("type") or ""), str(message)[:300]


def _logprobs(given: WireLogprobs) -> list[TokenLogprob]:
    if given.content is not None:
        return [
            TokenLogprob(
                _token(entry),
                entry.logprob,
                [TopLogprob(_token(top), top.logprob) for top in entry.top_logprobs or ()],
            )
            for entry in given.content
        ]
    tops = given.top_logprobs or [None] * len(given.tokens or ())
    return [
        TokenLogprob(
            token.encode(),
            logprob or 0.0,
            [TopLogprob(other.encode(), value) for other, value in (top or {}).items()],
        )
        for token, logprob, top in zip(
            given.tokens or (), given.token_logprobs or (), tops, strict=False
        )
    ]


def _token(entry: WireLogprob) -> bytes:
    if entry.bytes is None or any(not 0 <= byte <= 255 for byte in entry.bytes):
        return entry.token.encode()
    return bytes(entry.bytes)
