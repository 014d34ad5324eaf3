"""A TCP proxy that breaks connections off, or holds them, after so many bytes of the server's."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence


class CuttingProxy:
    """Cuts the connection that is carrying byte number `cuts[0]`, then number `cuts[1]`.

    With `hold_at`, nothing goes on from that byte until `release`; `held` says it got there.
    """

    def __init__(self, port: int, cuts: Sequence[int] = (), *, hold_at: int | None = None) -> None:
        self._server_port = port
        self._cuts = sorted(cuts)
        self._hold_at = hold_at
        self._released = asyncio.Event()
        self._serving: set[asyncio.Task[None]] = set()
        self.held = asyncio.Event()
        self.port = 0
        self.num_cuts = 0
        self.num_bytes = 0  # of the server, to whoever asked

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator["CuttingProxy"]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self._serving:
                task.cancel()
            await asyncio.gather(*self._serving, return_exceptions=True)

    def release(self) -> None:
        self._hold_at = None
        self._released.set()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving.add(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._server_port)
        ways = [
            asyncio.create_task(_copy(reader, to_server)),
            asyncio.create_task(self._copy_back(from_server, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            writer.close()
            to_server.close()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _copy_back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(16_384):
            if self._hold_at is not None and self.num_bytes >= self._hold_at:
                self.held.set()
                await self._released.wait()
            left = self._cuts[0] - self.num_bytes if self._cuts else len(data)
            self.num_bytes += min(left, len(data))
            writer.write(data[:left])
            if left < len(data):
                self._cuts.pop(0)
                self.num_cuts += 1
                return
            with contextlib.suppress(OSError):
                await writer.drain()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(16_384):
            writer.write(data)
            await writer.drain()
