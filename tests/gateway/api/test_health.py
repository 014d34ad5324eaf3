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


class Elsewhere(Moody):
    """An engine that passes calls on to another server."""

    def relays(self, dialect: str, method: str, path: str) -> bool:
        return False


TWENTY = """
[of-a]
targets = [{ engine = "a" }]
[of-b]
targets = [{ engine = "b" }]
[of-both]
targets = [{ engine = "a" }, { engine = "b" }]
[local]
targets = [{ engine = "gpu" }]
[local-or-b]
targets = [{ engine = "gpu2" }]
fallbacks = [{ engine = "b" }]
[local-when-full]
targets = [{ engine = "gpu3" }]
fallbacks = [{ engine = "b", on = ["overloaded"] }]
[tried-out]
targets = [{ engine = "a" }, { engine = "new", canary = { percent = 1 } }]
[taken-out]
targets = [{ engine = "a" }, { engine = "old", drain = true }]
"""
NAMES = {"a": Elsewhere, "b": Elsewhere} | dict.fromkeys(
    ("gpu", "gpu2", "gpu3", "new", "old"), Moody
)


@pytest.mark.parametrize(
    ("ill", "status"),
    [
        (["a"], 200),  # other gateways have the same upstream
        (["a", "b"], 200),
        (["gpu"], 503),  # another gateway may have one that works
        (["gpu2"], 200),
        (["gpu2", "b"], 503),
        (["gpu3"], 503),
        (["new", "old"], 200),  # nobody's calls wait for these
        ([*NAMES], 503),
    ],
    ids=str,
)
def test_a_gateway_is_not_ready_for_what_is_its_own(
    tmp_path: Path, ill: list[str], status: int
) -> None:
    engines = {name: kind(name=name) for name, kind in NAMES.items()}
    tables = "".join(f'[{name}]\nkind = "scripted"\n' for name in NAMES)
    policy = write_policy(tmp_path / "policy", {"models.toml": TWENTY, "engines.toml": tables})
    for name in ill:
        engines[name].is_ill = True

    with serving(scripted_gateway(policy, engines)) as server:
        answer = httpx.get(f"{server.url}/readyz")

    assert answer.status_code == status
    assert {name for name, told in answer.json()["engines"].items() if told != "ready"} == {*ill}


def test_without_any_upstream_the_fault_may_be_this_machines(tmp_path: Path) -> None:
    engines = {"a": Elsewhere(name="a"), "b": Elsewhere(name="b")}
    models = '[m]\ntargets = [{ engine = "a" }, { engine = "b" }]\n'
    tables = "".join(f'[{name}]\nkind = "scripted"\n' for name in engines)
    policy = write_policy(tmp_path / "policy", {"models.toml": models, "engines.toml": tables})
    with serving(scripted_gateway(policy, engines)) as server:
        for engine, status in (engines["a"], 200), (engines["b"], 503):
            engine.is_ill = True
            assert httpx.get(f"{server.url}/readyz").status_code == status
