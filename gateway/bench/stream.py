"""Reads an OpenAI answer stream, of chat or of completions, from any server.

A piece is a chunk that carries output: answer text, thinking, or a part of a
tool call. Its time is that of the network read that completed it, so chunks
that arrive together have the same time. Tokens are counted by the usage that
the server tells, never by pieces, because a server may put several tokens into
one chunk.
"""

from collections.abc import Sequence
from typing import Any, cast

import msgspec
from msgspec import Struct

from gateway.bench.question import Answer, AnswerNotes, AskFailed

DONE = b"[DONE]"


class _Delta(Struct):
    content: str | None = None
    reasoning_content: str | None = None  # what servers call their models' thinking
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: Sequence[msgspec.Raw] | None = None


class _Choice(Struct):
    delta: _Delta | None = None
    text: str | None = None  # of completions
    finish_reason: str | None = None


class _PromptDetails(Struct):
    cached_tokens: int | None = None


class _Usage(Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None


class _Chunk(Struct):
    choices: Sequence[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


_DECODER = msgspec.json.Decoder(_Chunk)


class AnswerStream:
    """One answer's stream of server-sent events; `feed` it what the network brings."""

    def __init__(self) -> None:
        self._notes = AnswerNotes()
        self._rest = b""
        self._has_ended = False

    def feed(self, data: bytes, now: float) -> None:
        """Take bytes that arrived at `now`. Raises `AskFailed` for an error event."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            # Each event of these streams is one line of data; others are pings and names.
            if line.startswith(b"data:"):
                self._event(line[5:].strip(), now)

    def answer(self, now: float) -> Answer:
        """The whole answer, when the server has closed the stream. Raises `AskFailed`."""
        if not self._has_ended:
            raise AskFailed("cut_off", "the stream ended without a finish reason")
        return self._notes.finished(now)

    def _event(self, data: bytes, now: float) -> None:
        if data == DONE:
            self._has_ended = True
            return
        try:
            chunk = _DECODER.decode(data)
        except msgspec.DecodeError as error:
            raise AskFailed(
                "malformed", f"a chunk cannot be read ({error}): {data[:80]!r}"
            ) from None
        if chunk.error:
            raise failure_of(chunk.error, "error_event")
        if chunk.usage is not None:
            self._note_usage(chunk.usage)
        for choice in chunk.choices or ():
            if choice.finish_reason is not None:
                self._has_ended = True
            text = _text_of(choice)
            if text is not None:
                self._notes.piece(text, now)

    def _note_usage(self, usage: _Usage) -> None:
        notes = self._notes
        if usage.completion_tokens is not None:  # servers may tell it with every chunk
            notes.completion_tokens = usage.completion_tokens
        notes.prompt_tokens = usage.prompt_tokens or notes.prompt_tokens
        if usage.prompt_tokens_details is not None:
            notes.cached_tokens = usage.prompt_tokens_details.cached_tokens or 0


def failure_of(error: Any, kind: str) -> AskFailed:
    """A failure for what a server calls an error: an object, or only a text."""
    if not isinstance(error, dict):
        return AskFailed(kind, str(error)[:300])
    told = cast(dict[str, Any], error)
    code = told.get("code") or told.get("type") or kind
    return AskFailed(str(code), str(told.get("message") or told)[:300])


def _text_of(choice: _Choice) -> str | None:
    """The choice's new text; empty for a part of a tool call; None for no output."""
    delta = choice.delta
    if delta is None:
        return choice.text or None
    if delta.tool_calls:
        return ""
    return delta.content or delta.reasoning_content or delta.reasoning or delta.refusal or None
