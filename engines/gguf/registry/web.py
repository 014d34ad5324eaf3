"""Asks other machines over HTTP, and believes little of what they answer.

Redirects are followed by hand: at most five, never from https to http, and
credentials go to the host that they were meant for and to no other, also when a
chain of redirects leads back to it. Bodies are read up to a bound.
"""

import asyncio
import contextlib
import random
import urllib.request
from collections.abc import AsyncGenerator, Mapping
from io import BytesIO
from types import TracebackType

import aiohttp
from msgspec import Struct
from yarl import URL

from engines.errors import EngineError, ModelNotFound, RequestRefused, Unavailable

MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_MAX_EXCERPT_BYTES = 2000
_SMALL_BODY_SECONDS = 60.0
_USER_AGENT = "penstock"


class Patience(Struct, frozen=True, kw_only=True):
    """How long to wait for what does not come, and how often to ask again."""

    connect_seconds: float = 10.0
    stall_seconds: float = 30.0  # without a byte
    max_failures: int = 6  # in a row, without a byte in between
    first_delay_seconds: float = 0.5
    max_delay_seconds: float = 16.0

    def delay(self, num_failures: int) -> float:
        """Seconds to wait after so many failures in a row, jittered down to the half."""
        doubled = self.first_delay_seconds * 2.0 ** min(num_failures - 1, 16)
        return min(doubled, self.max_delay_seconds) * random.uniform(0.5, 1.0)


class Broken(Exception):
    """A connection that failed or stalled, or a server that may do better next time."""


class Refused(Exception):
    """An answer with a status that will stay as it is."""

    def __init__(self, url: URL, status: int, headers: Mapping[str, str], excerpt: str) -> None:
        super().__init__(f"{url.host} answers {status} {excerpt}".rstrip())
        self.url = url
        self.status = status
        self.headers = headers
        self.excerpt = excerpt


class Asked(Struct, frozen=True, kw_only=True):
    """One request; `credentials` is an `Authorization` for the URL's own host alone."""

    url: URL
    method: str = "GET"
    headers: Mapping[str, str] = {}
    credentials: str | None = None
    body: bytes | None = None


class Web:
    """One session, opened and closed with `async with`; used on one event loop."""

    def __init__(self, patience: Patience) -> None:
        self.patience = patience
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "Web":
        timeout = aiohttp.ClientTimeout(
            total=None,
            sock_connect=self.patience.connect_seconds,
            sock_read=self.patience.stall_seconds,
        )
        self._session = aiohttp.ClientSession(
            timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()

    @contextlib.asynccontextmanager
    async def open(self, asked: Asked) -> AsyncGenerator[aiohttp.ClientResponse]:
        """The answer, if its status is good. Raises `Broken` and `Refused`."""
        try:
            response = await self._answer(asked)
        except aiohttp.ClientConnectorSSLError as error:
            reason = error.os_error.strerror or _reason(error)
            raise Unavailable(
                f"{asked.url.host} does not answer in TLS ({reason}): write http:// before the "
                "name of a registry that speaks plain http"
            ) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Broken(f"{asked.url.host} cannot be reached: {_reason(error)}") from None
        try:
            if response.status >= 300:
                raise await _failure(response)
            yield response
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Broken(f"{response.url.host} broke off: {_reason(error)}") from None
        finally:
            # Not released to be used again: what is left of a body may have no end.
            response.close()

    async def small(self, asked: Asked, *, max_bytes: int) -> tuple[bytes, Mapping[str, str]]:
        """A whole body and its headers, asked for again while it is `Broken`.

        Raises `Refused`, and `Unavailable` for what is too long or does not come."""
        num_failures = 0
        while True:
            try:
                async with asyncio.timeout(_SMALL_BODY_SECONDS), self.open(asked) as response:
                    return await _bounded(response, max_bytes), response.headers
            except (Broken, TimeoutError) as error:
                num_failures += 1
                if num_failures >= self.patience.max_failures:
                    raise Unavailable(str(error) or f"{asked.url.host} takes too long") from None
                await asyncio.sleep(self.patience.delay(num_failures))

    async def _answer(self, asked: Asked) -> aiohttp.ClientResponse:
        assert self._session is not None, "used outside of `async with`"
        url, credentials = asked.url, asked.credentials
        for _ in range(MAX_REDIRECTS + 1):
            headers = {"Accept-Encoding": "identity", "User-Agent": _USER_AGENT, **asked.headers}
            if credentials is not None:
                headers["Authorization"] = credentials
            response = await self._session.request(
                asked.method,
                url,
                headers=headers,
                data=_sent(asked.body),
                allow_redirects=False,
                proxy=_proxy(url),
            )
            if response.status not in _REDIRECTS or asked.method not in ("GET", "HEAD"):
                return response
            response.close()
            before, url = url, _next(url, response.headers.get("Location", ""))
            if before.origin() != url.origin():
                credentials = None
        raise Unavailable(f"{asked.url.host} redirects more than {MAX_REDIRECTS} times")


def checked_url(text: str) -> URL:
    """A URL that may be asked: http or https, with a host and no credentials in it."""
    try:
        url = URL(text)
    except ValueError as error:
        raise RequestRefused(f"{text!r:.200} is not a URL: {error}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise RequestRefused(f"{text!r:.200} is not an http or https URL")
    if url.user is not None or url.password is not None:
        raise RequestRefused(f"the URL of {url.host} has credentials in it, which logs would show")
    return url


def explained(error: Refused, name: str, whose: str) -> EngineError:
    """What a caller is told about a model that could not be had because of a status."""
    if error.status == 404:
        return ModelNotFound(name, f"{whose} has no model {name!r:.200}")
    if error.status in (401, 403):
        return RequestRefused(
            f"{whose} does not give us {name!r:.200} ({error.status}): the name may be wrong, or "
            "credentials are missing, see docs/models.md#credentials",
            param="model",
        )
    return Unavailable(str(error))


def _sent(body: bytes | None) -> BytesIO | bytes | None:
    """A body for one attempt: what was read to its end by another would be empty.

    aiohttp wants long ones as a file, and this copies none."""
    return BytesIO(body) if body else body


def _next(url: URL, location: str) -> URL:
    try:
        found = checked_url(str(url.join(URL(location))) if location else "")
    except (ValueError, RequestRefused):
        raise Unavailable(f"{url.host} redirects to {location!r:.200}, which is no URL") from None
    if url.scheme == "https" and found.scheme != "https":
        raise Unavailable(f"{url.host} redirects from https to {found.scheme}, which is not safe")
    return found


async def _failure(response: aiohttp.ClientResponse) -> Exception:
    excerpt = (await response.content.read(_MAX_EXCERPT_BYTES)).decode("utf-8", "replace")
    shown = "".join(letter if letter.isprintable() else " " for letter in excerpt)[:200].strip()
    if response.status in _TRY_AGAIN:
        return Broken(f"{response.url.host} answers {response.status} {shown}".rstrip())
    return Refused(response.url, response.status, response.headers, shown)


async def _bounded(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    content = bytearray()
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > max_bytes:
            raise Unavailable(f"{response.url.host} sends more than {max_bytes} bytes")
    return bytes(content)


def _proxy(url: URL) -> str | None:
    if url.host is None or urllib.request.proxy_bypass(url.host):
        return None
    return urllib.request.getproxies().get(url.scheme)


def _reason(error: BaseException) -> str:
    return (str(error) or type(error).__name__).split("\n", 1)[0][:300]
