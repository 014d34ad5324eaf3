"""How a server ends: whom it waits for, for how long, and what the clients are told."""

import json
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.scripted_server import ScriptedServer, scripted_server
from tests.serving import write_policy

BODY = {"model": "chat-small", "messages": [{"role": "user", "content": "hold"}], "stream": True}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    write_policy(tmp_path / "policy")
    return tmp_path


@contextmanager
def stream(server: ScriptedServer) -> Iterator[Iterator[str]]:
    """The events of a stream that says one word and then waits for ever."""
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=BODY, timeout=60) as answer:
        events = (line for line in answer.iter_lines() if line.startswith("data: "))
        next(events)
        yield events


def wait_for_drain(server: ScriptedServer) -> None:
    """Return when the server lets nobody in any more."""
    while True:
        try:
            httpx.get(f"{server.url}/healthz", timeout=5)
        except httpx.TransportError:
            return


def error_of(event: str) -> dict[str, object]:
    error: dict[str, object] = json.loads(event.removeprefix("data: "))["error"]
    return error


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_server_ends_at_once_and_well(directory: Path, told: signal.Signals) -> None:
    with scripted_server(directory) as server, httpx.Client() as kept_alive:
        assert kept_alive.get(f"{server.url}/healthz").status_code == 200
        server.tell(told)

        assert server.ended() == 0


def test_while_it_drains_nobody_new_is_let_in_and_a_stream_goes_on(directory: Path) -> None:
    with scripted_server(directory, drain_seconds=60) as server, stream(server) as events:
        server.tell(signal.SIGTERM)
        wait_for_drain(server)

        assert server.process.poll() is None
        server.tell(signal.SIGTERM)
        assert error_of(list(events)[-1])["code"] == "engine_unavailable"
        assert server.ended() == 0


def test_a_stream_that_outlives_the_drain_ends_with_an_error_event(directory: Path) -> None:
    with scripted_server(directory, drain_seconds=0.2) as server, stream(server) as events:
        server.tell(signal.SIGTERM)
        rest = list(events)

        assert error_of(rest[-1])["code"] == "engine_unavailable"
        assert "data: [DONE]" not in rest
        assert server.ended() == 0


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_does_not_wait_and_ends_well(directory: Path, told: signal.Signals) -> None:
    with scripted_server(directory, drain_seconds=600) as server, stream(server) as events:
        server.tell(told)
        wait_for_drain(server)  # two signals at once are one
        server.tell(told)

        assert error_of(list(events)[-1])["code"] == "engine_unavailable"
        assert server.ended() == 0


def test_a_client_that_does_not_read_does_not_keep_a_server_that_was_told_twice(
    directory: Path,
) -> None:
    payload = json.dumps(BODY).encode()
    with (
        scripted_server(directory, drain_seconds=600) as server,
        socket.create_connection(("127.0.0.1", server.port)) as connection,
    ):
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
        connection.sendall(
            f"{head}content-type: application/json\r\n"
            f"content-length: {len(payload) + 1}\r\n\r\n".encode()
            + payload
        )
        server.tell(signal.SIGTERM)
        wait_for_drain(server)
        server.tell(signal.SIGTERM)

        assert server.ended() == 0


def test_a_killed_server_leaves_records_that_the_next_one_reads(directory: Path) -> None:
    for _ in range(2):
        with scripted_server(directory) as server, stream(server):
            server.tell(signal.SIGKILL)
            assert server.ended() == -signal.SIGKILL
    with scripted_server(directory) as server:
        answer = httpx.post(
            f"{server.url}/v1/chat/completions",
            json={**BODY, "stream": False, "messages": [{"role": "user", "content": "hi"}]},
        )

    assert answer.json()["choices"][0]["message"]["content"] == "hello there"
