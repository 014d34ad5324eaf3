"""Hands on the answer of a path that nobody here understands, and counts what it can.

JSON comes whole, a stream of events goes on event by event, anything else (sound,
say) piece by piece. Names of models are changed as for any other answer.
"""

import re
from collections.abc import Sequence

import msgspec
from msgspec import Raw, Struct

from engines.protocol import Event, Finished, FinishReason, Usage
from engines.remote.answers import EVENTS_TYPE, NO_FIELD, Form, Names, broken, fed, is_json, is_set
from engines.remote.refusals import error_of
from engines.remote.sse import EventSplitter, data_of
from engines.remote.tokens import WireUsage
from engines.wire import Relayed

# What is not for a browser to run. A page or a script would run as one of this gateway's.
_PIECES = re.compile(
    r"audio/.+|video/.+|image/(?!svg).+|text/plain|application/(?:octet-stream|jsonl|x-ndjson)"
)


class _Counted(Struct, frozen=True):
    """Where dialects keep their counts: at the top, or inside the object that an event brings."""

    usage: Raw = NO_FIELD
    response: Raw = NO_FIELD
    message: Raw = NO_FIELD
    error: Raw = NO_FIELD


_encode = msgspec.json.Encoder().encode
_decode_usage = msgspec.json.Decoder(WireUsage).decode
_decode_counted = msgspec.json.Decoder(_Counted).decode


class PassedAnswer:
    """The answer to one request of any path."""

    def __init__(self, names: Names, max_event_bytes: int, *, only_json: bool) -> None:
        self._names = names
        self._only_json = only_json
        self._max_event_bytes = max_event_bytes
        self._events: EventSplitter | None = None
        self._usage = Usage()
        self._is_empty = True
        self.is_done = False

    def form(self, content_type: str) -> Form:
        """How to read an answer of this type. Raises `Unavailable` for one that it cannot have."""
        if is_json(content_type):
            return "whole"
        if self._only_json:
            raise broken(f"it is {content_type[:80] or 'of no type'!r}")
        if content_type == EVENTS_TYPE:
            self._events = EventSplitter(self._max_event_bytes)
            return "events"
        if content_type and not _PIECES.fullmatch(content_type):
            raise broken(f"it is {content_type[:80]!r}")
        return "pieces"

    def feed(self, piece: bytes) -> Sequence[Event]:
        """What a piece is to the client. Raises any `EngineError`."""
        if self._events is None:
            self._is_empty = False
            return (Relayed(piece),)
        blocks = fed(self._events.feed_blocks, piece)
        if not blocks:
            return ()
        for block in blocks:
            if b'"usage"' in block:
                self._count(data_of(block))
        self._is_empty = False
        return (Relayed(self._renamed(b"".join(block + b"\n\n" for block in blocks))),)

    def end(self) -> Sequence[Event]:
        """The last events. Raises `Unavailable` where the last one was cut off."""
        if self._events is not None and self._events.rest.strip():
            raise broken("its last event is not whole")
        finished = Finished(reason=FinishReason.STOP, usage=self._usage)
        return (Relayed(b""), finished) if self._is_empty else (finished,)

    def whole(self, body: bytes) -> Sequence[Event]:
        """The events of an answer that came whole. Raises any `EngineError`."""
        try:
            body.decode()
            tree = msgspec.json.decode(body, type=Raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise broken("it is not JSON") from None
        answer = self._count(bytes(tree))
        # What an unknown path answers may have an `error` in it and be an answer all the same.
        if self._only_json and is_set(answer.error):
            raise error_of(self._names.refused(body))
        finished = Finished(reason=FinishReason.STOP, usage=self._usage)
        return (Relayed(self._renamed(body)), finished)

    def _count(self, data: bytes) -> _Counted:
        """Note the counts in an object, or in the one inside it."""
        found = _counted(data)
        for place in (found, _counted(found.response), _counted(found.message)):
            if is_set(place.usage):
                self._usage = _larger(self._usage, _usage_of(place.usage))
        return found

    def _renamed(self, data: bytes) -> bytes:
        public, model = self._names.public_model, self._names.model
        if public is None or public == model:
            return data
        # A quotation mark inside a string is escaped, so this is never found in one.
        told, wanted = _encode(model), _encode(public)
        return data.replace(b'"model":' + told, b'"model":' + wanted).replace(
            b'"model": ' + told, b'"model": ' + wanted
        )


def _counted(data: bytes | Raw) -> _Counted:
    try:
        return _decode_counted(data) if data else _Counted()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Counted()


def _usage_of(data: Raw) -> Usage:
    try:
        return _decode_usage(data).to_usage()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Usage()


def _larger(one: Usage, other: Usage) -> Usage:
    # Some dialects tell the prompt first and the answer last.
    return Usage(
        prompt_tokens=max(one.prompt_tokens, other.prompt_tokens),
        cached_tokens=max(one.cached_tokens, other.cached_tokens),
        completion_tokens=max(one.completion_tokens, other.completion_tokens),
        reasoning_tokens=max(one.reasoning_tokens, other.reasoning_tokens),
    )
