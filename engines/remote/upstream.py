"""One upstream's HTTP: asks it, and reads what it answers within time and size limits.

Everything that can go wrong with a connection is `Unavailable` here. What an
answer's status means is refusals.py, what its bytes mean is for the callers.

aiohttp is used without httpx above it: docs/decisions/0021 has the reason.
"""

import asyncio
import io
import time
from collections.abc import Mapping

import aiohttp
import structlog
from msgspec import Struct
from yarl import URL

from engines.errors import Unavailable
from engines.remote.config import RemoteConfig
from engines.remote.connector import UpstreamConnector, was_used

log = structlog.get_logger()

CREDENTIAL_SECONDS = 10.0  # a new secret is used after this long at most
LINGER_SECONDS = 0.5  # how long the end of a body may come after the end of its answer
LARGE_BYTES = 1024 * 1024  # aiohttp wants larger bodies as files
MAX_ERROR_BYTES = 64 * 1024


class Question(Struct, frozen=True, kw_only=True):
    """One request to an upstream; `path` is below its base URL."""

    method: str = "POST"
    path: str
    query: str = ""
    body: bytes = b""
    headers: Mapping[str, str] = {}


class Upstream:
    """The connections to one server, and the credentials that it wants.

    The event loop owns it. `ask` may be called from any number of tasks.
    """

    def __init__(self, name: str, config: RemoteConfig) -> None:
        self.name = name
        self.is_closed = False
        self._config = config
        self._base = config.base_url.rstrip("/")
        self._urls: dict[str, URL] = {}
        self._timeout = aiohttp.ClientTimeout(
            total=config.total_seconds,
            sock_connect=config.connect_seconds,
            sock_read=config.first_byte_seconds,
        )
        self._replies: set[Reply] = set()  # answers that are being read
        self._session: aiohttp.ClientSession | None = None
        self._connector: UpstreamConnector | None = None
        self._headers: Mapping[str, str] = {}
        self._secrets: tuple[str, ...] = ()
        self._read_at = -CREDENTIAL_SECONDS

    @property
    def num_open(self) -> int:
        """Connections that are in use or kept for later."""
        return self._connector.num_open if self._connector is not None else 0

    async def open(self) -> None:
        """Be ready to ask; connects to nothing yet. Raises `Unavailable`."""
        self._read_credentials()
        try:
            self._connector = UpstreamConnector(self._config)
        except OSError as error:
            raise Unavailable(f"ca_file cannot be read: {error}") from None
        self._session = aiohttp.ClientSession(
            connector=self._connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=self._timeout,
            auto_decompress=False,
            trust_env=False,
        )

    async def close(self) -> None:
        """Close every connection, those of running answers too; idempotent."""
        self.is_closed = True
        # aiohttp would leave those who wait for more of a body waiting.
        for reply in tuple(self._replies):
            reply.close()
        if self._session is not None:
            await self._session.close()

    def scrubbed(self, text: bytes) -> bytes:
        """`text` without our credentials, should the upstream have repeated one."""
        for secret in self._secrets:
            text = text.replace(secret.encode(), b"***")
        return text

    def forget_credentials(self) -> None:
        """Read the secrets again before the next request: these were refused."""
        self._read_at = -CREDENTIAL_SECONDS

    async def ask(self, question: Question) -> "Reply":
        """Send a question; return when its answer's headers are there. Raises `Unavailable`."""
        try:
            return await self._ask(question)
        except (aiohttp.ClientError, OSError) as error:
            if not (was_used.get() and _nothing_came(error)):
                raise self.failed(error) from None
        # A connection that was kept had been closed by the other side, as it may be at any
        # time, and this request met the news on its way. Nothing has answered it.
        try:
            return await self._ask(question)
        except (aiohttp.ClientError, OSError) as error:
            raise self.failed(error) from None

    def failed(self, error: BaseException) -> Unavailable:
        """What a failed connection is to a caller; the log gets the details."""
        if self.is_closed:
            return Unavailable(f"engine {self.name!r} was closed")
        said = _in_words(error)
        log.warning(
            "upstream_failed", engine=self.name, reason=said, error=type(error).__name__,
            detail=str(error)[:200],
        )  # fmt: skip
        return Unavailable(f"the upstream {said}")

    async def _ask(self, question: Question) -> "Reply":
        session = self._session
        if session is None or self.is_closed:
            raise Unavailable(f"engine {self.name!r} is closed")
        headers = {**self._headers_now(), **question.headers}
        data = question.body or None
        was_used.set(False)
        response = await session.request(
            question.method,
            self._url(question.path, question.query),
            data=io.BytesIO(data) if data and len(data) > LARGE_BYTES else data,
            headers=headers,
            allow_redirects=False,
        )
        reply = Reply(response, self, self._config.idle_seconds)
        self._replies.add(reply)
        return reply

    def ended(self, reply: "Reply") -> None:
        """An answer is not read any more."""
        self._replies.discard(reply)

    def _url(self, path: str, query: str) -> URL:
        if query or path not in KNOWN_PATHS:
            return URL(f"{self._base}/{path}{'?' if query else ''}{query}", encoded=True)
        if path not in self._urls:
            self._urls[path] = URL(f"{self._base}/{path}", encoded=True)
        return self._urls[path]

    def _headers_now(self) -> Mapping[str, str]:
        if time.monotonic() - self._read_at >= CREDENTIAL_SECONDS:
            self._read_credentials()
        return self._headers

    def _read_credentials(self) -> None:
        config = self._config
        try:
            key = config.api_key.reveal() if config.api_key is not None else None
            more = {name: source.reveal() for name, source in config.secret_headers.items()}
        except ValueError as error:
            raise Unavailable(str(error)) from None
        headers = {
            "content-type": "application/json",
            "accept-encoding": "identity",
            "user-agent": "penstock",
            **{name.lower(): value for name, value in (*config.headers.items(), *more.items())},
        }
        if key is not None:
            headers["authorization"] = f"Bearer {key}"
        self._headers = headers
        self._secrets = tuple(secret for secret in (key, *more.values()) if secret)
        self._read_at = time.monotonic()


class Reply:
    """An answer whose headers are there. `close` it, whatever happens; that awaits nothing."""

    def __init__(self, response: aiohttp.ClientResponse, upstream: Upstream, idle: float) -> None:
        self.status = response.status
        self.headers = response.headers
        self.content_type = response.headers.get("content-type", "").partition(";")[0].strip()
        self._response = response
        self._upstream = upstream
        if (connection := response.connection) is not None and connection.protocol is not None:
            connection.protocol.read_timeout = idle

    @property
    def is_compressed(self) -> bool:
        """Did the upstream compress, though it was asked not to?"""
        return self.headers.get("content-encoding", "identity").lower() not in ("identity", "")

    async def piece(self) -> bytes:
        """The bytes that came since last time; empty at the end. Raises `Unavailable`."""
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise self._upstream.failed(error) from None

    async def whole(self, max_bytes: int) -> bytes:
        """The body. Raises `Unavailable`, also for one that is longer than `max_bytes`."""
        length = self.headers.get("content-length", "")
        if length.isdigit() and int(length) > max_bytes:
            raise Unavailable("the upstream sent a longer answer than is taken from it")
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
        content = self._response.content
        if content.at_eof():
            return
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                await content.readany()
        except (aiohttp.ClientError, OSError):
            return

    def close(self) -> None:
        """Give the connection back; one whose body has not ended is closed. May be called twice."""
        self._upstream.ended(self)
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


# Their URLs are made once. Any other path is a caller's, and there is no end to those.
KNOWN_PATHS = frozenset({"chat/completions", "completions", "embeddings", "models", "rerank"})


def _nothing_came(error: Exception) -> bool:
    """Was the connection closed or reset with no byte of an answer on it?"""
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return isinstance(error.message, str)  # else it is the answer that broke off
    return isinstance(error, ConnectionResetError | BrokenPipeError) or (
        isinstance(error, aiohttp.ClientOSError)
        and not isinstance(error, aiohttp.ClientConnectorError)
    )


def _in_words(error: BaseException) -> str:
    """What happened, in words that name neither host nor address."""
    match error:
        case aiohttp.ConnectionTimeoutError():
            return "did not take the connection in time"
        case aiohttp.ClientConnectorCertificateError():
            return "has a certificate that is not trusted"
        case aiohttp.ClientConnectorDNSError():
            return "has a name that does not resolve"
        case aiohttp.ClientConnectorError():
            return "cannot be connected to"
        case TimeoutError():
            return "did not answer in time"
        case aiohttp.ClientPayloadError():
            return "broke off its answer"
        case aiohttp.ClientResponseError():
            return "sent an answer that is not HTTP"
        case _:
            return "closed the connection before it had answered"
