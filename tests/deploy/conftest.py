import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from gateway.cli import main
from tests.fakes import ScriptedEngine, Step
from tests.nginx_server import NginxServer, nginx_server
from tests.serving import (
    SCRIPTED_POLICY,
    Server,
    scripted_gateway,
    serving,
    settings_in,
    write_policy,
)

# As in policies/prod: nobody calls without a key.
KEYS_ONLY: Mapping[str, str] = {
    "gateway.toml": 'plugins = ["access_log", "api_keys", "allow_lists", "defaults", "routing"]',
    "teams.toml": SCRIPTED_POLICY["teams.toml"],
}


class Front:
    """nginx, the gateway behind it, and a key that may do everything."""

    def __init__(
        self,
        nginx: NginxServer,
        server: Server,
        engine: ScriptedEngine,
        key: str,
        script: list[Step],
    ) -> None:
        self.nginx = nginx
        self.server = server
        self.engine = engine
        self.key = key
        self.script = script
        self.headers = {"authorization": f"Bearer {key}"}

    def client(self, *, http2: bool = False) -> httpx.Client:
        """A client from outside."""
        return httpx.Client(
            base_url=self.nginx.url, verify=self.nginx.tls, http2=http2, timeout=30,
            headers=self.headers,
        )  # fmt: skip


def make_key(directory: Path) -> str:
    """An administrator's key of team `me` for the gateways of that policy and data."""
    environment = {
        "PENSTOCK_DATA_DIR": str(directory / "data"),
        "PENSTOCK_POLICY": str(directory / "policy"),
    }
    made = CliRunner().invoke(
        main,
        ["keys", "create", "--team", "me", "--name", "test", "--role", "admin", "--force"],
        env={**os.environ, **environment},
    )
    assert made.exit_code == 0, made.output
    return made.stdout.strip()


@pytest.fixture(scope="module")
def _front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    directory = tmp_path_factory.mktemp("front")
    script: list[Step] = []
    engine = ScriptedEngine(lambda _: list(script))
    gateway = scripted_gateway(
        write_policy(directory / "policy", KEYS_ONLY),
        {"scripted": engine},
        settings=settings_in(directory),
    )
    key = make_key(directory)
    with serving(gateway) as server, nginx_server([server.url.removeprefix("http://")]) as nginx:
        yield Front(nginx, server, engine, key, script)


@pytest.fixture
def front(_front: Front) -> Iterator[Front]:
    """The shipped nginx in front of one gateway."""
    _front.script[:] = ["hello", " there"]
    _front.engine.requests.clear()
    _front.engine.num_closed_early = 0
    return _front
