"""A gateway that starts while its database is away: whom it serves, and what it does later."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gateway.gateway import Gateway
from gateway.keys import Keys, open_pepper
from gateway.ledger import LedgerAway, LedgerNotOpened, UsageQuery, open_ledger
from gateway.settings import Settings
from tests.fakes import ScriptedEngine
from tests.postgres_server import PostgresServer, postgres_server
from tests.serving import (
    SCRIPTED_POLICY,
    Server,
    scripted_gateway,
    serving,
    settings_in,
    write_policy,
)

SAY = {"model": "chat-small", "messages": [{"role": "user", "content": "hi"}]}
PLUGINS = SCRIPTED_POLICY["gateway.toml"].replace('["anonymous",', '["usage", "anonymous",')
WITHOUT_KEYS = PLUGINS.replace('"api_keys", ', "")


@pytest.fixture(scope="module")
def cluster() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture
def settings(cluster: PostgresServer, tmp_path: Path) -> Settings:
    return settings_in(tmp_path, ledger=cluster.emptied_database())


def gateway_of(settings: Settings, plugins: str = PLUGINS) -> Gateway:
    directory = write_policy(settings.data_dir.parent / "policy", {"gateway.toml": plugins})
    return scripted_gateway(directory, {"scripted": ScriptedEngine()}, settings=settings)


def key_in(settings: Settings) -> str:
    async def made() -> str:
        async with (
            open_ledger(settings.ledger_url) as ledger,
            Keys(ledger, pepper=open_pepper(settings)) as keys,
        ):
            return (await keys.create("me", "laptop")).secret

    return asyncio.run(made())


def num_recorded(settings: Settings) -> int:
    async def read() -> int:
        async with open_ledger(settings.ledger_url) as ledger:
            return len(await ledger.usage.calls(UsageQuery(limit=1000)))

    return asyncio.run(read())


def ask(server: Server, key: str = "") -> httpx.Response:
    # A forwarded call is not from this machine, so the key alone counts.
    headers = {"x-api-key": key, "x-forwarded-for": "192.0.2.1"} if key else {}
    url = f"{server.url}/v1/chat/completions"
    return httpx.post(url, json=SAY, headers=headers, timeout=30)


def until_told(server: Server, key: str) -> int:
    """What the key is worth, as soon as that can be told."""
    for _ in range(2000):
        if (status := ask(server, key).status_code) != 503:
            return status
    pytest.fail("nobody ever knows the key")


def ready(server: Server) -> httpx.Response:
    return httpx.get(f"{server.url}/readyz", timeout=30)


def test_whom_no_key_is_asked_of_is_served_and_keys_are_as_soon_as_it_is_back(
    cluster: PostgresServer, settings: Settings
) -> None:
    key = key_in(settings)
    cluster.stop()
    try:
        with serving(gateway_of(settings)) as server:
            anonymous, with_key = ask(server), ask(server, key)
            unready = ready(server)
            cluster.start()
            server.wait_until(lambda: server.gateway.ledger.was_opened)

            assert anonymous.status_code == 200
            assert with_key.status_code == 503  # it may be good or bad: not 401, and not 200
            assert with_key.headers["retry-after"] == "1"
            assert unready.status_code == 503
            assert unready.json()["ledger"] == "not opened yet"
            assert until_told(server, key) == 200
            assert ask(server, key[:-1] + "!").status_code == 401
            assert (ready(server).status_code, "ledger" in ready(server).text) == (200, False)
            server.wait_until(lambda: server.gateway.usage.report().written == 2)
    finally:
        cluster.stop()
        cluster.start()
    assert num_recorded(settings) == 2


def test_a_policy_without_keys_is_ready_at_once(
    cluster: PostgresServer, settings: Settings
) -> None:
    cluster.stop()
    try:
        with serving(gateway_of(settings, WITHOUT_KEYS)) as server:
            assert ready(server).status_code == 200
            assert ask(server).status_code == 200
    finally:
        cluster.start()


def test_the_schema_is_made_by_whoever_first_finds_the_database(
    cluster: PostgresServer, settings: Settings
) -> None:
    cluster.stop()
    with serving(gateway_of(settings)) as server:
        cluster.start()
        server.wait_until(lambda: server.gateway.ledger.was_opened)
        made = httpx.post(
            f"{server.url}/admin/keys", json={"team": "me", "name": "first"}, timeout=30
        )
        assert made.status_code == 201
        assert until_told(server, made.json()["secret"]) == 200


async def test_what_waiting_does_not_mend_keeps_a_gateway_from_starting(
    cluster: PostgresServer, settings: Settings
) -> None:
    cluster.ask("postgres", "CREATE TABLE alembic_version (version_num varchar(32) NOT NULL)")
    cluster.ask("postgres", "INSERT INTO alembic_version VALUES ('9999')")
    for wrong in (
        Settings(data_dir=settings.data_dir, ledger=cluster.url("nowhere")),
        settings,  # a newer Penstock's
    ):
        with pytest.raises(LedgerNotOpened) as refused:
            async with gateway_of(wrong).running():
                pass
        assert refused.type is LedgerNotOpened


async def test_a_command_does_not_wait_for_a_database(tmp_path: Path) -> None:
    nobody = f"postgresql://penstock@/postgres?host={tmp_path}"
    with pytest.raises(LedgerAway, match="cannot be opened"):
        async with open_ledger(nobody):
            pass
