"""Clients that hold what they use, before nginx. Its time-outs are cut short for these tests."""

import socket
import ssl
import time
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
}
# A client's own time-outs stay long here: what is held must be held until it has been counted.
TWO_AT_ONCE = {"limit_conn        penstock_clients 256;": "limit_conn penstock_clients 2;"}


class Slow:
    """A short-tempered nginx, another for two calls at once, and the engine behind them."""

    def __init__(
        self, nginx: NginxServer, two_at_once: NginxServer, engine: ScriptedEngine
    ) -> None:
        self.nginx = nginx
        self.two_at_once = two_at_once
        self.engine = engine


def connect(nginx: NginxServer) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", nginx.port), timeout=30)
    return nginx.tls.wrap_socket(plain, server_hostname="localhost")


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slow]:
    directory: Path = tmp_path_factory.mktemp("slow")
    engine = ScriptedEngine()
    gateway = scripted_gateway(
        write_policy(directory / "policy", KEYS_ONLY),
        {"scripted": engine},
        settings=settings_in(directory),
    )
    with serving(gateway) as server:
        address = server.url.removeprefix("http://")
        with (
            nginx_server([address], SHORT) as nginx,
            nginx_server([address], TWO_AT_ONCE) as two_at_once,
        ):
            yield Slow(nginx, two_at_once, engine)


HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n"


@pytest.mark.parametrize("sent", [b"", b"POST /v1", HEAD, HEAD + b"\r\n", HEAD + b"\r\n{"])
def test_a_client_that_does_not_go_on_is_cut(slow: Slow, sent: bytes) -> None:
    with connect(slow.nginx) as connection:
        connection.sendall(sent)

        assert b"HTTP/1.1 2" not in until_closed(connection)

    assert slow.engine.requests == []
    assert '"gateway":"127' not in slow.nginx.log(), "a gateway heard of a request that never came"


def test_too_many_calls_at_once_from_one_address_are_refused(slow: Slow) -> None:
    def answer() -> bytes:
        with connect(slow.two_at_once) as connection:
            connection.sendall(
                b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
            )
            return until_closed(connection)

    assert answer().startswith(b"HTTP/1.1 401 ")
    with connect(slow.two_at_once) as first, connect(slow.two_at_once) as second:
        for held in (first, second):
            held.sendall(HEAD + b"\r\n{")
        # They count when a worker has read their heads, and there is no seeing that but this.
        deadline = time.monotonic() + 15
        while not (refused := answer()).startswith(b"HTTP/1.1 429 "):
            assert time.monotonic() < deadline, refused

    assert b"rate_limit_exceeded" in refused
    assert b"Retry-After: 1" in refused
