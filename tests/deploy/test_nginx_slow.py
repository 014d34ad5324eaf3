"""Clients that hold what they use, before nginx. Its time-outs are cut short for these tests."""

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.conftest import KEYS_ONLY
from tests.fakes import ScriptedEngine
from tests.nginx_server import NginxServer, nginx_server
from tests.security.attacker import until_closed
from tests.serving import scripted_gateway, serving, settings_in, write_policy

SHORT = {
    "client_header_timeout       10s;": "client_header_timeout 1s;",
    "client_body_timeout         20s;": "client_body_timeout 1s;",
    "send_timeout                60s;": "send_timeout 1s;",
    "limit_conn        penstock_clients 256;": "limit_conn penstock_clients 2;",
}


class Slow:
    """A short-tempered nginx, and the engine behind it."""

    def __init__(self, nginx: NginxServer, engine: ScriptedEngine) -> None:
        self.nginx = nginx
        self.engine = engine

    def connect(self) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self.nginx.port), timeout=30)
        return self.nginx.tls.wrap_socket(plain, server_hostname="localhost")


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slow]:
    directory: Path = tmp_path_factory.mktemp("slow")
    engine = ScriptedEngine()
    gateway = scripted_gateway(
        write_policy(directory / "policy", KEYS_ONLY),
        {"scripted": engine},
        settings=settings_in(directory),
    )
    with (
        serving(gateway) as server,
        nginx_server([server.url.removeprefix("http://")], SHORT) as nginx,
    ):
        yield Slow(nginx, engine)


HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n"


@pytest.mark.parametrize("sent", [b"", b"POST /v1", HEAD, HEAD + b"\r\n", HEAD + b"\r\n{"])
def test_a_client_that_does_not_go_on_is_cut(slow: Slow, sent: bytes) -> None:
    with slow.connect() as connection:
        connection.sendall(sent)

        assert b"HTTP/1.1 2" not in until_closed(connection)

    assert slow.engine.requests == []
    assert '"gateway":"127' not in slow.nginx.log(), "a gateway heard of a request that never came"


def test_too_many_calls_at_once_from_one_address_are_refused(slow: Slow) -> None:
    with slow.connect() as first, slow.connect() as second, slow.connect() as third:
        for held in (first, second):
            held.sendall(HEAD + b"\r\n{")
        third.sendall(b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        answer = until_closed(third)

    assert answer.startswith(b"HTTP/1.1 429 ")
    assert b"rate_limit_exceeded" in answer
    assert b"Retry-After: 1" in answer
