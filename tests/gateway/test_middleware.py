import json
import socket
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import asynccontextmanager
from inspect import signature
from pathlib import Path

import httpx
import pytest

from engines.errors import Unavailable
from gateway import Call, hookimpl
from gateway.hooks import Hooks, installed_plugins
from tests.fakes import Hold, ScriptedEngine, Step
from tests.serving import Server, scripted_gateway, serving, write_policy

BODY = {"model": "chat-small", "messages": [{"role": "user", "content": "hi"}]}


class Watching:
    """Keeps every call that ended, as an observer sees it then."""

    def __init__(self) -> None:
        self.ended: list[Call] = []

    @hookimpl
    @asynccontextmanager
    async def observe(self, call: Call) -> AsyncGenerator[None, None]:
        yield
        self.ended.append(call)


class Stage:
    """A served gateway with one scripted engine, and what its observer saw."""

    def __init__(self, server: Server, engine: ScriptedEngine, watching: Watching) -> None:
        self.server = server
        self.engine = engine
        self.watching = watching

    def ended(self) -> Call:
        """The first call that ended; waits for it."""
        self.server.wait_until(lambda: bool(self.watching.ended))
        return self.watching.ended[0]


@pytest.fixture
def script() -> list[Step]:
    """What the engine says; a test changes it in place before it asks."""
    return ["hello", " there"]


@pytest.fixture
def stage(tmp_path: Path, script: list[Step]) -> Iterator[Stage]:
    engine = ScriptedEngine(lambda _: script)
    gateway = scripted_gateway(write_policy(tmp_path / "policy"), {"scripted": engine})
    watching = Watching()
    plugins = installed_plugins()
    built = [(name, plugins[name]) for name in gateway.policy.plugins]
    gateway.hooks = Hooks(
        [
            ("watching", watching),
            *(
                (name, plugin(gateway) if "gateway" in signature(plugin).parameters else plugin())
                for name, plugin in built
            ),
        ]
    )
    with serving(gateway) as server:
        yield Stage(server, engine, watching)


def hang_up_after(stage: Stage, body: Mapping[str, object], *, read: bytes = b"") -> None:
    """Send a request on a socket of our own, read until `read` was seen, and close it."""
    payload = json.dumps(body).encode()
    host, port = stage.server.url.removeprefix("http://").split(":")
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\n"
        f"host: {host}:{port}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(payload)}\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(head.encode() + payload)
        seen = b""
        while read and read not in seen:
            seen += connection.recv(65536)
        if not read:
            stage.server.wait_until(lambda: stage.engine.running == 1)


def test_every_answer_carries_the_calls_id(stage: Stage) -> None:
    good = httpx.post(f"{stage.server.url}/v1/chat/completions", json=BODY)
    bad = httpx.post(f"{stage.server.url}/v1/chat/completions", json={})

    assert good.status_code == 200
    assert bad.status_code == 400
    assert good.headers["x-request-id"].startswith("req_")
    assert good.headers["x-request-id"] != bad.headers["x-request-id"]
    assert good.headers["openai-processing-ms"].isdigit()


def test_a_path_that_does_not_exist_is_a_404_in_the_openai_shape(stage: Stage) -> None:
    answer = httpx.post(f"{stage.server.url}/v1/chat/completion", json=BODY)

    assert answer.status_code == 404
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert "/v1/chat/completion" in answer.json()["error"]["message"]


def test_a_method_that_a_path_does_not_take_is_a_405(stage: Stage) -> None:
    answer = httpx.get(f"{stage.server.url}/v1/chat/completions")

    assert answer.status_code == 405
    assert answer.json()["error"]["code"] == "method_not_allowed"


def test_a_client_that_hangs_up_in_prefill_stops_the_engine(
    stage: Stage, script: list[Step]
) -> None:
    script[:] = [Hold(), "never"]

    hang_up_after(stage, BODY)

    assert stage.ended().outcome == "client_closed"
    assert stage.engine.running == 0
    assert stage.engine.num_closed_early == 1


def test_a_client_that_hangs_up_in_mid_stream_stops_the_engine(
    stage: Stage, script: list[Step]
) -> None:
    script[:] = ["hello", Hold(), "never"]

    hang_up_after(stage, {**BODY, "stream": True}, read=b'"hello"')

    assert stage.ended().outcome == "client_closed"
    assert stage.engine.running == 0


def test_a_client_that_hangs_up_while_its_whole_answer_is_made_stops_the_engine(
    stage: Stage, script: list[Step]
) -> None:
    script[:] = ["hello", Hold(), "never"]

    hang_up_after(stage, BODY)

    assert stage.ended().outcome == "client_closed"
    assert stage.engine.running == 0


def test_all_sequences_of_a_call_stop_when_its_client_hangs_up(
    stage: Stage, script: list[Step]
) -> None:
    script[:] = ["hello", Hold(), "never"]

    hang_up_after(stage, {**BODY, "n": 3, "stream": True}, read=b'"index":2')

    assert stage.ended().outcome == "client_closed"
    assert stage.engine.running == 0
    assert stage.engine.num_closed_early == 3


def test_an_observer_sees_the_usage_of_a_finished_call(stage: Stage) -> None:
    httpx.post(f"{stage.server.url}/v1/chat/completions", json=BODY)

    call = stage.ended()
    assert (call.outcome, call.status) == ("ok", 200)
    assert call.usage.completion_tokens == 2
    assert call.first_output_at is not None
    assert call.target is not None
    assert call.target.engine == "scripted"


def test_an_error_before_the_first_output_is_an_honest_status(
    stage: Stage, script: list[Step]
) -> None:
    script[:] = [Unavailable("the engine is on fire", retry_after=2.2)]

    answer = httpx.post(f"{stage.server.url}/v1/chat/completions", json={**BODY, "stream": True})

    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["retry-after"] == "3"
    assert answer.json()["error"]["message"] == "the engine is on fire"
    assert stage.ended().outcome == "unavailable"


def test_an_error_after_the_first_output_is_an_event_and_no_done_follows(
    stage: Stage, script: list[Step]
) -> None:
    script[:] = ["hello", Unavailable("the engine is on fire")]

    answer = httpx.post(f"{stage.server.url}/v1/chat/completions", json={**BODY, "stream": True})

    assert answer.status_code == 200
    frames = [line for line in answer.text.split("\n\n") if line]
    assert json.loads(frames[-1].removeprefix("data: "))["error"]["message"] == (
        "the engine is on fire"
    )
    assert "[DONE]" not in answer.text
    assert stage.ended().outcome == "unavailable"


def test_a_bug_in_an_engine_is_a_500_that_tells_nothing(stage: Stage, script: list[Step]) -> None:
    class Secretive(Exception):
        pass

    def broken(_: object) -> list[Step]:
        raise Secretive("password=hunter2")

    stage.engine._script = broken
    answer = httpx.post(f"{stage.server.url}/v1/chat/completions", json=BODY)

    assert answer.status_code == 500
    assert "hunter2" not in answer.text
    assert answer.headers["x-request-id"]
    assert stage.ended().outcome == "internal"


def test_a_call_is_in_flight_until_it_ends(stage: Stage, script: list[Step]) -> None:
    script[:] = ["hello", Hold(), "never"]

    hang_up_after(stage, BODY)

    stage.ended()
    assert stage.server.run(lambda: dict(stage.server.gateway.calls)) == {}


def test_nobody_known_is_refused_before_the_body_is_read(stage: Stage) -> None:
    host, port = stage.server.url.removeprefix("http://").split(":")
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: evil.example\r\n"
        "content-type: application/json\r\ncontent-length: 1000000\r\n\r\n"
    )

    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(head.encode())
        answer = connection.recv(65536)

    assert answer.startswith(b"HTTP/1.1 401")
    assert stage.engine.requests == []


def test_a_client_that_hangs_up_in_mid_body_is_no_failure_of_ours(stage: Stage) -> None:
    host, port = stage.server.url.removeprefix("http://").split(":")
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}:{port}\r\n"
        "content-type: application/json\r\ncontent-length: 1000\r\n\r\n"
    )

    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(head.encode() + b'{"model": ')

    assert stage.ended().outcome == "client_closed"
    assert stage.engine.requests == []
