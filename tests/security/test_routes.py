"""Guards hang on routes: no route is open that nobody opened, whatever a URL looks like.

vLLM's /invocations and /pause, and CVE-2026-42271 with CVE-2026-48710: checks that
were tied to the beginning of a path, or read it from where a caller could change it.
"""

import re
from urllib.parse import quote

import httpx
import pytest

from gateway.api import HANDLERS
from tests.security.attacker import exchange
from tests.security.conftest import Stage

PUBLIC = {"/healthz", "/readyz"}
NOT_LOCAL = {"x-forwarded-for": "203.0.113.9"}  # makes `anonymous` know nobody


def routes() -> list[tuple[str, str]]:
    """Every method and path that the gateway serves, with something in place of parameters."""
    return sorted(
        (str(method), re.sub(r"\{[^}]*\}", "x", path))
        for handler in HANDLERS
        for path in handler.paths
        for method in handler.http_methods
    )


@pytest.mark.parametrize(("method", "path"), routes())
def test_a_route_is_guarded_or_on_the_public_list(stage: Stage, method: str, path: str) -> None:
    answer = httpx.request(method, stage.server.url + path, headers=NOT_LOCAL, timeout=20)

    if path in PUBLIC:
        assert answer.status_code == 200
    else:
        assert answer.status_code == 401
    assert stage.num_calls == 0


def spellings(path: str) -> list[str]:
    """The same path, in ways in which a guard and a router may differ."""
    first, rest = path[1], path[2:]
    return [
        path, f"{path}/", f"/{path}", path.replace("/", "//"), f"/.{path}", f"/healthz/..{path}",
        f"/healthz/%2e%2e{path}", f"/healthz%2f..{path}", path.replace("/", "%2f"),
        f"/%{ord(first):02x}{rest}", f"/%25{ord(first):02x}{rest}", path.upper(), f"{path};a=b",
        f"{path}%00", f"{path}%00/healthz", f"{path}%20", f"{path}%0a", f"{path}?x=/healthz",
        f"{path}#/healthz", f"/healthz?{path}", path.replace("/", "\\"), f"{path}/..;/healthz",
        f"http://localhost{path}", f"http://localhost/healthz/..{path}", f"{path}/%2e%2e/healthz",
        quote(path, safe="/") + "%ef%bc%8f", f"/healthz/{path}", f"*{path}",
    ]  # fmt: skip


@pytest.mark.parametrize("target", spellings("/admin/models") + spellings("/v1/models"))
def test_no_spelling_of_a_guarded_path_gets_round_its_guard(stage: Stage, target: str) -> None:
    head = (
        f"GET {target} HTTP/1.1\r\nhost: localhost\r\nx-forwarded-for: 203.0.113.9\r\n"
        "connection: close\r\n\r\n"
    )

    answer = exchange(stage.server, head.encode())

    is_public = target.startswith("/healthz?") and answer.body == b'{"status":"ok"}'
    assert is_public or answer.status in (400, 401, 404, 405)
    assert b"scripted" not in answer.body


@pytest.mark.parametrize(
    "name",
    [
        "x-original-url",
        "x-rewrite-url",
        "x-forwarded-prefix",
        "x-http-method-override",
        "forwarded",
    ],
)
def test_no_header_moves_a_call_to_another_route(stage: Stage, name: str) -> None:
    answer = httpx.get(f"{stage.server.url}/admin/models", headers={**NOT_LOCAL, name: "/healthz"})

    assert answer.status_code == 401


def test_what_a_browser_is_told_is_on_every_answer(stage: Stage) -> None:
    answers = [
        httpx.get(f"{stage.server.url}{path}", headers=headers)
        for path in ("/healthz", "/v1/models", "/nowhere", "/%ff")
        for headers in ({}, NOT_LOCAL)
    ]

    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-request-id"].startswith("req_")
        assert "server" not in answer.headers
        assert "access-control-allow-origin" not in answer.headers
