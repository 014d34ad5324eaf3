"""Reads an answer to a client's own request, and hands it on as bytes of the same dialect.

A chat or completion answer is understood as far as accounting needs it: what
was said at all, how it ended, what it cost. What is not looked at goes through
as it came. Only the upstream's name for the model becomes the one that the
client asked for, and token counts that only we asked for are taken out again.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct

from engines.errors import EngineError
from engines.protocol import Event, Finished, FinishReason, GenerateRequest, Usage
from engines.remote.answers import EVENTS_TYPE, NO_FIELD, Form, Names, broken, fed, is_json, is_set
from engines.remote.edits import Edited
from engines.remote.refusals import error_of
from engines.remote.sse import EventSplitter
from engines.remote.tokens import WireUsage, guessed, guessed_prompt, to_reason
from engines.wire import Relayed

MAX_HELD_EVENTS = 64  # that say nothing yet: roles, empty texts


class _Choice(Struct, frozen=True):
    """Of a choice, what tells whether anything was said and whether it is the end."""

    index: int = 0
    finish_reason: str | None = None
    delta: Raw = NO_FIELD
    text: str | None = None


class _Chunk(Struct, frozen=True):
    """Of a chunk or a whole answer, what accounting needs."""

    choices: Sequence[_Choice] | None = None
    usage: WireUsage | None = None
    error: Raw = NO_FIELD
    model: str | None = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_delta = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode


class RelayedAnswer:
    """The answer to one chat or completion request, streamed or whole."""

    def __init__(
        self, request: GenerateRequest, edited: Edited, names: Names, max_event_bytes: int
    ) -> None:
        self._request = request
        self._edited = edited
        self._names = names
        self._events = EventSplitter(max_event_bytes)
        public = names.public_model
        self._public = None if public in (None, names.model) else Raw(_encode(public))
        self._rewrites = self._public is not None or edited.hides_usage
        self._usage: Usage | None = None
        self._reason: FinishReason | None = None
        self._open: set[int] = set()  # choices that have begun and not finished
        self._num_tokens = 0
        self._held: list[bytes] = []  # events that are not sent before one says something
        self._is_silent = True
        self.is_done = False

    def form(self, content_type: str) -> Form:
        """How to read an answer of this type. Raises `Unavailable` for one that it cannot have."""
        if self._edited.streams and content_type == EVENTS_TYPE:
            return "events"
        if is_json(content_type):
            return "whole"
        raise broken(f"it is {content_type[:80] or 'of no type'!r}")

    def feed(self, piece: bytes) -> Iterator[Event]:
        """What a piece of a stream is to the client. Raises any `EngineError`."""
        frames: list[bytes] = []
        num_before, was_silent = self._num_tokens, self._is_silent
        failure: EngineError | None = None
        try:
            for data in fed(self._events.feed, piece):
                if data == b"[DONE]":
                    self.is_done = True
                    break
                if frame := self._frame(data):
                    frames.append(b"data: " + frame + b"\n\n")
        except EngineError as error:
            if was_silent:
                raise  # nothing has been sent, so this can still be an honest status
            failure = error
        if was_silent:
            self._held += frames
            self._is_silent = self._is_silent and len(self._held) <= MAX_HELD_EVENTS
            frames, self._held = ([], self._held) if self._is_silent else (self._held, [])
        if frames:
            yield Relayed(b"".join(frames), self._num_tokens - num_before)
        if failure is not None:
            raise failure

    def end(self) -> Sequence[Event]:
        """The last events of a stream. Raises `Unavailable` for one that broke off."""
        if not self.is_done and self._events.rest.strip() != b"data: [DONE]":
            if self._events.rest.strip():
                raise broken("its last event is not whole")
            if self._reason is None or self._open:
                raise broken("it ended before it was finished")
        held = b"".join(self._held)
        last: tuple[Event, ...] = (Relayed(held, 0),) if held else ()
        return (*last, self._finished())

    def whole(self, body: bytes) -> Sequence[Event]:
        """The events of an answer that came whole. Raises any `EngineError`."""
        answer = self._understood(body)
        if self._edited.streams:
            raise broken("it is not a stream, and a stream was asked for")
        if self._usage is None:
            self._num_tokens = guessed(len(body))
        relayed = Relayed(self._rewritten(body, answer), self._num_tokens)
        return (relayed, self._finished())

    def _frame(self, data: bytes) -> bytes:
        """One event's data as the client reads it; empty where it is not for the client."""
        chunk = self._understood(data)
        choices = chunk.choices or ()
        if self._edited.hides_usage and not choices and chunk.usage is not None:
            return b""
        if choices:
            self._num_tokens += 1
            if self._is_silent and any(map(_says_something, choices)):
                self._is_silent = False
        return self._rewritten(data, chunk)

    def _understood(self, data: bytes) -> _Chunk:
        try:
            if not data.isascii():
                data.decode()  # what is skipped below is not looked at, and is to be text
            chunk = _decode_chunk(data)
        except msgspec.ValidationError:
            chunk = _unusual(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise broken("it is not JSON") from None
        if is_set(chunk.error):
            raise error_of(self._names.refused(data))
        for choice in chunk.choices or ():
            if choice.finish_reason:
                self._open.discard(choice.index)
                self._reason = self._reason or to_reason(choice.finish_reason)
            else:
                self._open.add(choice.index)
        if chunk.usage is not None:
            self._usage = chunk.usage.to_usage()
        return chunk

    def _rewritten(self, data: bytes, chunk: _Chunk) -> bytes:
        if not self._rewrites:
            return data
        fields = _decode_fields(data)
        if self._public is not None and chunk.model is not None:
            fields["model"] = self._public
        if self._edited.hides_usage and "usage" in fields and bytes(fields["usage"]) == b"null":
            del fields["usage"]
        return _encode(fields)

    def _finished(self) -> Finished:
        usage = self._usage or Usage(
            prompt_tokens=guessed_prompt(self._request),
            completion_tokens=self._num_tokens,
            is_estimate=True,
        )
        return Finished(reason=self._reason or FinishReason.STOP, usage=usage)


def _says_something(choice: _Choice) -> bool:
    if choice.finish_reason or choice.text:
        return True
    if bytes(choice.delta) in (b"", b"null"):
        return False
    try:
        delta = _decode_delta(choice.delta)
    except msgspec.ValidationError:
        return True
    return any(value for name, value in delta.items() if name != "role")


def _unusual(data: bytes) -> _Chunk:
    """JSON of a shape that nobody documents: handed on, if it is an object, and not counted."""
    try:
        fields = _decode_fields(data)
    except (msgspec.ValidationError, msgspec.DecodeError):
        raise broken("it is not a JSON object") from None
    return _Chunk(error=fields.get("error", NO_FIELD), model="" if "model" in fields else None)
