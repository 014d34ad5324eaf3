"""A served gateway with its admin API, whose engine plays what the test puts on."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.gateway import Gateway
from tests.fakes import ScriptedEngine
from tests.serving import (
    SCRIPTED_POLICY,
    Server,
    scripted_gateway,
    serving,
    settings_in,
    write_policy,
)

PLUGINS = SCRIPTED_POLICY["gateway.toml"].replace('["anonymous",', '["usage", "anonymous",')
TEAMS = """
[me]
models = ["*"]
endpoints = ["*"]
limits = "none"

[search]
models = ["chat-*"]
endpoints = ["openai.*"]
"""


class Stage:
    def __init__(self, server: Server, engine: ScriptedEngine, script: list[Any]) -> None:
        self.server = server
        self.gateway: Gateway = server.gateway
        self.engine = engine
        self.script = script
        self.client = httpx.Client(base_url=server.url, timeout=20)

    def get(self, path: str, **query: object) -> httpx.Response:
        return self.client.get(f"/admin/{path}", params=query)  # type: ignore[arg-type]

    def post(self, path: str, body: object = None, **options: Any) -> httpx.Response:
        content = {} if body is None else {"json": body}
        return self.client.post(f"/admin/{path}", **content, **options)

    def delete(self, path: str) -> httpx.Response:
        return self.client.delete(f"/admin/{path}")

    def ask(self, **fields: object) -> httpx.Response:
        body = {"model": "chat-small", "messages": [{"role": "user", "content": "hi"}]}
        return self.client.post("/v1/chat/completions", json=body | fields)

    def audit(self) -> list[dict[str, Any]]:
        """What is in the audit log, oldest first."""
        return list(reversed(self.get("audit").json()["rows"]))

    def run(self, work: Any) -> Any:
        """Await something on the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.server._loop).result(30)

    def until_written(self, count: int) -> None:
        self.server.wait_until(lambda: self.gateway.usage.report().written >= count)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    script: list[Any] = ["hello", " there"]
    engine = ScriptedEngine(lambda _: script)
    directory = write_policy(tmp_path / "policy", {"gateway.toml": PLUGINS, "teams.toml": TEAMS})
    gateway = scripted_gateway(
        directory, {"scripted": engine}, settings=settings_in(tmp_path, policy=directory)
    )
    with serving(gateway) as server:
        stage = Stage(server, engine, script)
        yield stage
        stage.client.close()
