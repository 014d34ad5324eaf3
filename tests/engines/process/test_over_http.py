"""A gateway whose engine runs in a child process, as its clients see it."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from engines.process import ProcessEngine
from tests.engines.process.children import Script
from tests.engines.process.hosted import engine_of, pid_of
from tests.serving import Server, scripted_gateway, serving, write_policy

BODY = {"model": "chat-small", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
def engine() -> ProcessEngine:
    return engine_of(config=Script(is_endless=True), first_delay_seconds=3.0, max_delay_seconds=3.0)


@pytest.fixture
def server(tmp_path: Path, engine: ProcessEngine) -> Iterator[Server]:
    gateway = scripted_gateway(write_policy(tmp_path / "policy"), {"scripted": engine})
    with serving(gateway) as server:
        yield server


def test_a_child_killed_in_mid_stream_is_an_error_event_then_503_then_answers_again(
    server: Server, engine: ProcessEngine
) -> None:
    with httpx.Client(base_url=server.url, timeout=40) as client:
        with client.stream("POST", "/v1/chat/completions", json=BODY | {"stream": True}) as reply:
            assert reply.status_code == 200
            lines = (line for line in reply.iter_lines() if line)
            assert '"content":"0 hel ' in "".join(next(lines) for _ in range(2))
            os.kill(server.run(lambda: pid_of(engine)), signal.SIGKILL)
            rest = list(lines)

        down = client.post("/v1/chat/completions", json=BODY)
        not_ready = client.get("/readyz")
        server.wait_until(lambda: engine.pid is not None)
        again = client.post("/v1/chat/completions", json=BODY | {"max_tokens": 3})

    assert '"code":"engine_unavailable"' in rest[-1]
    assert "it is being restarted" in rest[-1]
    assert "SIGKILL" not in "".join(rest)  # that is for the log
    assert down.status_code == 503
    assert 1 <= int(down.headers["retry-after"]) <= 10
    assert down.json()["error"]["code"] == "engine_unavailable"
    assert not_ready.status_code == 503
    assert again.status_code == 200
    assert again.json()["choices"][0]["message"]["content"] == "0 hel 1 hel 2 hel "


def test_a_client_that_hangs_up_frees_its_place_in_the_child(
    server: Server, engine: ProcessEngine
) -> None:
    with (
        httpx.Client(base_url=server.url, timeout=40) as client,
        client.stream("POST", "/v1/chat/completions", json=BODY | {"stream": True}) as reply,
    ):
        lines = reply.iter_lines()  # closes the stream when it is forgotten
        assert next(lines)
        assert _running(server) == 1

    while _running(server):
        pass


def _running(server: Server) -> int:
    state = httpx.get(f"{server.url}/admin/models", timeout=40).json()
    return int(state["engines"][0]["running"])
