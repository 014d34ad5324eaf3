"""An upstream in a process of its own, which can be killed, made slow and made to fail.

    python -m tests.fallible_upstream PORT FILE

It answers chat completions, whole or as a stream. `PUT /mood` with `fine`, `slow`,
`failing` or `busy` says how from then on. Each request adds a byte to FILE, so that how many there
were is known even after a SIGKILL.
"""

import asyncio
import contextlib
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from tests.upstream import CHAT, DONE, END, SSE_HEAD, USAGE, Connection, answering, chunk, chunked

PAUSE_SECONDS = 0.005
SLOW_SECONDS = 600.0
START_SECONDS = 60.0

RETRY_AFTER_SECONDS = 1

Moods = dict[str, Callable[[Connection], Awaitable[None]]]


async def fine(connection: Connection) -> None:
    """An answer, in a few steps."""
    if b'"stream":true' not in connection.request.body.replace(b" ", b""):
        await asyncio.sleep(PAUSE_SECONDS)
        await answering(CHAT)(connection)
        return
    await connection.send(SSE_HEAD)
    for piece in (chunk("hello"), chunk(" there"), chunk() + USAGE + DONE):
        await asyncio.sleep(PAUSE_SECONDS)
        await connection.send(chunked(piece))
    await connection.send(END)
    connection.keeps = True


async def slow(connection: Connection) -> None:
    """Nothing, for longer than anybody waits."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SLOW_SECONDS):
            await connection.gone()


async def failing(connection: Connection) -> None:
    """500."""
    error = {"error": {"message": "out of order", "type": "server_error"}}
    await answering(error, "500 Internal Server Error")(connection)


async def busy(connection: Connection) -> None:
    """429, with Retry-After."""
    error = {"error": {"message": "slow down", "type": "requests"}}
    scene = answering(error, "429 Too Many Requests", retry_after=RETRY_AFTER_SECONDS)
    await scene(connection)


MOODS: Moods = {"fine": fine, "slow": slow, "failing": failing, "busy": busy}


async def serve(port: int, counted_in: Path) -> None:
    """Answer until killed."""
    mood = "fine"
    counter = os.open(counted_in, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def play(connection: Connection) -> None:
        nonlocal mood
        if connection.request.method == "PUT":
            mood = connection.request.body.decode()
            await answering({"mood": mood})(connection)
            return
        os.write(counter, b".")
        await MOODS[mood](connection)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(reader, writer)
        with contextlib.suppress(ConnectionError):
            while await connection.next_request():
                connection.keeps = False
                await play(connection)
                if not connection.keeps:
                    break
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


class FallibleUpstream:
    """Such a process, seen from a test. `started` it to have it run."""

    def __init__(self, port: int, counted_in: Path) -> None:
        self.port = port
        self.base_url = f"http://127.0.0.1:{port}/v1"
        self._counted_in = counted_in
        self._process: asyncio.subprocess.Process | None = None

    @property
    def num_requests(self) -> int:
        """How many requests have come, in all its lives."""
        return self._counted_in.stat().st_size

    async def start(self) -> None:
        """Start it, and return when it answers."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.fallible_upstream"),
            *(str(self.port), str(self._counted_in)),
        )
        async with asyncio.timeout(START_SECONDS):
            while not await self._tell("fine"):
                assert self._process.returncode is None, "the upstream did not start"
                await asyncio.sleep(0.05)

    async def become(self, mood: str) -> None:
        """Have it answer so from now on."""
        assert await self._tell(mood)

    async def kill(self) -> None:
        """End it with everything that it is at."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    @contextlib.asynccontextmanager
    async def started(self) -> AsyncIterator["FallibleUpstream"]:
        """Run it until the block ends."""
        try:
            await self.start()
            yield self
        finally:
            await self.kill()

    async def _tell(self, mood: str) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(b"PUT /mood HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % len(mood))
            writer.write(mood.encode())
            told = await reader.readuntil(b"\r\n\r\n")
            writer.close()
        except (OSError, asyncio.IncompleteReadError):
            return False
        return re.match(rb"HTTP/1.1 200 ", told) is not None


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(int(sys.argv[1]), Path(sys.argv[2])))
