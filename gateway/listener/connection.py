"""One client's connection: HTTP/1.1 as uvicorn reads it, strict and bounded.

uvicorn's parser (llhttp) refuses what is ambiguous about a body's length. It
has no limit to the size of a head or to the time that one may take, it takes
trailers for headers, and it does not look at `Host`; all that is here. Whatever
is refused here is answered in OpenAI's shape, because no endpoint is known yet.

Times are checked by `Server` once a second, so that a connection costs no timer.
"""

import asyncio
import re
import socket
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import httptools
import structlog
from msgspec import Struct
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from gateway.api.problems import problem_reply
from gateway.api.replies import SECURITY_HEADERS
from gateway.call import new_call_id
from gateway.errors import (
    STATUS,
    BadRequest,
    HeaderTooLarge,
    Problem,
    Refusal,
    RequestTimeout,
    problem_of,
)
from gateway.hang_up import SCOPE_KEY, HangUp, hang_up_of
from gateway.listener.answer import Answer
from gateway.listener.upgrade import RestOfMessage

log = structlog.get_logger()

MAX_HEADER_BYTES = 64 * 1024  # of all headers together; nginx passes on half of that
MAX_HEADERS = 128
MAX_TARGET_BYTES = 8 * 1024  # of the request line's path and query
# How long a client may go on sending a body that nobody wants any more: closing at
# once would reset the connection, and the answer might be lost on the way.
LINGER_SECONDS = 5.0
MAX_PIPELINED = 100  # requests that wait behind the one that is answered
UNSENT_BYTES = 128 * 1024  # in the kernel; beyond it the client is called slow
_NOT_ONE_HOST = "a request has exactly one Host header"
_HOST = re.compile(rb"[A-Za-z0-9._~%!$&'()*+,;=:\[\]-]*")


class ConnectionLimits(Struct, frozen=True, kw_only=True):
    """What the settings say of connections."""

    max_connections: int
    header_seconds: float
    send_seconds: float


class Connection(HttpToolsProtocol):
    """One client's connection; lives in the event loop of its server."""

    def __init__(self, *, limits: ConnectionLimits, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._limits = limits
        self._refusal: Refusal | None = None
        self._head_since: float | None = time.monotonic()  # a head is waited for, or is arriving
        self._answering: RequestResponseCycle | None = None
        self._in_message = False
        self._head_complete = False
        self._answered_at = 0.0
        # Of the message that is arriving: what is body, and what is anything else.
        self._body_bytes = 0
        self._framing_bytes = 0
        self._rest: RestOfMessage | None = None  # of a message whose head asks for an upgrade
        self._stuck_since: float | None = None  # since when nothing of our output was taken
        self._unsent_bytes = 0

    def connection_made(self, transport: Any) -> None:
        """Take a client in, unless there are too many."""
        super().connection_made(transport)
        _set_socket_options(transport, self._limits.send_seconds)
        surplus = len(self.connections) - self._limits.max_connections
        if surplus > self._limits.max_connections:
            transport.abort()  # too many even to be told
        elif surplus > 0:
            self.app = _refuse_connection

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone, and so is whoever answers it."""
        super().connection_lost(exc)
        self.pipeline.clear()
        self._rest = None
        # uvicorn tells the newest request only. With one more behind it, the call that
        # runs would not hear of it, and its engine would go on for nobody.
        if self._answering is not None and not self._answering.response_complete:
            self._answering.disconnected = True
            self._answering.message_event.set()
            if (hang_up := hang_up_of(self._answering.scope)) is not None:
                hang_up.happen()

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and count what is not body."""
        if self._refusal is not None:
            return
        if self._head_since is None and not self._in_message:
            self._head_since = time.monotonic()
        self._framing_bytes += len(data)
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as stop:
            self._read_on(data[stop.args[0] :])
        except httptools.HttpParserError:
            self._refuse_broken()
        if self._framing_bytes > MAX_HEADER_BYTES + self._body_bytes and self._refusal is None:
            self._refuse(
                BadRequest("the body's chunks are too small, or its trailers too long")
                if self._head_complete
                else _too_many_headers()
            )

    def on_message_begin(self) -> None:
        """A request's first byte."""
        super().on_message_begin()
        self._in_message, self._head_complete = True, False
        self._body_bytes = 0
        if self._head_since is None:  # it came in one piece with the request before
            self._head_since = time.monotonic()

    def on_url(self, url: bytes) -> None:
        """A piece of the request line's path and query."""
        super().on_url(url)
        if len(self.url) > MAX_TARGET_BYTES:
            raise self._noted(
                HeaderTooLarge(f"path and query are longer than {MAX_TARGET_BYTES} bytes")
            )

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; or a trailer, and then the list is nobody's."""
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is complete: it becomes a call, if it can be understood in one way only."""
        assert self.parser is not None
        if len(self.headers) > MAX_HEADERS:
            raise self._noted(_too_many_headers())
        fields = dict(self.headers)
        problem = _ambiguity(self.headers, fields, self.parser.get_http_version())
        if problem is None and len(self.pipeline) >= MAX_PIPELINED:
            problem = f"more than {MAX_PIPELINED} requests wait on this connection"
        if problem is not None:
            raise self._noted(BadRequest(problem))
        self._head_complete, self._head_since = True, None
        self.expect_100_continue = fields.get(b"expect", b"").lower() == b"100-continue"
        scope: Any = self.scope
        scope["extensions"] = {SCOPE_KEY: HangUp(self.flow.resume_reading)}
        super().on_headers_complete()
        # Trailers come after the body, and are dropped. In the call's own list they would be
        # headers like any other: a credential, or the word of a proxy, that nobody who
        # checked the head has seen.
        headers, self.headers = self.headers, []
        if self.parser.should_upgrade():
            # It is answered in HTTP/1.1 all the same; what follows it is another protocol's.
            self.cycle.keep_alive = False
            self._rest = RestOfMessage(self, headers, self.parser.get_method())

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._body_bytes += len(body)
        self._framing_bytes -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request's last byte."""
        if self._rest is not None and not self._rest.is_complete:
            return  # it is the head's last byte
        self._in_message = False
        self._framing_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer's last byte is written."""
        self._answered_at = time.monotonic()
        if self._head_since is not None:
            self._head_since = self._answered_at
        super().on_response_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        # Not `cycle.send = ...`: the two would hold each other, and the whole call with them.
        super()._start_asgi_task(cycle, partial(_answered, app, Answer(cycle, self.loop)))

    def _read_on(self, data: bytes) -> None:
        """The head asked for an upgrade and is over; `data` came behind it."""
        assert self._rest is not None
        self.parser: Any = self._rest
        try:
            self._rest.begin()
            self._rest.feed_data(data)
        except httptools.HttpParserError:
            self._refuse_broken()

    def _refuse_broken(self) -> None:
        self._refuse(self._refusal or BadRequest("the request is not valid HTTP/1.1"))

    def check(self, now: float) -> None:
        """Let go of a client that takes too long. Called once a second."""
        if self._is_stuck(now):
            log.info("client_dropped", reason="does not read", client=self._client_host)
            self.transport.abort()
        elif self.transport.is_closing():
            return
        elif not self._is_idle:
            return  # a call runs; its body's time is the middleware's to keep
        elif self._in_message and self._head_complete:
            if now - self._answered_at > LINGER_SECONDS:
                self.transport.close()
        elif self._head_since is not None and now - self._head_since > self._limits.header_seconds:
            if self._framing_bytes or self._in_message:
                self._refuse(RequestTimeout("the request's head did not come in time"))
            else:
                self.transport.close()  # opened, and never used

    def _is_stuck(self, now: float) -> bool:
        """Does output wait, and has nothing of it gone out for too long?"""
        if not (self.flow.write_paused or self.transport.is_closing()):
            self._stuck_since = None
            return False
        # Nobody writes in these two states, so what is less was sent.
        unsent = self.transport.get_write_buffer_size()
        if self._stuck_since is None or unsent < self._unsent_bytes:
            self._stuck_since, self._unsent_bytes = now, unsent
        return unsent > 0 and now - self._stuck_since > self._limits.send_seconds

    def _noted(self, refusal: Refusal) -> Refusal:
        # The parser wraps what its callbacks raise in an error of its own.
        self._refusal = refusal
        return refusal

    def _refuse(self, refusal: Refusal) -> None:
        self._refusal = refusal
        problem = problem_of(refusal)
        log.info(
            "request_refused",
            status=problem.status, reason=problem.message, client=self._client_host,
        )  # fmt: skip
        # An answer in the middle of another, or ahead of it, would be taken for part of it.
        is_of_the_call = self._in_message and self._head_complete and not self.pipeline
        if self._is_idle or (is_of_the_call and not self.cycle.response_started):
            self.transport.write(_written(problem))
            if not self._is_idle:
                self.cycle.disconnected = True
        self.transport.close()

    @property
    def _is_idle(self) -> bool:
        """Is no call running, and none waiting for its turn?"""
        cycle: Any = self.cycle  # None before the first
        return cycle is None or cycle.response_complete

    @property
    def _client_host(self) -> str | None:
        return self.client[0] if self.client else None


def _answered(app: Any, answer: Answer, scope: Any, receive: Any, _send: Any) -> Any:
    return app(scope, receive, answer.send)


def _ambiguity(
    headers: list[tuple[bytes, bytes]], fields: Mapping[bytes, bytes], version: str
) -> str | None:
    """What in this head two servers may read in two ways (RFC 9112, sections 3.2 and 6.1).

    `fields` are the headers by name; of one that came twice it has the last.
    """
    if version not in ("1.0", "1.1"):
        return "only HTTP/1.0 and HTTP/1.1 are spoken here"
    host = fields.get(b"host")
    if host is None and version == "1.1":
        return _NOT_ONE_HOST
    if host is not None and not _HOST.fullmatch(host):
        return "the Host header is no host"
    if b"transfer-encoding" in fields:
        codings = [value.lower() for name, value in headers if name == b"transfer-encoding"]
        if version == "1.0" or any(coding != b"chunked" for coding in codings):
            return "of transfer encodings, only `chunked` is known here, and in HTTP/1.1 only"
    if len(fields) < len(headers) and [name for name, _ in headers].count(b"host") > 1:
        return _NOT_ONE_HOST
    return None


def _too_many_headers() -> HeaderTooLarge:
    return HeaderTooLarge(
        f"the headers are more than {MAX_HEADERS}, or longer than {MAX_HEADER_BYTES} bytes"
    )


async def _refuse_connection(scope: Any, receive: Any, send: Any) -> None:
    problem = Problem(
        code="overloaded",
        status=STATUS["overloaded"],
        message="this gateway has as many connections as it may have; try again",
        source="gateway",
        retry_after=1.0,
        headers={**SECURITY_HEADERS, "connection": "close", "x-request-id": new_call_id()},
    )
    await problem_reply(problem, dialect="openai")(scope, receive, send)


def _written(problem: Problem) -> bytes:
    """The whole answer, for a client that no ASGI application has heard of."""
    reply = problem_reply(problem, dialect="openai")
    headers = {
        "content-type": "application/json",
        "content-length": str(len(reply.body)),
        **SECURITY_HEADERS,
        **reply.headers,
        "x-request-id": new_call_id(),
        "connection": "close",
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {problem.status} Refused\r\n{lines}\r\n".encode("latin-1") + reply.body


def _set_socket_options(transport: asyncio.Transport, send_seconds: float) -> None:
    """Have the kernel notice a client that is gone, and not hide a slow one behind its buffers."""
    connection = transport.get_extra_info("socket")
    if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    options = (("TCP_USER_TIMEOUT", int(send_seconds * 1000)), ("TCP_NOTSENT_LOWAT", UNSENT_BYTES))
    for name, value in options:
        if hasattr(socket, name):  # Linux has both
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
