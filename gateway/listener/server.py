"""The server: uvicorn's, with connections that are looked after and an orderly end."""

import asyncio
import contextlib
import math
import os
import socket
import time
from collections.abc import Sequence
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

import uvicorn

from gateway.listener.connection import Connection, ConnectionLimits

if TYPE_CHECKING:
    from gateway.app import Listeners
    from gateway.gateway import Gateway

CHECK_SECONDS = 1.0
# The gateway ends what is left after `drain_seconds`; this is for what does not end then.
GRACE_SECONDS = 5
# How long an error event has to get out after a second signal.
LAST_WORDS_SECONDS = 1.0
MAX_OPEN_FILES = 65536


class Server(uvicorn.Server):
    """Serves until it is told to stop: once to drain, twice to end calls now, thrice to be gone."""

    def __init__(self, config: uvicorn.Config, gateway: "Gateway") -> None:
        super().__init__(config)
        self._gateway = gateway
        self._loop: asyncio.AbstractEventLoop | None = None
        self._checking: asyncio.Task[None] | None = None
        self._num_signals = 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, then listen."""
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        self._checking = asyncio.create_task(self._check_connections())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen no more, and wait for the calls that run."""
        try:
            await super().shutdown(sockets)
        finally:
            if self._checking is not None:
                self._checking.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """What a signal does. uvicorn would also raise it again, and a clean end would fail."""
        self._num_signals += 1
        self.should_exit = True
        if self._num_signals == 1:
            self._gateway.begin_drain()
        elif self._num_signals == 2 and self._loop is not None:
            self._gateway.end_calls()
            self._loop.call_soon_threadsafe(
                self._loop.call_later, LAST_WORDS_SECONDS, self._abort_connections
            )
        else:
            # What hangs here is native code, a model that loads: nothing else stops it.
            os._exit(128 + sig)

    async def _check_connections(self) -> None:
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            now = time.monotonic()
            for connection in self._open_connections():
                connection.check(now)

    def _abort_connections(self) -> None:
        for connection in self._open_connections():
            connection.transport.abort()

    def _open_connections(self) -> Sequence[Connection]:
        return cast("list[Connection]", list(self.server_state.connections))


def server_of(app: "Listeners") -> Server:
    """A server for the application of a gateway, with the limits of its settings."""
    gateway: Gateway = app.state.gateway
    settings = gateway.settings
    limits = ConnectionLimits(
        max_connections=settings.max_connections,
        header_seconds=settings.header_seconds,
        send_seconds=settings.send_seconds,
    )
    config = uvicorn.Config(
        cast(Any, app),
        http=cast(Any, partial(Connection, limits=limits)),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_keep_alive=math.ceil(settings.keep_alive_seconds),
        timeout_graceful_shutdown=math.ceil(settings.drain_seconds) + GRACE_SECONDS,
        # Litestar reads no proxy headers; which proxies to believe is policy.
        proxy_headers=False,
    )
    return Server(config, gateway)


def allow_open_files() -> None:
    """Let this process have as many connections as the machine allows; shells say 1024."""
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # a sandbox may forbid even this
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
