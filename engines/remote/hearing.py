"""Turns a stream of OpenAI's chunks into our events, for a caller who spoke another dialect."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct

from engines.protocol import (
    Event,
    Finished,
    FinishReason,
    GenerateRequest,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    TopLogprob,
    Usage,
)
from engines.remote.answers import EVENTS_TYPE, NO_FIELD, Form, Names, broken, fed, is_json, is_set
from engines.remote.refusals import error_of
from engines.remote.sse import EventSplitter
from engines.remote.tokens import WireUsage, guessed_prompt, to_reason


class _Function(Struct, frozen=True):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(Struct, frozen=True):
    index: int = 0
    id: str | None = None
    function: _Function | None = None


class _Delta(Struct, frozen=True):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: Sequence[_ToolCall] | None = None


class _TopLogprob(Struct, frozen=True):
    token: str
    logprob: float
    bytes: Sequence[int] | None = None


class _Logprob(_TopLogprob, frozen=True):
    top_logprobs: Sequence[_TopLogprob] = ()


class _Logprobs(Struct, frozen=True):
    """Chat's `content`, or the four lists of completions."""

    content: Sequence[_Logprob] | None = None
    tokens: Sequence[str] | None = None
    token_logprobs: Sequence[float | None] | None = None
    top_logprobs: Sequence[dict[str, float] | None] | None = None


class _Choice(Struct, frozen=True):
    index: int = 0
    delta: _Delta | None = None
    text: str | None = None
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None
    stop_reason: Any = None  # vLLM's: which stop string it was


class _Chunk(Struct, frozen=True):
    choices: Sequence[_Choice] | None = None
    usage: WireUsage | None = None
    error: Raw = NO_FIELD


_decode_chunk = msgspec.json.Decoder(_Chunk).decode


class HeardAnswer:
    """The answer to one request that we put into words ourselves."""

    def __init__(self, request: GenerateRequest, names: Names, max_event_bytes: int) -> None:
        self._request = request
        self._names = names
        self._events = EventSplitter(max_event_bytes)
        self._usage: Usage | None = None
        self._reason: FinishReason | None = None
        self._stop: str | None = None
        self._num_tokens = 0
        self._calls: set[int] = set()  # tool calls that have been named
        self.is_done = False

    def form(self, content_type: str) -> Form:
        """How to read an answer of this type. Raises `Unavailable` for one that it cannot have."""
        if content_type == EVENTS_TYPE:
            return "events"
        if is_json(content_type):
            return "whole"  # an error, if anything
        raise broken(f"it is {content_type[:80] or 'of no type'!r}")

    def feed(self, piece: bytes) -> Iterator[Event]:
        """The events that a piece of the stream brings. Raises any `EngineError`."""
        for data in fed(self._events.feed, piece):
            if data == b"[DONE]":
                self.is_done = True
                return
            yield from self._heard(data)

    def end(self) -> Sequence[Event]:
        """The end. Raises `Unavailable` for a stream that broke off."""
        if not self.is_done and self._reason is None:
            raise broken("it ended before it was finished")
        usage = self._usage or Usage(
            prompt_tokens=guessed_prompt(self._request),
            completion_tokens=self._num_tokens,
            is_estimate=True,
        )
        return (Finished(reason=self._reason or FinishReason.STOP, usage=usage, stop=self._stop),)

    def whole(self, body: bytes) -> Sequence[Event]:
        """Raises any `EngineError`: a stream was asked for."""
        self._heard(body)
        raise broken("it is not a stream, and a stream was asked for")

    def _heard(self, data: bytes) -> list[Event]:
        try:
            chunk = _decode_chunk(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise broken("it has an event that is not a chunk of an answer") from None
        if is_set(chunk.error):
            raise error_of(self._names.refused(data))
        if chunk.usage is not None:
            self._usage = chunk.usage.to_usage()
        found: list[Event] = []
        for choice in chunk.choices or ():
            found += self._said(choice)
        return found

    def _said(self, choice: _Choice) -> list[Event]:
        found: list[Event] = []
        delta = choice.delta or _Delta()
        if thought := delta.reasoning_content or delta.reasoning:
            found.append(ReasoningDelta(thought))
        if text := choice.text or delta.content or delta.refusal:
            found.append(TextDelta(text, _to_logprobs(choice.logprobs)))
        found += [self._call(call) for call in delta.tool_calls or ()]
        self._num_tokens += bool(found)
        if choice.finish_reason:
            self._reason = to_reason(choice.finish_reason)
            if isinstance(choice.stop_reason, str):
                self._stop = choice.stop_reason
        return found

    def _call(self, call: _ToolCall) -> ToolCallDelta:
        function = call.function or _Function()
        if call.index in self._calls:
            return ToolCallDelta(index=call.index, arguments=function.arguments or "")
        self._calls.add(call.index)
        return ToolCallDelta(
            index=call.index,
            id=call.id or f"call_{self._request.id}_{call.index}",
            name=function.name or "",
            arguments=function.arguments or "",
        )


def _to_logprobs(given: _Logprobs | None) -> Sequence[TokenLogprob]:
    if given is None:
        return ()
    if given.content is not None:
        return [
            TokenLogprob(
                _bytes_of(entry),
                entry.logprob,
                [TopLogprob(_bytes_of(other), other.logprob) for other in entry.top_logprobs],
            )
            for entry in given.content
        ]
    tokens, values = given.tokens or (), given.token_logprobs or ()
    tops = given.top_logprobs or [None] * len(tokens)
    return [
        TokenLogprob(
            token.encode(),
            0.0 if value is None else value,
            [TopLogprob(text.encode(), other) for text, other in (top or {}).items()],
        )
        for token, value, top in zip(tokens, values, tops, strict=False)
    ]


def _bytes_of(entry: _TopLogprob) -> bytes:
    try:
        return entry.token.encode() if entry.bytes is None else bytes(entry.bytes)
    except ValueError:
        return entry.token.encode()
