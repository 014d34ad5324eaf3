"""What comes after the head of a request that asks for another protocol: its body, and no more.

Java's HTTP client, for one, asks every `http:` URL for h2c with its first request, whatever that
is. A server may take no notice of `Upgrade` and answer in HTTP/1.1 (RFC 9110, section 7.8);
that request's body is HTTP/1.1 as well. httptools stops at the end of the head, and takes
whatever is fed next for a new request.
"""

from collections.abc import Sequence
from typing import Protocol

import httptools

_FRAMING = (b"content-length", b"transfer-encoding")


class TakesBody(Protocol):
    """Whose body it is."""

    def on_body(self, body: bytes) -> None: ...

    def on_message_complete(self) -> None: ...


class _Complete(Exception):
    """The parser is to stop."""


class RestOfMessage:
    """In the place of a connection's parser, once the head that asks for an upgrade is read.

    The body is read by the same parser by the same rules, behind a head in which nothing is
    left but how long it is. Whatever follows it is dropped: it is the other protocol's, or
    somebody's who would like it to be taken for a request.
    """

    def __init__(
        self, taker: TakesBody, headers: Sequence[tuple[bytes, bytes]], method: bytes
    ) -> None:
        self._taker = taker
        self._parser = httptools.HttpRequestParser(self)
        # What follows the head of a CONNECT is never a body.
        self._framing = [
            (name, value) for name, value in headers if name in _FRAMING and method != b"CONNECT"
        ]
        self.is_complete = False

    def begin(self) -> None:
        """From here on there is body, or nothing."""
        lines = b"".join(b"%b: %b\r\n" % header for header in self._framing)
        self.feed_data(b"POST / HTTP/1.1\r\nhost: -\r\n" + lines + b"\r\n")

    def feed_data(self, data: bytes) -> None:
        """As a parser's. Raises its `HttpParserError` for a body that is none."""
        if self.is_complete:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            if not self.is_complete:
                raise

    def should_upgrade(self) -> bool:
        """As a parser's."""
        return False

    def on_body(self, body: bytes) -> None:
        """A piece of the body; called by the parser."""
        self._taker.on_body(body)

    def on_message_complete(self) -> None:
        """The body's last byte; called by the parser."""
        self.is_complete = True
        self._taker.on_message_complete()
        raise _Complete  # or the parser would go on with what follows
