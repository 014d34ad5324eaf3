import asyncio
import socket
from collections.abc import Iterator

import pytest

from engines.remote import reachability
from engines.remote.engine import RemoteEngine
from tests.engines.remote.conftest import Build, events_of, relaying, until
from tests.upstream import Upstream

BODY = b'{"model":"public","messages":[{"role":"user","content":"hi"}]}'


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reachability, "FRESH_SECONDS", 0.0)


class Port:
    """A port that takes connections when it is told to; nothing answers there."""

    def __init__(self) -> None:
        self._held = socket.socket()
        self._held.bind(("127.0.0.1", 0))
        self.base_url = f"http://127.0.0.1:{self._held.getsockname()[1]}/v1"

    def listen(self) -> None:
        self._held.listen()

    def close(self) -> None:
        self._held.close()


@pytest.fixture
def port() -> Iterator[Port]:
    port = Port()
    yield port
    port.close()


async def detail(engine: RemoteEngine) -> str:
    health = await engine.health()
    assert health.ready is not bool(health.detail)
    return health.detail


async def test_an_upstream_that_takes_connections_is_ready_and_is_asked_nothing(
    engine: RemoteEngine, upstream: Upstream
) -> None:
    assert await detail(engine) == ""

    await until(upstream, lambda: upstream.num_open == 0)
    assert upstream.num_accepted == 1
    assert upstream.requests == []
    assert engine.num_connections == 0


async def test_one_that_nobody_asks_is_found_out_when_it_is_gone_and_when_it_is_back(
    build: Build, port: Port
) -> None:
    engine = build(base_url=port.base_url)
    await engine.start()

    assert await detail(engine) == "the upstream cannot be connected to"
    port.listen()
    assert await detail(engine) == ""


async def test_an_open_connection_tells_enough(engine: RemoteEngine, upstream: Upstream) -> None:
    await events_of(engine, relaying(BODY))

    for _ in range(5):
        assert await detail(engine) == ""

    assert upstream.num_accepted == 1


async def test_however_many_look_there_is_one_connection_at_a_time_and_a_last_answer(
    build: Build, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reachability, "FRESH_SECONDS", 3600.0)
    engine = build()
    await engine.start()

    assert await asyncio.gather(*(detail(engine) for _ in range(50))) == [""] * 50
    assert await detail(engine) == ""

    assert upstream.num_accepted == 1


async def test_nobody_waits_for_a_connection_that_does_not_come(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reachability, "PATIENCE_SECONDS", 0.01)
    engine = build()
    await engine.start()
    connections = engine._upstream._connections
    assert connections is not None
    monkeypatch.setattr(connections, "try_one", asyncio.Event().wait)

    assert await detail(engine) == ""
    await engine.close()
    assert await detail(engine) == "closed"
