"""A client that says on a socket what no HTTP library would say."""

import json
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from msgspec import Struct

from tests.serving import Server

PATIENCE_SECONDS = 20.0
BODY = b'{"model": "chat-small", "messages": [{"role": "user", "content": "hi"}]}'


class Answer(Struct, frozen=True):
    """What came back, as far as it is HTTP; `status` 0 if nothing did."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    raw: bytes

    @property
    def error(self) -> dict[str, object]:
        """The error of an answer in OpenAI's shape."""
        error: dict[str, object] = json.loads(self.body)["error"]
        return error

    @property
    def num_answers(self) -> int:
        """How many status lines came, this one's included."""
        return len(re.findall(rb"HTTP/1\.[01] \d{3} ", self.raw))


@contextmanager
def connected(server: Server, *, receive_bytes: int | None = None) -> Iterator[socket.socket]:
    """A connection to the gateway itself; a small receive buffer makes a slow reader."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.socket() as connection:
        connection.settimeout(PATIENCE_SECONDS)
        if receive_bytes is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        connection.connect((host, int(port)))
        yield connection


def exchange(server: Server, *pieces: bytes) -> Answer:
    """Send these bytes on a new connection and read until the gateway closes it."""
    with connected(server) as connection:
        for piece in pieces:
            try:
                connection.sendall(piece)
            except (BrokenPipeError, ConnectionResetError):
                break  # it has heard enough
        return parsed(until_closed(connection))


def until_closed(connection: socket.socket) -> bytes:
    """All that comes until the other side closes, politely or not."""
    seen = b""
    while True:
        try:
            piece = connection.recv(65536)
        except ConnectionResetError:
            return seen
        if not piece:
            return seen
        seen += piece


def parsed(raw: bytes) -> Answer:
    """The first answer in these bytes."""
    head, _, body = raw.partition(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    words = status_line.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
    return Answer(status=status, headers=headers, body=body, raw=raw)


def chat_head(*headers: str, version: str = "1.1") -> bytes:
    """The head of a chat request with these headers besides Host and type, up to the empty line."""
    lines = [
        f"POST /v1/chat/completions HTTP/{version}",
        "host: localhost",
        "content-type: application/json",
        *headers,
    ]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


def chunked(*pieces: bytes) -> bytes:
    """A body of these chunks, ended."""
    return b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces if p) + b"0\r\n\r\n"
