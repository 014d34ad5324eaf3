"""What /healthz and /readyz depend on, and what not."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from engines.protocol import Health
from gateway.api import health
from tests.fakes import FakeLedger, ScriptedEngine
from tests.serving import Server, scripted_gateway, serving, write_policy


class Moody(ScriptedEngine):
    """An engine whose health can be made bad, or never known."""

    hangs = False
    is_ill = False

    async def health(self) -> Health:
        if self.hangs:
            await asyncio.Event().wait()
        return Health(ready=not self.is_ill)


@pytest.fixture
def engine() -> Moody:
    return Moody()


@pytest.fixture
def server(tmp_path: Path, engine: Moody) -> Iterator[Server]:
    gateway = scripted_gateway(write_policy(tmp_path / "policy"), {"scripted": engine})
    with serving(gateway) as server:
        yield server


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_neither_asks_the_ledger(server: Server, path: str) -> None:
    ledger = FakeLedger()
    ledger.is_down = True
    server.gateway._ledger = ledger  # type: ignore[assignment]

    answer = httpx.get(server.url + path, headers={"authorization": "Bearer sk-penstock-x"})

    assert answer.status_code == 200
    assert ledger.reads == 0


def test_an_engine_that_is_ill_is_named_and_the_process_is_alive(
    server: Server, engine: Moody
) -> None:
    engine.is_ill = True

    ready = httpx.get(f"{server.url}/readyz")

    assert ready.status_code == 503
    assert ready.json() == {"status": "unavailable", "engines": {"scripted": "not ready"}}
    assert httpx.get(f"{server.url}/healthz").status_code == 200


def test_an_engine_that_does_not_answer_is_not_ready(
    server: Server, engine: Moody, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "PATIENCE_SECONDS", 0.05)
    engine.hangs = True

    assert httpx.get(f"{server.url}/readyz", timeout=20).status_code == 503


def test_a_gateway_that_drains_is_not_ready_and_is_alive(server: Server) -> None:
    server.gateway.begin_drain()
    server.wait_until(lambda: not server.gateway.ready)

    assert httpx.get(f"{server.url}/readyz").status_code == 503
    assert httpx.get(f"{server.url}/healthz").status_code == 200
