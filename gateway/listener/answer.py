"""Writes one call's answer: its head together with the first of its body, in one piece.

It stands in for the `send` of uvicorn's cycle, which writes the two apart, so that each is
a system call and a packet, and looks at every header by itself. What others read of the
cycle's state is kept as they expect it. RFC 9112 has the framing.
"""

import asyncio
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

# RFC 9110, section 5.6.2: what a header's name is made of, in lower case.
_NAME_BYTES = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
_NOT_IN_A_HEAD = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_NAMES = re.compile(rb"(?:[%b]+\n)*[%b]+" % (re.escape(_NAME_BYTES), re.escape(_NAME_BYTES)))
_COLON = b": "
_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"connection"})
_WITHOUT_BODY = (204, 304)


class Answer:
    """The `send` of one cycle."""

    __slots__ = ("_cycle", "_flushing", "_head", "_loop")

    def __init__(self, cycle: RequestResponseCycle, loop: asyncio.AbstractEventLoop) -> None:
        self._cycle = cycle
        self._loop = loop
        self._head = b""  # which waits for what follows it in the same turn of the loop
        self._flushing: asyncio.Handle | None = None

    async def send(self, message: Any) -> None:
        """Take the application's next message. Raises `RuntimeError` for what makes no answer."""
        cycle = self._cycle
        if cycle.flow.write_paused and not cycle.disconnected:
            await cycle.flow.drain()
        if cycle.disconnected:
            return
        kind = message["type"]
        if cycle.response_complete or (kind == "http.response.start") is cycle.response_started:
            raise RuntimeError(f"the message {kind!r} came out of turn")
        if cycle.response_started:
            self._go_on(message.get("body", b""), is_last=not message.get("more_body", False))
        else:
            self._begin(message["status"], message.get("headers", ()))

    def _begin(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        cycle = self._cycle
        cycle.response_started = True
        cycle.waiting_for_100_continue = False
        given = [*cycle.default_headers, *headers]
        fields = dict(given)
        if _NAMES.fullmatch(b"\n".join(fields)) is None:
            given = [(_lowered(name), value) for name, value in given]
            fields = dict(given)
        if len(fields) < len(given):
            fields = _joined(given)
        says_close = False
        for name in _FRAMING.intersection(fields):
            says_close |= self._understood(name, fields[name].lower())
        lines = [*map(_COLON.join, given)]
        if not says_close and not cycle.keep_alive:
            lines.append(b"connection: close")
        if (
            cycle.chunked_encoding is None
            and status not in _WITHOUT_BODY
            and cycle.scope["method"] != "HEAD"
        ):
            cycle.chunked_encoding = True
            lines.append(b"transfer-encoding: chunked")
        num_breaks = len(lines) + 2
        head = STATUS_LINE[status] + b"\r\n".join((*lines, b"\r\n"))
        # A value that ends its line would become a header, or a body, of somebody else's.
        if not num_breaks == head.count(b"\r\n") == head.count(b"\r") == head.count(b"\n"):
            raise RuntimeError("a header of the answer has a line break in its value")
        if _NOT_IN_A_HEAD.search(head):
            raise RuntimeError("a header of the answer has a control character in its value")
        self._head = head
        self._flushing = self._loop.call_soon(self._flush)

    def _understood(self, name: bytes, value: bytes) -> bool:
        """Note what a header says of the body or the connection; does it end the latter?"""
        cycle = self._cycle
        if name == b"connection":
            closes = b"close" in [token.strip() for token in value.split(b",")]
            cycle.keep_alive = cycle.keep_alive and not closes
            return closes
        if name == b"transfer-encoding" and value == b"chunked":
            cycle.expected_content_length = 0
            cycle.chunked_encoding = True
        elif name == b"content-length" and cycle.chunked_encoding is None:
            cycle.expected_content_length = int(value)
            cycle.chunked_encoding = False
        return False

    def _go_on(self, body: bytes, *, is_last: bool) -> None:
        cycle = self._cycle
        if cycle.scope["method"] == "HEAD":
            cycle.expected_content_length, body = 0, b""
        elif cycle.chunked_encoding:
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            body = chunk + b"0\r\n\r\n" if is_last else chunk
        else:
            cycle.expected_content_length -= len(body)
            if cycle.expected_content_length < 0:
                raise RuntimeError("the body is longer than its content-length")
        self._write(body)
        if not is_last:
            return
        if cycle.expected_content_length:
            raise RuntimeError("the body is shorter than its content-length")
        cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()

    def _write(self, data: bytes) -> None:
        if self._head:
            data, self._head = self._head + data, b""
            if self._flushing is not None:
                self._flushing.cancel()
        if data:
            self._cycle.transport.write(data)

    def _flush(self) -> None:
        """Send the head alone: the body takes its time."""
        self._flushing = None
        if not self._cycle.disconnected:
            self._write(b"")


@lru_cache(maxsize=1024)
def _lowered(name: bytes) -> bytes:
    """A header's name. Raises `RuntimeError` for what is no name."""
    lowered = name.lower()
    if not lowered or lowered.translate(None, _NAME_BYTES):
        raise RuntimeError(f"a header of the answer has a name that is none: {name[:100]!r}")
    return lowered


def _joined(given: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """What headers say where one came more than once: the same as a list (RFC 9110, 5.3)."""
    fields: dict[bytes, bytes] = {}
    for name, value in given:
        fields[name] = fields[name] + b", " + value if name in fields else value
    return fields
