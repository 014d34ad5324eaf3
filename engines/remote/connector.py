"""aiohttp's connection pool, with two things added.

Every address is checked when it is about to be connected to, and whoever asked
can find out whether the connection was a used one: only such a one may have been
closed by the other side before the request came.
"""

import ssl
from contextvars import ContextVar

import aiohttp
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from engines.remote.addresses import AddressRules
from engines.remote.config import RemoteConfig

KEEP_ALIVE_SECONDS = 30.0
NAME_SECONDS = 10  # how long a resolved name is remembered

_USED = "used_by_penstock"

# Whether the connection that the current task was given last had been used before.
was_used: ContextVar[bool] = ContextVar("was_used", default=False)


class UpstreamConnector(aiohttp.TCPConnector):
    """The connections to one upstream. Opens and closes with its session."""

    def __init__(self, config: RemoteConfig) -> None:
        rules = AddressRules(
            allow_private=config.allow_private, allow_networks=config.allow_networks
        )
        super().__init__(  # pyright: ignore[reportUnknownMemberType]
            limit=0,  # the engine counts requests, and refuses one too many at once
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            ttl_dns_cache=NAME_SECONDS,
            ssl=_tls_of(config),
            socket_factory=rules.open_socket,
        )

    @property
    def num_open(self) -> int:
        """Connections that are in use or kept for later."""
        return len(self._acquired) + sum(len(kept) for kept in self._conns.values())

    async def connect(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's own signature
    ) -> Connection:
        """A connection to send `req` on; `was_used` then says what kind of one it is."""
        connection = await super().connect(req, traces, timeout)
        marks = vars(connection.protocol)
        was_used.set(_USED in marks)
        marks[_USED] = True
        return connection


def _tls_of(config: RemoteConfig) -> ssl.SSLContext | bool:
    if not config.base_url.startswith("https:"):
        return True
    if not config.verify:
        return False
    return ssl.create_default_context(cafile=config.ca_file)
