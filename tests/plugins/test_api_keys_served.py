import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from structlog.testing import capture_logs

from gateway.keys import Keys, NewKey, open_pepper
from gateway.ledger import open_ledger
from gateway.settings import Settings
from tests.fakes import ScriptedEngine
from tests.serving import Server, scripted_gateway, serving, settings_in, write_policy

PLUGINS = 'plugins = ["access_log", "api_keys", "allow_lists", "defaults", "routing"]'
HEADERS = ["authorization", "x-api-key", "api-key"]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_in(tmp_path)


@pytest.fixture
def server(tmp_path: Path, settings: Settings) -> Iterator[Server]:
    directory = write_policy(tmp_path / "policy", {"gateway.toml": PLUGINS})
    engines = {"scripted": ScriptedEngine.saying("hello")}
    with serving(scripted_gateway(directory, engines, settings=settings)) as server:
        yield server


def made_elsewhere(settings: Settings, *names: str, revoked: tuple[str, ...] = ()) -> list[NewKey]:
    """Keys as another process makes and revokes them, on the same ledger."""

    async def made() -> list[NewKey]:
        async with (
            open_ledger(settings.ledger_url) as ledger,
            Keys(ledger, pepper=open_pepper(settings)) as keys,
        ):
            new = [await keys.create("me", name) for name in names]
            for key in new:
                if key.key.name in revoked:
                    await keys.revoke(key.key.id)
            return new

    return asyncio.run(made())


def models(server: Server, header: str | None = None, key: str = "") -> httpx.Response:
    value = f"Bearer {key}" if header == "authorization" else key
    headers = {header: value} if header else {}
    return httpx.get(f"{server.url}/v1/models", headers=headers)


def test_a_key_made_by_the_command_opens_a_running_gateway(
    server: Server, settings: Settings
) -> None:
    good, ended = made_elsewhere(settings, "good", "ended", revoked=("ended",))
    for header in HEADERS:
        answer = models(server, header, good.secret)
        assert (answer.status_code, answer.json()["object"]) == (200, "list")

        refused = [
            models(server, header, key)
            for key in (ended.secret, good.secret[:-1], good.secret.swapcase(), "sk-no-key")
        ]
        assert [answer.status_code for answer in refused] == [401] * 4
        assert {answer.json()["error"]["code"] for answer in refused} == {"invalid_api_key"}

    assert models(server).status_code == 401
    assert models(server, "x-api-key", good.secret).status_code == 200


def test_a_ledger_that_fails_is_a_503_that_may_be_tried_again(
    server: Server, settings: Settings
) -> None:
    [new] = made_elsewhere(settings, "laptop")
    with closing(sqlite3.connect(settings.data_dir / "ledger.db")) as database:
        database.execute("ALTER TABLE api_keys RENAME TO gone")
        down = models(server, "x-api-key", new.secret)
        database.execute("ALTER TABLE gone RENAME TO api_keys")

    assert (down.status_code, down.headers["retry-after"]) == (503, "1")
    assert "api_keys" not in down.text
    assert models(server, "x-api-key", new.secret).status_code == 200


def test_the_log_names_the_key_by_its_public_id_only(server: Server, settings: Settings) -> None:
    [new] = made_elsewhere(settings, "laptop")

    with capture_logs() as entries:
        models(server, "authorization", new.secret)
        models(server, "authorization", new.secret[:-1])
        server.wait_until(lambda: not server.gateway.calls)

    finished = [entry for entry in entries if entry["event"] == "call_finished"]
    assert [(e["status"], e.get("key"), e["team"]) for e in finished] == [
        (200, new.key.id, "me"),
        (401, None, "-"),
    ]
    assert new.secret.split("-")[3] not in repr(entries)


def test_the_last_use_is_in_the_ledger_when_the_gateway_has_stopped(
    tmp_path: Path, settings: Settings
) -> None:
    directory = write_policy(tmp_path / "policy", {"gateway.toml": PLUGINS})
    engines = {"scripted": ScriptedEngine.saying("hello")}
    with serving(scripted_gateway(directory, engines, settings=settings)) as server:
        [new] = made_elsewhere(settings, "laptop")
        models(server, "authorization", new.secret)

    with closing(sqlite3.connect(settings.data_dir / "ledger.db")) as database:
        [(used,)] = database.execute("SELECT last_used_at FROM api_keys").fetchall()
    assert used is not None
