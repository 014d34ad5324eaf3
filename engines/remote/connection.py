"""One connection to an upstream: a question goes out, and the bytes of its answer come in.

HTTP/1.1 (RFC 9112) is read by llhttp, in its strict mode. It is asked one thing at a
time and never ahead, so whatever comes when nothing was asked, or after the end
of an answer, is nobody's answer: the connection is closed, and those bytes with it.

HEAD is not asked: llhttp's binding cannot be told that such an answer has no body.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from time import monotonic
from typing import cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from engines.remote.failures import (
    BrokenOff,
    ClosedUnanswered,
    ConnectionFailure,
    NotHttp,
)

MAX_UNREAD_BYTES = 256 * 1024  # then nothing more is read until somebody takes what came
MAX_FRAMING_BYTES = 64 * 1024  # of a head, or between two bytes of a body: trailers, extensions
MAX_INTERIM_ANSWERS = 8  # 1xx, before the answer
JOINED_BYTES = 64 * 1024  # larger bodies are not copied to lie behind their heads

_INTERIM = frozenset({100, 102, 103})


class Headers(Mapping[str, str]):
    """An answer's headers; what is looked up may be in any case."""

    def __init__(self, fields: Mapping[bytes, bytes]) -> None:
        self._fields = fields  # lower-case names

    def __getitem__(self, name: str) -> str:
        value = self._fields[name.lower().encode("latin-1", "replace")]
        return value.strip(b" \t").decode("latin-1")

    def __iter__(self) -> Iterator[str]:
        return (name.decode("latin-1") for name in self._fields)

    def __len__(self) -> int:
        return len(self._fields)


class Connection(asyncio.Protocol):
    """The event loop owns it. Who is asking reads `status` and `fields`, then takes pieces."""

    def __init__(self, when_gone: Callable[["Connection"], None]) -> None:
        self.status = 0  # 0: the answer's head has not come yet
        self.fields: Mapping[bytes, bytes] = {}  # the answer's headers, lower-case names
        self.has_heard = False  # a byte came since the question
        self.has_ended = False  # the answer is whole
        self.failure: ConnectionFailure | None = None
        self.heard_at = 0.0  # when the question had gone out, or the head or body went on
        self.until = 0.0  # when the answer must have ended
        self.kept_at = 0.0
        self.is_paused = False  # nothing is read, because too much is unread
        self.is_sending = False  # the question has not gone out yet
        self._when_gone = when_gone
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = HttpResponseParser(self)
        self._feed = self._parser.feed_data
        self._waiter: asyncio.Future[None] | None = None
        self._is_asked = False
        self._may_stay = False  # the answer's end leaves the connection open
        self._pairs: list[tuple[bytes, bytes]] = []
        self._pieces: list[bytes] = []
        self._num_unread = 0
        self._num_framing = 0
        self._num_interim = 0

    async def ask(self, head: bytes, body: bytes, until: float) -> None:
        """Send a question; return when its answer's head is there. Raises `ConnectionFailure`.

        Whoever is cancelled here leaves a closed connection.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            raise ClosedUnanswered("it was closed before it was used")
        self._is_asked = True
        self.until = until
        self.heard_at = monotonic()
        if len(body) <= JOINED_BYTES:
            transport.write(head + body)
        else:
            transport.write(head)
            transport.write(body)
        try:
            while not self.status:
                if self.failure is not None:
                    raise self.failure
                self._waiter = self._loop.create_future()
                await self._waiter
        except BaseException:
            self.abort()
            raise

    async def more(self) -> None:
        """Return when there is something to take, or nothing will come any more."""
        while not (self._pieces or self.has_ended or self.failure is not None):
            self._waiter = self._loop.create_future()
            await self._waiter

    def take(self) -> bytes:
        """The bytes of the body that came since last time."""
        pieces = self._pieces
        if not pieces:
            return b""
        piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._num_unread = 0
        if self.is_paused:
            self.is_paused = False
            self.heard_at = monotonic()
            if self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()
        return piece

    def rest(self) -> bool:
        """Be ready for another question; False: it cannot be, so close it."""
        transport = self._transport
        if not self._may_stay or self.is_paused or transport is None:
            return False
        if transport.get_write_buffer_size():
            return False  # the answer came before all of the question had gone out
        self._is_asked = self.has_heard = self.has_ended = self._may_stay = False
        self.status = self._num_framing = self._num_interim = 0
        if self._pieces:
            self._pieces.clear()
            self._num_unread = 0
        return True

    def abort(self) -> None:
        """Close it at once, whatever is under way. May be called twice."""
        self._may_stay = False
        if self._transport is not None:
            self._transport.abort()
        self._when_gone(self)

    def fail(self, failure: ConnectionFailure) -> None:
        """Close it, and tell whoever waits for it why. What came already can still be taken."""
        if self.failure is None and not self.has_ended:
            self.failure = failure
        self.abort()
        self._wake()

    def break_off(self, failure: ConnectionFailure) -> None:
        """Close it; what came is lost, even if it is whole."""
        self.has_ended = False
        self._pieces.clear()
        self.fail(failure)

    # What the transport tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class

    def data_received(self, data: bytes) -> None:
        if not self._is_asked:
            self.fail(NotHttp("bytes came that nothing had asked for"))
            return
        self.has_heard = True
        self._num_framing += len(data)
        try:
            self._feed(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._misread(error)
        if self.status:
            self.heard_at = monotonic()  # pieces of a head do not buy it time
        if self.has_ended:
            pass
        elif self._num_framing > MAX_FRAMING_BYTES:
            self.fail(NotHttp(f"over {MAX_FRAMING_BYTES} bytes that are not of a body"))
        elif self._num_unread > MAX_UNREAD_BYTES and not self.is_paused:
            self.is_paused = True
            if self._transport is not None:
                self._transport.pause_reading()
        if self._waiter is not None:
            self._wake()

    def eof_received(self) -> None:
        """Nothing more will come; the transport closes itself then."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._may_stay = False
        if self._is_asked and not self.has_ended and self.failure is None:
            self._cut_short(exc)
        self._transport = None
        self._when_gone(self)
        self._wake()

    def pause_writing(self) -> None:
        self.is_sending = True

    def resume_writing(self) -> None:
        self.is_sending = False
        self.heard_at = monotonic()  # the upstream has its time from here on

    # What the parser finds.

    def on_message_begin(self) -> None:
        if self.has_ended:
            raise NotHttp("bytes came after the end of the answer")
        self._pairs = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self._pairs.append((name, value))

    def on_headers_complete(self) -> None:
        pairs = self._pairs
        fields = {name.lower(): value for name, value in pairs}
        status = self._parser.get_status_code()
        if (
            status < 200
            or len(fields) != len(pairs)
            or b"transfer-encoding" in fields
            or self._num_framing > MAX_FRAMING_BYTES  # though some of that may be the body's
        ):
            fields = self._unusual(status, pairs)
            if status < 200:
                return
        self.fields = fields
        self.status = status

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)
        self._num_unread += len(body)
        self._num_framing = 0

    def on_message_complete(self) -> None:
        if self.status:
            self.has_ended = True
            self._may_stay = self._parser.should_keep_alive()

    def _unusual(self, status: int, pairs: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
        """The headers of an answer that is an interim one, or has one of them twice, or comes in
        chunks, or has many. Raises `NotHttp` for one that could be read in two ways."""
        if sum(len(name) + len(value) for name, value in pairs) > MAX_FRAMING_BYTES:
            raise NotHttp(f"its headers have over {MAX_FRAMING_BYTES} bytes")
        fields: dict[bytes, bytes] = {}
        for name, value in pairs:
            name = name.lower()
            if name not in fields:
                fields[name] = value
            elif name == b"transfer-encoding":
                raise NotHttp("it has two transfer-encodings")
        if status < 200:
            self._num_interim += 1
            if status not in _INTERIM or self._num_interim > MAX_INTERIM_ANSWERS:
                raise NotHttp(f"status {status} is no answer")
        coding = fields.get(b"transfer-encoding", b"chunked")
        if coding.strip().lower() != b"chunked":
            raise NotHttp("it has a transfer-encoding that was not asked for")
        return fields

    def _misread(self, error: Exception) -> None:
        """The parser gave up."""
        if self.has_ended:
            self._may_stay = False  # what follows an answer does not change it
            return
        self.fail(NotHttp(str(error.__context__ or error)))

    def _cut_short(self, error: Exception | None) -> None:
        """The connection ended; was that the end of the answer, too?"""
        said = str(error or "end of file")
        fields = self.fields
        if not self.status:
            self.failure = ClosedUnanswered(said)
        elif error is None and not (b"content-length" in fields or b"transfer-encoding" in fields):
            self.has_ended = True
        else:
            self.failure = BrokenOff(said)

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)
