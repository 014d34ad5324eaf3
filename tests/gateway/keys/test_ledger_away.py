"""A gateway whose database goes away: the keys that it knows, and those that were ended."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from gateway.gateway import Gateway
from gateway.keys import id_in
from gateway.keys.redis_invalidations import RedisInvalidations
from tests.fakes import ScriptedEngine
from tests.postgres_server import PostgresServer, postgres_server
from tests.redis_server import RedisServer, redis_server
from tests.serving import Server, scripted_gateway, serving, settings_in, write_policy

IMPATIENT = """
    plugins = ["anonymous", "api_keys", "allow_lists", "defaults", "routing"]
    [anonymous]
    team = "me"
    role = "admin"
    [api_keys]
    remember_seconds = 0
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@contextmanager
def served(
    directory: Path, cluster: PostgresServer, *, store: str = "memory:", **files: str
) -> Iterator[Server]:
    policy = write_policy(
        directory / "policy", {f"{name}.toml": text for name, text in files.items()}
    )
    settings = settings_in(directory, ledger=cluster.emptied_database(), store=store)
    gateway: Gateway = scripted_gateway(policy, {"scripted": ScriptedEngine()}, settings=settings)
    with serving(gateway) as server:
        yield server


class Caller:
    """A key, and calls with it from another machine, as far as `anonymous` can tell."""

    def __init__(self, server: Server) -> None:
        self._server = server
        made = self._admin("", {"team": "me", "name": "laptop"})
        self.secret: str = made.json()["secret"]

    def revoke(self) -> None:
        url = f"{self._server.url}/admin/keys/{id_in(self.secret)}"
        assert httpx.delete(url, timeout=30).json()["state"] == "revoked"

    def status(self) -> int:
        headers = {"x-api-key": self.secret, "x-forwarded-for": "192.0.2.1"}
        return httpx.get(f"{self._server.url}/v1/models", headers=headers, timeout=30).status_code

    def statuses(self) -> set[int]:
        return {self.status() for _ in range(20)}

    def _admin(self, path: str, body: object) -> httpx.Response:
        return httpx.post(f"{self._server.url}/admin/keys{path}", json=body, timeout=30)


@contextmanager
def away(cluster: PostgresServer, how: str) -> Iterator[None]:
    (cluster.pause if how == "frozen" else cluster.kill)()
    try:
        yield
    finally:
        (cluster.resume if how == "frozen" else cluster.start)()


@pytest.mark.parametrize("how", ["frozen", "killed"])
def test_a_known_key_is_served_while_the_database_is_away_and_a_revoked_one_is_not(
    tmp_path: Path, cluster: PostgresServer, how: str
) -> None:
    with served(tmp_path, cluster) as server:
        known, revoked, unused = Caller(server), Caller(server), Caller(server)
        assert (known.status(), revoked.status()) == (200, 200)
        revoked.revoke()
        assert revoked.status() == 401

        with away(cluster, how):
            assert known.statuses() == {200}
            # What is remembered of it is that it has ended, or nothing at all.
            assert revoked.statuses() <= {401, 503}
            assert unused.statuses() == {503}

        assert revoked.status() in (401, 503)


def test_a_policy_without_patience_takes_no_key_on_trust(
    tmp_path: Path, cluster: PostgresServer
) -> None:
    with served(tmp_path, cluster, gateway=IMPATIENT) as server:
        key = Caller(server)
        assert key.status() == 200
        with away(cluster, "killed"):
            # For a second at most the last answer counts as fresh.
            for _ in range(5000):
                if key.status() != 200:
                    break
            assert key.statuses() == {503}


def test_a_revocation_elsewhere_is_heard_by_redis_while_the_database_is_away(
    tmp_path: Path, cluster: PostgresServer, redis: RedisServer
) -> None:
    with served(tmp_path, cluster, store=redis.url) as server:
        key, other = Caller(server), Caller(server)
        assert (key.status(), other.status()) == (200, 200)

        with away(cluster, "killed"):
            assert key.status() == 200
            for _ in range(500):  # until the gateway listens
                asyncio.run(RedisInvalidations(redis.url).announce(id_in(key.secret)))
                if key.status() != 200:
                    break

            assert key.statuses() == {503}
            assert other.statuses() == {200}
