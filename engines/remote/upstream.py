"""One upstream's HTTP: asks it, and reads what it answers within time and size limits.

Everything that can go wrong with a connection is `Unavailable` here. What an
answer's status means is refusals.py, what its bytes mean is for the callers.

The client below is our own: docs/decisions/0057 has the reason.
"""

import asyncio
from collections.abc import Mapping
from time import monotonic

import structlog

from engines.errors import Unavailable
from engines.remote.config import RemoteConfig
from engines.remote.connection import Connection, Headers
from engines.remote.connections import Connections
from engines.remote.failures import ClosedUnanswered, ConnectionFailure
from engines.remote.reachability import Reachability
from engines.remote.writing import Question, RequestWriter

__all__ = ["Question", "Reply", "Upstream"]

log = structlog.get_logger()

# A kept connection that ends so soon after a request was written had been closed already, as far as
# anybody can know; the news may take a way around the world. Later, somebody has worked on it.
STALE_SECONDS = 0.25
LINGER_SECONDS = 0.5  # how long the end of a body may come after the end of its answer
MAX_ERROR_BYTES = 64 * 1024
NO_CONTENT = 204


class Upstream:
    """The connections to one server, and the credentials that it wants.

    The event loop owns it. `ask` may be called from any number of tasks.
    """

    def __init__(self, name: str, config: RemoteConfig) -> None:
        self.name = name
        self.is_closed = False
        self._config = config
        self._writer = RequestWriter(config)
        self._connections: Connections | None = None
        self._reachability: Reachability | None = None

    @property
    def num_open(self) -> int:
        """Connections that are in use or kept for later."""
        return self._connections.num_open if self._connections is not None else 0

    async def open(self) -> None:
        """Be ready to ask; connects to nothing yet. Raises `Unavailable`."""
        self._writer.read_credentials()
        try:
            self._connections = Connections(self._config)
        except OSError as error:
            raise Unavailable(f"ca_file cannot be read: {error}") from None
        self._reachability = Reachability(self._connections)

    async def problem(self) -> str:
        """Why nothing can be asked, as far as connections tell; empty when it can. Asks nothing."""
        if self.is_closed:
            return "closed"
        return await self._reachability.problem() if self._reachability is not None else ""

    async def close(self) -> None:
        """Close every connection, those of running answers too; idempotent."""
        self.is_closed = True
        if self._reachability is not None:
            await self._reachability.close()
        if self._connections is not None:
            await self._connections.close()

    def scrubbed(self, text: bytes) -> bytes:
        """`text` without our credentials, should the upstream have repeated one."""
        return self._writer.scrubbed(text)

    def forget_credentials(self) -> None:
        """Read the secrets again before the next request: these were refused."""
        self._writer.forget_credentials()

    async def ask(self, question: Question) -> "Reply":
        """Send a question; return when its answer's headers are there. Raises `Unavailable`, and
        `RequestRefused` for a question that cannot be written as one request."""
        connections = self._connections
        if connections is None or self.is_closed:
            raise Unavailable(f"engine {self.name!r} is closed")
        head = self._writer.head(question)
        began_at = monotonic()
        until = began_at + self._config.total_seconds
        connection = connections.kept_one()
        try:
            if connection is not None:
                try:
                    await connection.ask(head, question.body, until)
                    return Reply(connection, self)
                except ClosedUnanswered:
                    # The other side had closed it, as it may at any time, and this request
                    # met the news on its way. If nothing has answered it, it is sent again.
                    is_late = monotonic() - began_at > STALE_SECONDS
                    if connection.has_heard or is_late or self.is_closed:
                        raise
            connection = await connections.fresh_one()
            await connection.ask(head, question.body, until)
        except ConnectionFailure as failure:
            raise self.failed(failure) from None
        return Reply(connection, self)

    def failed(self, failure: ConnectionFailure) -> Unavailable:
        """What a failed connection is to a caller; the log gets the details."""
        if self.is_closed:
            return Unavailable(f"engine {self.name!r} was closed")
        log.warning(
            "upstream_failed", engine=self.name, reason=failure.words,
            error=type(failure).__name__, detail=str(failure)[:200],
        )  # fmt: skip
        return Unavailable(f"the upstream {failure.words}")

    def ended(self, connection: Connection) -> None:
        """An answer is not read any more: its connection is kept, or closed at once."""
        assert self._connections is not None
        self._connections.give_back(connection)


class Reply:
    """An answer whose headers are there. `close` it, whatever happens; that awaits nothing."""

    def __init__(self, connection: Connection, upstream: Upstream) -> None:
        self.status = connection.status
        self._fields = connection.fields
        self._connection: Connection | None = connection
        self._upstream = upstream

    @property
    def headers(self) -> Mapping[str, str]:
        """The answer's headers; their names may be asked for in any case."""
        return Headers(self._fields)

    @property
    def content_type(self) -> str:
        """What the body is, without parameters; empty where that is not told, or there is none."""
        if self.status == NO_CONTENT:
            return ""
        told = self._fields.get(b"content-type", b"")
        return told.partition(b";")[0].strip().decode("latin-1")

    @property
    def is_compressed(self) -> bool:
        """Did the upstream compress, though it was asked not to?"""
        coding = self._fields.get(b"content-encoding")
        return coding is not None and coding.strip().lower() not in (b"identity", b"")

    async def piece(self) -> bytes:
        """The bytes that came since last time; empty at the end. Raises `Unavailable`."""
        connection = self._connection
        if connection is None:
            raise self._upstream.failed(ClosedUnanswered("its reader had closed it"))
        piece = connection.take()
        if not piece and not connection.has_ended:
            await connection.more()
            piece = connection.take()
            if not piece and connection.failure is not None:
                raise self._upstream.failed(connection.failure)
        return piece

    async def whole(self, max_bytes: int) -> bytes:
        """The body. Raises `Unavailable`, also for one that is longer than `max_bytes`."""
        length = self._fields.get(b"content-length")
        if length is not None and int(length) > max_bytes:
            raise Unavailable("the upstream sent a longer answer than is taken from it")
        connection = self._connection
        if connection is not None and connection.has_ended and length is not None:
            return connection.take()  # all of it came at once
        pieces: list[bytes] = []
        size = 0
        while piece := await self.piece():
            size += len(piece)
            if size > max_bytes:
                raise Unavailable("the upstream sent a longer answer than is taken from it")
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def beginning(self, max_bytes: int = MAX_ERROR_BYTES) -> bytes:
        """The body of a refusal, or nothing where it is too long to be one."""
        try:
            return await self.whole(max_bytes)
        except Unavailable:
            return b""

    async def linger(self) -> None:
        """Wait a moment for the body to end, so that its connection can be used again."""
        connection = self._connection
        if connection is None or connection.has_ended:
            return
        connection.take()
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                await connection.more()
        except TimeoutError:
            return

    def close(self) -> None:
        """Give the connection back; one whose body has not ended is closed. May be called twice."""
        connection = self._connection
        if connection is not None:
            self._connection = None
            self._upstream.ended(connection)
