"""Opens connections to one upstream: its name is resolved, its addresses are checked and tried.

Every address is checked when it is about to be connected to. Addresses are tried a
moment apart and the first that answers is taken (RFC 8305, aiohappyeyeballs).
"""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from socket import AI_ADDRCONFIG, AI_NUMERICHOST, IPPROTO_TCP, SOCK_STREAM, gaierror, getaddrinfo
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from aiohappyeyeballs import start_connection  # pyright: ignore[reportUnknownVariableType]

from engines.remote.addresses import AddressRules
from engines.remote.config import RemoteConfig
from engines.remote.connection import Connection
from engines.remote.failures import (
    CertificateRefused,
    ConnectedTooLate,
    NameUnknown,
    NotConnected,
)

NAME_SECONDS = 10.0  # how long a resolved name is remembered
NEXT_ADDRESS_SECONDS = 0.25  # until another address is tried beside one that does not answer

# As getaddrinfo has them: family, kind, protocol, canonical name, where.
Places = Sequence[tuple[Any, Any, int, str, Any]]


class Connector:
    """The event loop owns it. Raises `OSError` where the certificates to trust cannot be read."""

    def __init__(self, config: RemoteConfig) -> None:
        parts = urlsplit(config.base_url)
        assert parts.hostname is not None, "the configuration has checked it"
        self._host = parts.hostname.rstrip(".")
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._seconds = min(config.connect_seconds, config.total_seconds)
        self._tls = _tls_of(config)
        self._rules = AddressRules(
            allow_private=config.allow_private, allow_networks=config.allow_networks
        )
        self._places: Places = ()
        self._placed_at = 0.0
        self._resolving: asyncio.Task[Places] | None = None

    async def connect(self, when_gone: Callable[[Connection], None]) -> Connection:
        """A new connection. Raises `ConnectionFailure`."""
        try:
            async with asyncio.timeout(self._seconds):
                return await self._connect(when_gone)
        except TimeoutError as error:
            raise ConnectedTooLate(str(error)) from None
        except ssl.SSLCertVerificationError as error:
            raise CertificateRefused(str(error)) from None
        except gaierror as error:
            raise NameUnknown(str(error)) from None
        except (OSError, RuntimeError) as error:  # uvloop has RuntimeErrors for some sockets
            raise NotConnected(str(error)) from None

    def close(self) -> None:
        """Stop asking for names; idempotent."""
        if self._resolving is not None:
            self._resolving.cancel()

    async def _connect(self, when_gone: Callable[[Connection], None]) -> Connection:
        loop = asyncio.get_running_loop()
        opened = await start_connection(
            await self._resolved(),
            happy_eyeballs_delay=NEXT_ADDRESS_SECONDS,
            interleave=1,
            socket_factory=self._rules.open_socket,
        )
        try:
            _, connection = await loop.create_connection(
                lambda: Connection(when_gone),
                sock=opened,
                ssl=self._tls,
                server_hostname=self._host if self._tls is not None else None,
            )
        except BaseException:
            opened.close()
            raise
        return connection

    async def _resolved(self) -> Places:
        """The addresses of the host, asked for once however many wait for them."""
        if self._places and monotonic() - self._placed_at < NAME_SECONDS:
            return self._places
        try:
            return getaddrinfo(
                self._host, self._port, type=SOCK_STREAM, proto=IPPROTO_TCP, flags=AI_NUMERICHOST
            )
        except gaierror:
            pass  # it is a name
        if self._resolving is None:
            self._resolving = asyncio.create_task(self._resolve())
            self._resolving.add_done_callback(self._forget)
        return await asyncio.shield(self._resolving)

    async def _resolve(self) -> Places:
        loop = asyncio.get_running_loop()
        self._places = await loop.getaddrinfo(
            self._host, self._port, type=SOCK_STREAM, proto=IPPROTO_TCP, flags=AI_ADDRCONFIG
        )
        self._placed_at = monotonic()
        return self._places

    def _forget(self, task: asyncio.Task[Places]) -> None:
        self._resolving = None
        if not task.cancelled():
            task.exception()  # those who waited were told; if they left, nobody has to be


def _tls_of(config: RemoteConfig) -> ssl.SSLContext | None:
    if not config.base_url.lower().startswith("https:"):
        return None
    context = ssl.create_default_context(cafile=config.ca_file)
    if not config.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context
