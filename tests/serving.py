"""Serves a gateway on a real socket, in a thread of the test's own process.

with serving(scripted_gateway(directory, {"scripted": engine})) as server:
    httpx.get(f"{server.url}/v1/models")
"""

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct

from engines.protocol import Engine
from gateway.app import app_of
from gateway.engine_registry import EngineSite
from gateway.gateway import Gateway
from gateway.hooks import hooks_of, installed_plugins, table_of
from gateway.listener import Connection, server_of
from gateway.listener import Server as ListeningServer
from gateway.policy import Policy
from gateway.policy.load import load_policy
from gateway.settings import Settings

Result = TypeVar("Result")

START_SECONDS = 60.0

# One engine, one model and its alias, one team of everybody on this machine.
SCRIPTED_POLICY: Mapping[str, str] = {
    "gateway.toml": """
        plugins = ["anonymous", "api_keys", "allow_lists", "defaults", "routing"]
        [anonymous]
        team = "me"
        role = "admin"
    """,
    "engines.toml": '[scripted]\nkind = "scripted"',
    "models.toml": """
        [chat-small]
        aliases = ["gpt-4o-mini"]
          [[chat-small.targets]]
          engine = "scripted"
          model  = "scripted-model"
    """,
    "teams.toml": '[me]\nmodels = ["*"]\nendpoints = ["*"]\nlimits = "none"',
    "limits.toml": "[none]",
}


class ScriptedConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The kind `scripted` has nothing to configure; the number only makes one differ."""

    number: int = 0


class Server:
    """A running gateway, seen from a test's thread."""

    def __init__(
        self, url: str, listening: ListeningServer, gateway: Gateway,
        loop: asyncio.AbstractEventLoop,
    ) -> None:  # fmt: skip
        self.url = url
        self.gateway = gateway
        self._listening = listening
        self._loop = loop

    def connections(self) -> list[Connection]:
        """The connections that are open now; to be called on the server's event loop."""
        return list(self._listening.server_state.connections)  # type: ignore[arg-type]

    def run(self, function: Callable[[], Result]) -> Result:
        """Call a function on the server's event loop, where the gateway's state lives."""

        async def called() -> Result:
            return function()

        return asyncio.run_coroutine_threadsafe(called(), self._loop).result(START_SECONDS)

    def wait_for(self, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """Await something on the server's event loop."""
        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(START_SECONDS)

    def wait_until(self, holds: Callable[[], bool]) -> None:
        """Return when `holds()` is true on the server's loop; fail after a while."""

        async def waiting() -> None:
            async with asyncio.timeout(10):
                while not holds():  # noqa: ASYNC110 - any state may be asked for
                    await asyncio.sleep(0)

        asyncio.run_coroutine_threadsafe(waiting(), self._loop).result(START_SECONDS)


def write_policy(directory: Path, files: Mapping[str, str] = SCRIPTED_POLICY) -> Path:
    """Write a policy directory; `files` replaces files of the scripted one."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in {**SCRIPTED_POLICY, **files}.items():
        (directory / name).write_text(text)
    return directory


def scripted_gateway(
    directory: Path, engines: Mapping[str, Engine], *, settings: Settings | None = None
) -> Gateway:
    """A gateway of the policy in `directory`, whose engines of kind `scripted` are these."""
    gateway = Gateway(settings or settings_in(directory.parent), read_scripted(directory))
    gateway.read_policy = read_scripted

    def build(name: str, config: object, site: EngineSite) -> Engine:
        return engines[name]

    gateway.registry.add("scripted", config=ScriptedConfig, build=build)
    return gateway


def read_scripted(directory: Path) -> Policy:
    """The policy in `directory`, which may have engines of kind `scripted`."""
    plugins = installed_plugins()
    return load_policy(
        directory,
        plugin_tables={name: table_of(plugin) for name, plugin in plugins.items()},
        engine_configs={"scripted": ScriptedConfig},
        hooks_of={name: hooks_of(plugin) for name, plugin in plugins.items()},
    )


def settings_in(directory: Path, **changes: object) -> Settings:
    """Settings whose files are all under `directory`."""
    data_dir = directory / "data"
    data_dir.mkdir(exist_ok=True)
    return Settings(data_dir=data_dir, models_dir=directory / "models", **changes)  # type: ignore[arg-type]


@contextmanager
def serving(gateway: Gateway) -> Iterator[Server]:
    """Serve until the block ends, on a free port of loopback."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = server_of(app_of(gateway))
    ready = threading.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    def on_ready() -> None:
        loops.append(asyncio.get_running_loop())
        ready.set()

    def run() -> None:
        try:
            server.run(sockets=[listener])
        finally:
            ready.set()

    gateway.on_ready.append(on_ready)
    thread = threading.Thread(target=run, name="serving")
    thread.start()
    try:
        if not ready.wait(START_SECONDS) or not loops:
            raise RuntimeError(f"the gateway did not start: {gateway.failure}")
        yield Server(f"http://127.0.0.1:{listener.getsockname()[1]}", server, gateway, loops[0])
    finally:
        server.should_exit = True
        thread.join(START_SECONDS)
        listener.close()
