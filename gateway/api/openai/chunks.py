"""Writes the chunks of a streamed chat answer.

One chunk is written for every token of every running stream, so what all
chunks of a choice repeat is encoded once and only the delta each time
(docs/experiments.md has the microseconds).
"""

import secrets

import msgspec

from engines.protocol import Event, Finished, ReasoningDelta, TextDelta, ToolCallDelta
from gateway.api.openai.answers import AnswerHead, WireUsage, to_logprobs
from gateway.api.openai.chat_answer import to_finish_reason

_encode = msgspec.json.Encoder().encode
_SIZE_STEP = 64  # with obfuscation, every chunk's size is a multiple of this


class ChunkWriter:
    """Writes `chat.completion.chunk` frames for one answer of `num_choices` choices."""

    def __init__(
        self,
        head: AnswerHead,
        *,
        num_choices: int,
        include_usage: bool = False,
        obfuscate: bool = False,
        in_legacy_words: bool = False,
    ) -> None:
        tier = b',"service_tier":' + _encode(head.service_tier) if head.service_tier else b""
        start = b"".join(
            (
                b'data: {"id":',
                _encode(head.id),
                b',"object":"chat.completion.chunk","created":',
                _encode(head.created),
                b',"model":',
                _encode(head.model),
                tier,
                b',"system_fingerprint":',
                _encode(head.system_fingerprint),
                b',"choices":[',
            )
        )
        self._start = start
        self._starts = [b'%b{"index":%d,"delta":' % (start, i) for i in range(num_choices)]
        self._end = b',"usage":null' if include_usage else b""
        self._obfuscate = obfuscate
        self._in_legacy_words = in_legacy_words

    def role(self, index: int) -> bytes:
        """A choice's first chunk."""
        return self._frame(index, b'{"role":"assistant","content":""}')

    def event(self, index: int, event: Event) -> bytes:
        """The chunk of one event; empty for what a client is not told."""
        if isinstance(event, TextDelta):
            return self._text(index, event)
        if isinstance(event, ReasoningDelta):
            return self._frame(index, b'{"reasoning_content":%b}' % _encode(event.text))
        if isinstance(event, ToolCallDelta):
            return self._tool_call(index, event)
        if isinstance(event, Finished):
            reason = to_finish_reason(event.reason, in_legacy_words=self._in_legacy_words)
            return self._frame(index, b"{}", reason=_encode(reason))
        return b""

    def usage(self, usage: WireUsage) -> bytes:
        """The chunk after all choices, with no choices in it."""
        return b'%b],"usage":%b}\n\n' % (self._start, _encode(usage))

    def _text(self, index: int, event: TextDelta) -> bytes:
        delta = b'{"content":%b}' % _encode(event.text)
        if not event.logprobs:
            return self._frame(index, delta)
        logprobs = b'{"content":%b,"refusal":null}' % _encode(to_logprobs(event.logprobs))
        return self._frame(index, delta, logprobs)

    def _tool_call(self, index: int, event: ToolCallDelta) -> bytes:
        function = {"arguments": event.arguments}
        if event.name is not None:
            function = {"name": event.name, "arguments": event.arguments}
        if self._in_legacy_words:
            # The deprecated form has room for one call.
            delta = b'{"function_call":%b}' % _encode(function)
            return self._frame(index, delta) if event.index == 0 else b""
        call: dict[str, object] = {"index": event.index, "function": function}
        if event.name is not None:
            call = {"index": event.index, "id": event.id, "type": "function", "function": function}
        return self._frame(index, b'{"tool_calls":[%b]}' % _encode(call))

    def _frame(
        self, index: int, delta: bytes, logprobs: bytes = b"null", reason: bytes = b"null"
    ) -> bytes:
        frame = b'%b%b,"logprobs":%b,"finish_reason":%b}]%b' % (
            self._starts[index],
            delta,
            logprobs,
            reason,
            self._end,
        )
        if not self._obfuscate:
            return frame + b"}\n\n"
        rest = b'%b,"obfuscation":"' % frame
        fill = -(len(rest) + 4) % _SIZE_STEP
        return b'%b%b"}\n\n' % (rest, secrets.token_hex(_SIZE_STEP // 2)[:fill].encode())
