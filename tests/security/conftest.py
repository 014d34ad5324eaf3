from collections.abc import Iterator

import httpx
import pytest

from gateway.listener import connection as listener_connection
from gateway.listener import server as listener_server
from tests.fakes import ScriptedEngine, Step
from tests.serving import (
    SCRIPTED_POLICY,
    Server,
    scripted_gateway,
    serving,
    settings_in,
    write_policy,
)

# Short enough for a test to wait for, long enough for a busy machine's honest clients.
HEADER_SECONDS = 1.0
BODY_SECONDS = 1.0
SEND_SECONDS = 1.0
MAX_CONNECTIONS = 40
LOGGING_TOO = 'plugins = ["access_log", '


class Stage:
    """A served gateway, what its engine says, and proof that it is well."""

    def __init__(self, server: Server, engine: ScriptedEngine, script: list[Step]) -> None:
        self.server = server
        self.engine = engine
        self.script = script

    @property
    def num_calls(self) -> int:
        """How many requests reached the engine."""
        return len(self.engine.requests)

    def check_health(self) -> None:
        """An ordinary client is served as ever."""
        answer = httpx.post(
            f"{self.server.url}/v1/chat/completions",
            json={"model": "chat-small", "messages": [{"role": "user", "content": "hi"}]},
            timeout=20,
        )
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["message"]["content"] == "hello there"


@pytest.fixture(scope="module")
def _stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("attacked")
    settings = settings_in(
        directory,
        header_seconds=HEADER_SECONDS,
        body_seconds=BODY_SECONDS,
        send_seconds=SEND_SECONDS,
        max_connections=MAX_CONNECTIONS,
    )
    script: list[Step] = []
    engine = ScriptedEngine(lambda _: list(script))
    logging = {"gateway.toml": SCRIPTED_POLICY["gateway.toml"].replace("plugins = [", LOGGING_TOO)}
    gateway = scripted_gateway(
        write_policy(directory / "policy", logging), {"scripted": engine}, settings=settings
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(listener_server, "CHECK_SECONDS", 0.05)
        patched.setattr(listener_connection, "LINGER_SECONDS", 1.0)
        with serving(gateway) as server:
            yield Stage(server, engine, script)


@pytest.fixture
def stage(_stage: Stage) -> Iterator[Stage]:
    """A gateway to be attacked. After every attack an ordinary client must be served."""
    _stage.script[:] = ["hello", " there"]
    _stage.engine.requests.clear()
    yield _stage
    _stage.script[:] = ["hello", " there"]
    _stage.check_health()
