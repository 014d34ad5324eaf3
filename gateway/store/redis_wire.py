"""One connection to Redis, as far as the hot path needs it: RESP2, pipelined.

redis-py takes several times as long for a script call, and its time-outs fire when
this process was slow, not only when Redis was (docs/experiments.md). Here a reply
that has arrived wins over its time-out: when the time is up, the event loop gets
one more look at the socket.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import cast

LAST_LOOK_SECONDS = 0.002  # long enough for one turn of the event loop

Reply = bytes | int | None


class RedisRefused(Exception):
    """Redis answered a command with an error; the message begins with its word."""


class RedisLost(Exception):
    """The connection is gone, or what came over it was not RESP."""


class RedisTooSlow(Exception):
    """No reply in time. The command may still be carried out."""


class RedisLink(asyncio.Protocol):
    """Commands go out in order and replies come back in order, many at once."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[tuple[asyncio.Future[Reply], asyncio.TimerHandle]] = deque()
        self._buffer = bytearray()

    def send(self, *parts: bytes, timeout: float) -> "asyncio.Future[Reply]":
        """The reply to a command. Raises `RedisRefused`, `RedisLost`, `RedisTooSlow`."""
        return self.ask(encoded(parts), timeout)

    def ask(self, command: bytes, timeout: float) -> "asyncio.Future[Reply]":
        """The same for a command that is in RESP already."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reply] = loop.create_future()
        if self._transport is None or self._transport.is_closing():
            future.set_exception(RedisLost("the connection is closed"))
            return future
        timer = loop.call_later(timeout, _time_is_up, future, timeout)
        self._waiting.append((future, timer))
        self._transport.write(command)
        return future

    def close(self) -> None:
        """Drop the connection; whoever waits gets `RedisLost`."""
        if self._transport is not None:
            self._transport.abort()
        self._end("the connection was closed")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        """Called by asyncio: hand each whole reply to whoever is next."""
        buffer, at = self._buffer, 0
        buffer += data
        try:
            while at < len(buffer) and (found := parsed(buffer, at)) is not None:
                reply, at = found
                self._answer(reply)
        except (ValueError, IndexError):
            self.close()
            return
        del buffer[:at]

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        self._end(str(exc) if exc else "Redis closed the connection")

    def _answer(self, reply: Reply | RedisRefused) -> None:
        future, timer = self._waiting.popleft()
        timer.cancel()
        if future.done():  # too slow, or its call is gone
            return
        if isinstance(reply, RedisRefused):
            future.set_exception(reply)
        else:
            future.set_result(reply)

    def _end(self, why: str) -> None:
        self.closed.set()
        while self._waiting:
            future, timer = self._waiting.popleft()
            timer.cancel()
            if not future.done():
                future.set_exception(RedisLost(why))


def is_unknown_script(error: RedisRefused) -> bool:
    """Has Redis lost the script? Then it is sent whole."""
    return str(error).startswith("NOSCRIPT")


def encoded(parts: Sequence[bytes]) -> bytes:
    """A command as RESP: an array of bulk strings."""
    return b"*%d\r\n%b" % (len(parts), b"".join(map(bulk, parts)))


def bulk(part: bytes) -> bytes:
    """One part of a command."""
    return b"$%d\r\n%b\r\n" % (len(part), part)


def parsed(buffer: bytearray, at: int) -> tuple[Reply | RedisRefused, int] | None:
    """The reply that begins at `at` and where the next begins; None if it is not whole.

    Arrays are refused with `ValueError`: no command here is answered with one.
    """
    end = buffer.find(b"\r\n", at)
    if end < 0:
        return None
    kind, text = bytes(buffer[at : at + 1]), bytes(buffer[at + 1 : end])
    if kind == b"$":
        length, begin = int(text), end + 2
        if length < 0:
            return None, begin
        after = begin + length
        return (bytes(buffer[begin:after]), after + 2) if len(buffer) >= after + 2 else None
    if kind == b":":
        return int(text), end + 2
    if kind == b"+":
        return text, end + 2
    if kind == b"-":
        return RedisRefused(text.decode(errors="replace")), end + 2
    raise ValueError(f"not RESP: {kind!r}")


def _time_is_up(future: "asyncio.Future[Reply]", timeout: float) -> None:
    # After a hold-up of this process, timers run before sockets are read.
    if not future.done():
        asyncio.get_running_loop().call_later(LAST_LOOK_SECONDS, _too_slow, future, timeout)


def _too_slow(future: "asyncio.Future[Reply]", timeout: float) -> None:
    if not future.done():
        future.set_exception(RedisTooSlow(f"no reply in {timeout:g} seconds"))
