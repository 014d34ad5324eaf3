"""One end of the socket between a gateway's process and an engine's child."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Generic, cast

import msgspec
import structlog

from engines.process.wire import Frame, FrameReader, FrameTooLong, FromChild, ToChild, framed

log = structlog.get_logger()


class Link(asyncio.Protocol, Generic[Frame]):
    """Sends frames and hands on what arrives; lives on the event loop.

    It ends once, for any reason: the other side is gone, `close` was called, or
    what arrived was no frame. Then `lost` is set and nothing arrives any more.
    """

    def __init__(self, kind: Any, on_frame: Callable[[Frame], None]) -> None:
        """Frames that arrive are of `kind`: `ToChild` or `FromChild`."""
        self.lost = asyncio.Event()
        self.num_received = 0  # frames so far
        self._on_frame = on_frame
        self._reader: FrameReader[Frame] = FrameReader(kind)
        self._transport: asyncio.Transport | None = None

    async def connect(self, end: socket.socket) -> None:
        """Take over this end of a socket pair."""
        end.settimeout(0)
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=end)

    @property
    def num_unsent_bytes(self) -> int:
        """What the other side has not taken yet."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def send(self, frame: ToChild | FromChild) -> None:
        """Write a frame, or drop it when the link is lost. Raises one of `UNWRITABLE`."""
        data = framed(frame)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """Drop what is unsent; `lost` is set soon."""
        if self._transport is None:
            self.lost.set()
        else:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        try:
            for frame in self._reader.feed(data):
                self.num_received += 1
                self._on_frame(frame)
        except (FrameTooLong, msgspec.MsgspecError) as error:
            log.error("engine_link_broken", reason=str(error))
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        self.lost.set()
