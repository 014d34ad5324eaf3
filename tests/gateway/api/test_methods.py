"""HEAD, OPTIONS, and methods that a path does not take, over a real socket."""

import socket
from collections.abc import Iterator

import httpx
import pytest
from litestar.routes import HTTPRoute

from gateway.app import app_of
from tests.fakes import ScriptedEngine
from tests.serving import SCRIPTED_POLICY, Server, scripted_gateway, serving, write_policy

PLUGINS = SCRIPTED_POLICY["gateway.toml"].replace('["anonymous",', '["metrics", "anonymous",')
FILES = {
    "gateway.toml": PLUGINS,
    "teams.toml": '[me]\nmodels = ["*"]\nendpoints = ["openai.chat", "openai.models", "admin.*"]',
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = write_policy(tmp_path_factory.mktemp("methods") / "policy", FILES)
    with serving(scripted_gateway(directory, {"scripted": ScriptedEngine()})) as server:
        yield server


def test_every_path_that_is_read_takes_head(server: Server) -> None:
    missing = [
        route.path
        for route in app_of(server.gateway).routes
        if isinstance(route, HTTPRoute)
        # What an upstream is asked with is the policy's to say.
        and "GET" in route.methods and "HEAD" not in route.methods
        and not route.path.startswith("/v1/{rest")
    ]  # fmt: skip

    assert missing == []


@pytest.mark.parametrize(
    "path",
    ["/healthz", "/readyz", "/v1/models", "/v1/models/chat-small", "/v1/models/nobody", "/metrics",
     "/admin/usage", "/admin/usage?format=csv", "/admin/keys/nobody"],
)  # fmt: skip
def test_head_is_get_without_a_body(server: Server, path: str) -> None:
    got = httpx.get(server.url + path, timeout=20)
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(
            f"HEAD {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode()
        )
        raw = b"".join(iter(lambda: connection.recv(65536), b""))

    head, _, body = raw.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {got.status_code} ".encode())
    assert body == b""
    content_type = got.headers["content-type"].encode()
    assert b"content-type: " + content_type in head.lower()


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/chat/completions", {"POST", "OPTIONS"}),
        ("HEAD", "/v1/embeddings", {"POST", "OPTIONS"}),
        ("POST", "/healthz", {"GET", "HEAD", "OPTIONS"}),
        ("DELETE", "/v1/models", {"GET", "HEAD", "OPTIONS"}),
        ("PUT", "/admin/keys/x", {"GET", "HEAD", "DELETE", "OPTIONS"}),
        ("GET", "/api/chat", {"POST", "OPTIONS"}),
    ],
)
def test_a_method_that_a_path_does_not_take_is_a_405_that_says_which_it_takes(
    server: Server, method: str, path: str, allowed: set[str]
) -> None:
    answer = httpx.request(method, server.url + path, timeout=20)

    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == allowed


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models/x", "/healthz", "/metrics"])
def test_options_are_told_to_whoever_may_call_the_endpoint(server: Server, path: str) -> None:
    answer = httpx.options(server.url + path, timeout=20)

    assert (answer.status_code, answer.content) == (204, b"")
    assert "OPTIONS" in answer.headers["allow"]


@pytest.mark.parametrize(
    ("path", "endpoint"), [("/v1/embeddings", "openai.embeddings"), ("/api/chat", "ollama.chat")]
)
def test_whoever_may_not_is_told_what_they_may_not_use(
    server: Server, path: str, endpoint: str
) -> None:
    answer = httpx.options(server.url + path, timeout=20)

    assert answer.status_code == 403
    assert endpoint in answer.text
