"""Several gateways behind one nginx: who gets a call, and what happens when one dies."""

import json
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.deploy.conftest import KEYS_ONLY, make_key
from tests.nginx_server import NginxServer, nginx_server
from tests.scripted_server import ScriptedServer, scripted_server
from tests.security.attacker import parsed, until_closed
from tests.serving import write_policy

SAY = {"model": "chat-small", "messages": [{"role": "user", "content": "hi"}]}
HOLD = {"model": "chat-small", "messages": [{"role": "user", "content": "hold"}], "stream": True}
BY_KEY = {"    default penstock_least_conn;": "    default penstock_by_key;"}


class Fleet:
    """Two gateways that share a ledger, and nginx before them."""

    def __init__(self, nginx: NginxServer, gateways: list[ScriptedServer], key: str) -> None:
        self.nginx = nginx
        self.gateways = gateways
        self.key = key

    def client(self, key: str | None = None) -> httpx.Client:
        return httpx.Client(
            base_url=self.nginx.url, verify=self.nginx.tls, timeout=30,
            headers={"authorization": f"Bearer {key or self.key}"},
        )  # fmt: skip

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.nginx.log().splitlines()]

    def shares(self) -> Counter[str]:
        """How many calls each gateway answered."""
        return Counter(str(line["gateway"]).rpartition(", ")[2] for line in self.lines())


@contextmanager
def fleet_in(directory: Path, replace: dict[str, str]) -> Iterator[Fleet]:
    write_policy(directory / "policy", KEYS_ONLY)
    (directory / "data").mkdir()
    key = make_key(directory)
    with ExitStack() as stack:
        gateways = [
            stack.enter_context(scripted_server(directory, drain_seconds=0.5)) for _ in range(2)
        ]
        addresses = [f"127.0.0.1:{gateway.port}" for gateway in gateways]
        nginx = stack.enter_context(nginx_server(addresses, replace))
        yield Fleet(nginx, gateways, key)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with fleet_in(tmp_path, {}) as fleet:
        yield fleet


def words(events: Iterator[str]) -> Iterator[str]:
    for event in events:
        if event.startswith("data: {"):
            choices = json.loads(event.removeprefix("data: ")).get("choices") or [{}]
            if text := choices[0].get("delta", {}).get("content"):
                yield text


def test_two_gateways_share_the_load_and_one_may_be_killed_in_between(fleet: Fleet) -> None:
    with fleet.client() as client, ExitStack() as stack:
        for _ in range(20):
            assert client.post("/v1/chat/completions", json=SAY).status_code == 200
        before = fleet.shares()

        # Two streams at once go to two gateways: each is the other's least busy one.
        streams = [
            stack.enter_context(client.stream("POST", "/v1/chat/completions", json=HOLD))
            for _ in range(2)
        ]
        texts = [words(stream.iter_lines()) for stream in streams]
        assert [next(text) for text in texts] == ["hello", "hello"]
        fleet.gateways[0].tell(signal.SIGKILL)
        assert fleet.gateways[0].ended() == -signal.SIGKILL

        answers = [client.post("/v1/chat/completions", json=SAY) for _ in range(20)]
        assert [answer.status_code for answer in answers] == [200] * 20

        # One stream broke with its gateway, the other is where it was.
        fleet.gateways[1].tell(signal.SIGTERM)
        endings = [ending_of(stream) for stream in texts]

    assert sorted(endings) == ["broke", "went on"]
    assert set(before) == {f"127.0.0.1:{gateway.port}" for gateway in fleet.gateways}
    assert min(before.values()) >= 5


def ending_of(text: Iterator[str]) -> str:
    try:
        assert list(text) == []
    except httpx.RemoteProtocolError:
        return "broke"
    return "went on"


def test_a_call_that_a_dying_gateway_had_is_not_sent_a_second_time(fleet: Fleet) -> None:
    with ExitStack() as stack:
        connections = [stack.enter_context(tls_connection(fleet)) for _ in range(2)]
        for connection in connections:
            body = json.dumps({**HOLD, "stream": False}).encode()
            connection.sendall(
                f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
                f"authorization: Bearer {fleet.key}\r\ncontent-type: application/json\r\n"
                f"content-length: {len(body)}\r\n\r\n".encode()
                + body
            )
        wait_for_two_calls(fleet)
        for gateway in fleet.gateways:
            gateway.tell(signal.SIGKILL)
        answers = [parsed(until_closed(connection)) for connection in connections]

    assert [answer.status for answer in answers] == [502, 502]
    assert [answer.error["code"] for answer in answers] == ["unavailable"] * 2
    assert [answer.headers["retry-after"] for answer in answers] == ["1", "1"]
    posts = [line for line in fleet.lines() if line["method"] == "POST"]
    assert all(", " not in str(line["gateway"]) for line in posts), "it was tried twice"


def wait_for_two_calls(fleet: Fleet) -> None:
    """Return when each gateway runs one call."""
    for gateway in fleet.gateways:
        while True:
            state = httpx.get(
                f"{gateway.url}/admin/models", headers={"authorization": f"Bearer {fleet.key}"}
            ).json()
            if state["engines"][0]["running"] == 1:
                break


@contextmanager
def tls_connection(fleet: Fleet) -> Iterator[socket.socket]:
    with (
        socket.create_connection(("127.0.0.1", fleet.nginx.port), timeout=30) as plain,
        fleet.nginx.tls.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        yield connection


def test_a_gateway_that_drains_gives_its_place_to_the_other(fleet: Fleet) -> None:
    with fleet.client() as client:
        client.post("/v1/chat/completions", json=SAY)
        fleet.gateways[0].tell(signal.SIGTERM)
        assert fleet.gateways[0].ended() == 0
        answers = [client.post("/v1/chat/completions", json=SAY) for _ in range(10)]

    assert [answer.status_code for answer in answers] == [200] * 10


def test_a_reload_of_nginx_leaves_streams_alone(fleet: Fleet) -> None:
    with (
        fleet.client() as client,
        client.stream("POST", "/v1/chat/completions", json=HOLD) as stream,
    ):
        texts = words(stream.iter_lines())
        assert next(texts) == "hello"
        fleet.nginx.reload()
        with fleet.client() as another:
            assert another.post("/v1/chat/completions", json=SAY).status_code == 200
        for gateway in fleet.gateways:
            gateway.tell(signal.SIGTERM)

        assert ending_of(texts) == "went on"


def test_without_any_gateway_the_answer_is_an_error_in_the_dialects_shape(fleet: Fleet) -> None:
    for gateway in fleet.gateways:
        gateway.tell(signal.SIGKILL)
        gateway.ended()

    with fleet.client() as client:
        openai = client.post("/v1/chat/completions", json=SAY)
        anthropic = client.post("/v1/messages", json=SAY)
        ollama = client.post("/api/chat", json=SAY)

    assert openai.status_code == 502
    assert openai.headers["retry-after"] == "1"
    assert openai.headers["x-request-id"]
    assert openai.json()["error"]["code"] == "unavailable"
    assert anthropic.json()["type"] == "error"
    assert anthropic.json()["error"]["type"] == "api_error"
    assert isinstance(ollama.json()["error"], str)


def test_a_key_keeps_its_gateway_if_the_map_says_so(tmp_path: Path) -> None:
    with fleet_in(tmp_path, BY_KEY) as fleet:
        keys = [fleet.key, *(make_key(tmp_path) for _ in range(7))]
        for key in keys:
            with fleet.client(key) as client:
                for _ in range(3):
                    assert client.get("/v1/models").status_code == 200
        lines = fleet.lines()
        # In order: three calls of one key, then three of the next.
        used = [{str(line["gateway"]) for line in lines[i : i + 3]} for i in range(0, 24, 3)]

    assert [len(gateways) for gateways in used] == [1] * 8
