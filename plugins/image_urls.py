"""Fetches images that a message only gives the address of, from hosts that the policy names.

What a caller could use this for is to reach what only the gateway can. So the policy names
hosts; only https is spoken; the address that is about to be connected to is checked each time,
after redirects too (engines/remote/addresses.py); time and size are bounded; nothing of ours goes
along, neither cookies nor credentials nor a proxy's; and every failure reads the same, so that
nobody learns from it what is there.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, ClassVar

import aiohttp
import structlog
from msgspec import Meta, Struct
from yarl import URL

from engines.remote.addresses import AddressRules
from gateway import BadRequest, Call, hookimpl

if TYPE_CHECKING:
    from gateway.gateway import Gateway

log = structlog.get_logger()

MAX_REDIRECTS = 3
MAX_AT_ONCE = 16  # fetches of one gateway; more wait
_REDIRECTS = (301, 302, 303, 307, 308)
_HEADERS = {"accept": "image/*", "accept-encoding": "identity", "user-agent": "penstock"}


class ImageUrlsTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `[image_urls]` table of gateway.toml."""

    hosts: Sequence[Annotated[str, Meta(min_length=1)]] = ()  # globs; "*" is any public host
    max_bytes: Annotated[int, Meta(ge=1, le=2**30)] = 20 * 2**20
    timeout_seconds: Annotated[float, Meta(gt=0, le=300)] = 10.0


class ImageUrls:
    """Owns the connections to other hosts, for the gateway's running time."""

    table: ClassVar[type[Struct] | None] = ImageUrlsTable

    def __init__(
        self,
        *,
        schemes: Sequence[str] = ("https",),
        rules: AddressRules | None = None,
    ) -> None:
        """Tests alone give arguments: they have no public host to ask."""
        self._schemes = schemes
        self._rules = rules or AddressRules(allow_private=False)
        self._session: aiohttp.ClientSession | None = None

    @hookimpl
    @asynccontextmanager
    async def lifespan(self, gateway: "Gateway") -> AsyncGenerator[None, None]:
        """Open the connections' pool, and close it."""
        async with self.running():
            yield

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """The same, for whoever has no gateway."""
        connector = aiohttp.TCPConnector(  # pyright: ignore[reportUnknownMemberType]
            limit=MAX_AT_ONCE, force_close=True, socket_factory=self._rules.open_socket
        )
        async with aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        ) as session:
            self._session = session
            try:
                yield
            finally:
                self._session = None

    @hookimpl
    async def fetch_image(self, call: Call, url: str) -> bytes | None:
        """The file at `url`. Raises `BadRequest` where it may not or cannot be had."""
        table = call.policy.table("image_urls", ImageUrlsTable)
        try:
            async with asyncio.timeout(table.timeout_seconds):
                return await self._fetched(url, table)
        # An address that is forbidden is an OSError.
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            log.info("image_not_fetched", host=_host_of(url), reason=str(error)[:200])
            raise _unreachable(url) from None

    async def _fetched(self, url: str, table: ImageUrlsTable) -> bytes:
        assert self._session is not None, "calls are served within the lifespan"
        target = URL(url)
        for _ in range(MAX_REDIRECTS + 1):
            self._check(target, table)
            async with self._session.get(
                target, headers=_HEADERS, allow_redirects=False
            ) as response:
                location = response.headers.get("location")
                if response.status in _REDIRECTS and location is not None:
                    target = target.join(URL(location))
                    continue
                if response.status != 200 or response.headers.get("content-encoding"):
                    raise ValueError(f"it answered with status {response.status}")
                return await _bounded(response, table.max_bytes)
        raise ValueError("it was redirected too often")

    def _check(self, url: URL, table: ImageUrlsTable) -> None:
        host = (url.host or "").lower().rstrip(".")
        if url.scheme not in self._schemes or not host or url.user or url.password:
            raise BadRequest(
                f"the image's address {_shown(url)} must be a plain {self._schemes[0]}:// URL",
                param="messages",
            )
        if not any(fnmatchcase(host, pattern.lower()) for pattern in table.hosts):
            raise BadRequest(
                f"images of host {host[:100]!r} are not fetched here; send the image itself, "
                "as data:image/png;base64,…",
                param="messages",
            )


async def _bounded(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    if (response.content_length or 0) > max_bytes:
        raise ValueError("it is too large")
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > max_bytes:
            raise ValueError("it is too large")
        chunks.append(chunk)
    return b"".join(chunks)


def _unreachable(url: str) -> BadRequest:
    return BadRequest(
        f"the image of host {_host_of(url)!r} could not be fetched; send the image itself, as "
        "data:image/png;base64,…",
        param="messages",
    )


def _host_of(url: str) -> str:
    try:
        return (URL(url).host or "")[:100]
    except ValueError:
        return ""


def _shown(url: URL) -> str:
    return ascii(f"{url.scheme}://{url.host or ''}")[1:-1][:100]
