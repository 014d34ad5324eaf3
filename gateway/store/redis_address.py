"""Where a Redis is and how to get in: what a `redis://` URL says.

redis://[user:password@]host[:port][/database], rediss:// for TLS, and
unix:///path/to/socket[?db=0]. `?timeout_seconds=0.05` changes how long a call
waits for an answer.
"""

import asyncio
import ssl
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from msgspec import Struct

from gateway.store.redis_wire import RedisLink

DEFAULT_PORT = 6379
TIMEOUT_SECONDS = 0.1
SCHEMES = ("redis", "rediss", "unix")
_OPTIONS = ("db", "timeout_seconds")


class StoreNotOpened(ValueError):
    """The store's URL cannot be used; the message names it, without its password."""


class RedisAddress(Struct, frozen=True, kw_only=True):
    """One Redis. Either `path` (a Unix socket) or `host` and `port`."""

    host: str = "localhost"
    port: int = DEFAULT_PORT
    path: str = ""
    tls: bool = False
    user: str = ""
    password: str = ""
    database: int = 0
    timeout_seconds: float = TIMEOUT_SECONDS

    def __str__(self) -> str:
        """For logs: no user, no password."""
        return self.path or f"{self.host}:{self.port}"

    async def connect(self) -> RedisLink:
        """A connection that is logged in. Raises `OSError` and what `RedisLink.send` raises."""
        loop = asyncio.get_running_loop()
        if self.path:
            _, link = await loop.create_unix_connection(RedisLink, self.path)
        else:
            context = ssl.create_default_context() if self.tls else None
            _, link = await loop.create_connection(RedisLink, self.host, self.port, ssl=context)
        try:
            await self._log_in(link)
        except BaseException:
            link.close()
            raise
        return link

    async def _log_in(self, link: RedisLink) -> None:
        if self.password:
            names = [self.user.encode()] if self.user else []
            await self._ask(link, b"AUTH", *names, self.password.encode())
        if self.database:
            await self._ask(link, b"SELECT", str(self.database).encode())
        # Accepting is the kernel's doing; only an answer says that Redis is there.
        await self._ask(link, b"PING")

    async def _ask(self, link: RedisLink, *parts: bytes) -> None:
        await link.send(*parts, timeout=self.timeout_seconds)


def parse_redis_url(url: str) -> RedisAddress:
    """The address in a URL. Raises `StoreNotOpened`."""
    try:
        parts = urlsplit(url)
        options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        unknown = sorted(set(options) - set(_OPTIONS))
        if unknown:
            raise ValueError(f"unknown option {unknown[0]!r} (there are: {', '.join(_OPTIONS)})")
        place: dict[str, Any] = (
            {"path": unquote(parts.path)}
            if parts.scheme == "unix"
            else {
                "host": parts.hostname or "localhost",
                "port": parts.port or DEFAULT_PORT,
                "tls": parts.scheme == "rediss",
            }
        )
        database = options.get("db") or ("" if "path" in place else parts.path.strip("/"))
        timeout = float(options.get("timeout_seconds", TIMEOUT_SECONDS))
        if not 0 < timeout <= 10:
            raise ValueError("timeout_seconds is over 0 and at most 10")
        return RedisAddress(
            **place,
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            database=int(database or 0),
            timeout_seconds=timeout,
        )
    except ValueError as error:
        raise StoreNotOpened(f"PENSTOCK_STORE={without_password(url)!r}: {error}") from None


def without_password(url: str) -> str:
    """The URL as it may be shown."""
    scheme, mark, rest = url.partition("://")
    return f"{scheme}{mark}***@{rest.rpartition('@')[2]}" if "@" in rest else url
