"""A server that follows a script over real sockets, byte for byte, and sees who hangs up.

with playing() as upstream:
    upstream.scene = answering(CHAT)
    ...
    upstream.wait_until(lambda: upstream.num_open == 0)

It knows just enough HTTP to read a request. What it sends is up to the scene, so
that it can do everything that no HTTP library would do. It runs in a thread of its
own, beside the served gateway and the test.
"""

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

WAIT_SECONDS = 20.0

CHAT: Mapping[str, object] = {
    "id": "chatcmpl-upstream",
    "object": "chat.completion",
    "created": 1_700_000_000,
    "model": "upstream-model",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "hello there", "mood": "fine"},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
    "provider_note": {"deep": [1, 2.50, "x"]},
}


@dataclass
class Received:
    """A request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]  # lower-case names
    body: bytes

    @property
    def json(self) -> dict[str, object]:
        """The body."""
        return msgspec.json.decode(self.body, type=dict[str, object])


class Connection:
    """One connection, as a scene sees it after it has read a request."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.request = Received("", "", {}, b"")
        self.keeps = False  # whether another request may come
        self._reader = reader
        self._writer = writer

    async def send(self, *pieces: bytes) -> None:
        """Send bytes as they are."""
        for piece in pieces:
            self._writer.write(piece)
        await self._writer.drain()

    async def gone(self) -> None:
        """Return when the other side has hung up."""
        with contextlib.suppress(ConnectionError):
            while await self._reader.read(65536):
                pass

    def reset(self) -> None:
        """Close with RST: what the other side has not read is lost."""
        linger = struct.pack("ii", 1, 0)
        sock: socket.socket = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._writer.transport.abort()

    async def next_request(self) -> bool:
        """Read a request; False when none comes any more."""
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return False
        first, *lines = head.decode("latin-1").strip().split("\r\n")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        method, path, _ = first.split(" ", 2)
        body = await self._reader.readexactly(int(headers.get("content-length", 0)))
        self.request = Received(method, path, headers, body)
        return True


Scene = Callable[[Connection], Awaitable[None]]


@dataclass
class Upstream:
    """The running server. `scene` is played for every request that begins after it was set."""

    port: int = 0
    scene: Scene = field(default=lambda connection: answering(CHAT)(connection))
    requests: list[Received] = field(default_factory=list)
    num_open: int = 0
    num_accepted: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def base_url(self) -> str:
        """What a policy writes."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def last(self) -> Received:
        """The request that came last."""
        return self.requests[-1]

    def clear(self) -> None:
        """Forget what was asked."""
        self.requests.clear()

    def wait_until(self, holds: Callable[[], bool]) -> None:
        """Return when `holds()`, which is about this server's numbers, is true; else fail."""
        with self._changed:
            assert self._changed.wait_for(holds, WAIT_SECONDS), (self.num_open, self.requests)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Play the scene for each request of one connection."""
        connection = Connection(reader, writer)
        self._note(num_open=1, num_accepted=1)
        try:
            while await connection.next_request():
                self._note(connection.request)
                connection.keeps = False
                with contextlib.suppress(ConnectionError):
                    await self.scene(connection)
                if not connection.keeps:
                    break
        finally:
            writer.close()
            self._note(num_open=-1)

    def _note(self, request: Received | None = None, **by: int) -> None:
        with self._changed:
            if request is not None:
                self.requests.append(request)
            for name, step in by.items():
                setattr(self, name, getattr(self, name) + step)
            self._changed.notify_all()


@contextlib.contextmanager
def playing(tls: ssl.SSLContext | None = None) -> Iterator[Upstream]:
    """Run the server until the block ends."""
    upstream = Upstream()
    ready = threading.Event()
    loops: list[asyncio.AbstractEventLoop] = []
    ended = asyncio.Event()

    async def serve() -> None:
        server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0, ssl=tls)
        upstream.port = server.sockets[0].getsockname()[1]
        loops.append(asyncio.get_running_loop())
        ready.set()
        await ended.wait()
        server.close()
        running = asyncio.all_tasks() - {asyncio.current_task()}
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        # TLS connections in mid-handshake or mid-farewell: only the loop knows of them.
        for transport in list(getattr(loops[0], "_transports", {}).values()):
            transport.abort()
        for _ in range(3):
            await asyncio.sleep(0)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="upstream")
    thread.start()
    assert ready.wait(WAIT_SECONDS)
    try:
        yield upstream
    finally:
        loops[0].call_soon_threadsafe(ended.set)
        thread.join(WAIT_SECONDS)


def head(
    status: str = "200 OK", content_type: str = "application/json", **headers: object
) -> bytes:
    """Status line and headers; names have underscores for hyphens."""
    given = {"content_type": content_type, **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in given.items()]
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode("latin-1")


def chunked(data: bytes) -> bytes:
    """One chunk of a body without a length."""
    return b"%x\r\n%b\r\n" % (len(data), data)


END = b"0\r\n\r\n"  # of a body in chunks


def event(fields: Mapping[str, object]) -> bytes:
    """One server-sent event of JSON."""
    return b"data: " + msgspec.json.encode(fields) + b"\n\n"


def chunk(text: str | None = None, **fields: object) -> bytes:
    """One chunk of a streamed chat answer."""
    choice: dict[str, object] = {
        "index": 0,
        "delta": {} if text is None else {"content": text},
        "finish_reason": None if text is not None else "stop",
    }
    return event({"id": "chatcmpl-up", "object": "chat.completion.chunk",
                  "created": 1_700_000_000, "model": "upstream-model",
                  "choices": [choice], **fields})  # fmt: skip


USAGE = event(
    {
        "id": "chatcmpl-up",
        "model": "upstream-model",
        "choices": [],
        "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
    }
)
DONE = b"data: [DONE]\n\n"
SSE_HEAD = head(content_type="text/event-stream", transfer_encoding="chunked")


def answering(fields: object, status: str = "200 OK", **headers: object) -> Scene:
    """A whole answer; the connection stays for the next."""
    body = fields if isinstance(fields, bytes) else msgspec.json.encode(fields)

    async def scene(connection: Connection) -> None:
        await connection.send(head(status, content_length=len(body), **headers) + body)
        connection.keeps = True

    return scene


def streaming(*events: bytes) -> Scene:
    """A whole stream; the connection stays for the next."""

    async def scene(connection: Connection) -> None:
        await connection.send(SSE_HEAD)
        for each in events:
            await connection.send(chunked(each))
        await connection.send(END)
        connection.keeps = True

    return scene


def sending(*pieces: bytes, then: str = "close") -> Scene:
    """These bytes, then: `close`, `reset`, or `hang` until the other side has had enough."""

    async def scene(connection: Connection) -> None:
        await connection.send(*pieces)
        if then == "hang":
            await connection.gone()
        elif then == "reset":
            connection.reset()

    return scene


def trickling(start: bytes, drop: bytes, every: float = 0.02) -> Scene:
    """`drop` again and again, without an end."""

    async def scene(connection: Connection) -> None:
        await connection.send(start)
        while True:
            await connection.send(drop)
            await asyncio.sleep(every)

    return scene
