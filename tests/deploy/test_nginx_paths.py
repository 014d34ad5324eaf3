"""What nginx keeps closed, in every spelling of its path that could be thought of."""

import re
import socket

import httpx
import pytest

from tests.deploy.conftest import Front
from tests.nginx_server import CONFIGURATION
from tests.security.attacker import parsed, until_closed

# What the outside may ask for. Whoever opens more has to say so here, too.
PUBLIC = {
    "/healthz",
    "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings", "/v1/rerank",
    "/v1/models", "/v1/messages", "/v1/messages/count_tokens", "/tokenize", "/detokenize",
    "/api/chat", "/api/generate", "/api/embed", "/api/embeddings", "/api/tags", "/api/show",
    "/api/version",
}  # fmt: skip
CLOSED = [
    "/admin/models", "/admin/keys", "/admin/keys/k1", "/admin", "/admin/", "/metrics", "/docs",
    "/openapi.json", "/readyz", "/console", "/", "/api/pull", "/api/push", "/api/create",
    "/api/copy", "/api/delete", "/api/blobs/sha256:0", "/api/ps", "/api", "/v1", "/v1/",
    "/v1/files", "/v1/messages/batches", "/v1/load_lora_adapter", "/invocations", "/debug/pprof",
    "/.git/config", "/.env", "/nginx_status", "/v1/models/",
]  # fmt: skip


def spellings(path: str) -> list[str]:
    """Request targets that one server or another has taken for `path`."""
    first, rest = path[1], path[2:]
    head, _, tail = path[1:].partition("/")
    return [
        path, f"{path}/", f"{path}//", f"//{path[1:]}", f"///{path[1:]}", f"//{head}//{tail}",
        f"/./{path[1:]}", f"/{head}/./{tail}", f"{path}/.", f"{path}/x/..",
        f"/v1/..{path}", f"/v1/models/..{path}", f"/v1/models/../..{path}",
        f"/v1/chat/completions/../../..{path}", f"/healthz/..{path}", f"/..{path}", f"/../..{path}",
        f"/v1/models/%2e%2e/%2e%2e{path}", f"/v1/models/%2E%2E/%2E%2E{path}",
        f"/v1/models/.%2e/.%2e{path}", f"/v1/models/..%2f..{path}", f"/v1/models/..%2F..{path}",
        f"/v1/models/..%5c..{path}", f"/v1/models/..\\..{path}", f"/v1/models/%252e%252e{path}",
        f"/v1/models/..;/..;{path}", f"/v1/models/..%00/..{path}",
        f"/%{ord(first):02x}{rest}", f"/%{ord(first):02X}{rest}", f"/%25{ord(first):02x}{rest}",
        "".join(f"%{ord(c):02x}" if c != "/" else c for c in path),
        f"/{head}%2f{tail}", f"/{head}%2F{tail}", f"/{head}%252f{tail}", f"/{head}\\{tail}",
        f"/{head}%5c{tail}", f"/{head}%c0%af{tail}", f"/{head}%ef%bc%8f{tail}", f"%2f{path[1:]}",
        path.upper(), path.title(), f"/{first.upper()}{rest}",
        f"{path};", f"{path};a=b", f"/{head};a=b/{tail}", f"/;a=b{path}", f"{path}/;",
        f"{path}%00", f"{path}%00.png", f"{path}\x00", f"%00{path}", f"{path}%0a", f"{path}%0d%0a",
        f"{path}%20", f"{path}%09", f"{path}.", f"{path}%2e", f"{path}~", f"{path}.json",
        f"{path}?", f"{path}?x=/v1/models", f"{path}#", f"{path}#/v1/models", f"{path}%3f",
        f"{path}%23", f"{path}?/../v1/models", f"/v1/models?{path}", f"/v1/models#{path}",
        f"http://localhost{path}", f"https://localhost{path}", f"HTTP://LOCALHOST{path}",
        f"http://evil.example{path}", f"http://localhost/v1/models/..{path}", f"http:{path}",
        f"http://localhost:80{path}", f"http://user@localhost{path}", f"*{path}", "*", path[1:],
        f"@localhost{path}", f"\\\\localhost{path}", f" {path}", f"\t{path}", f"{path}\xe2\x80\xa8",
    ]  # fmt: skip


SPELLINGS = spellings("/admin/models")
# These ask for /v1/models, with a query or fragment that is nobody's path.
HARMLESS = {"/v1/models?/admin/models", "/v1/models#/admin/models"}


def ask(front: Front, request: bytes) -> bytes:
    """Whatever comes back from nginx to these bytes."""
    with (
        socket.create_connection(("127.0.0.1", front.nginx.port), timeout=30) as plain,
        front.nginx.tls.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.sendall(request)
        return until_closed(connection)


def request_for(
    front: Front, target: str, method: str = "GET", version: str = " HTTP/1.1"
) -> bytes:
    headers = (
        f"host: localhost\r\nauthorization: Bearer {front.key}\r\nconnection: close\r\n"
        "content-length: 0\r\n\r\n"
    )
    return f"{method} {target}{version}\r\n{headers}".encode("latin-1")


def test_there_are_enough_spellings() -> None:
    assert len(set(SPELLINGS)) > 70


@pytest.mark.parametrize("target", SPELLINGS)
def test_a_management_path_is_closed_in_every_spelling(front: Front, target: str) -> None:
    num_before = num_answered(front)

    raw = ask(front, request_for(front, target))

    if target in HARMLESS:
        assert b'"object":"list"' in raw
        return
    assert parsed(raw).status in (403, 404)
    assert b"scripted" not in raw
    assert num_answered(front) == num_before, "it reached a gateway"


def num_answered(front: Front) -> int:
    """How many requests of nginx's log a gateway has answered."""
    return len(re.findall(r'"gateway":"127', front.nginx.log()))


@pytest.mark.parametrize("path", CLOSED)
@pytest.mark.parametrize("http2", [False, True])
def test_what_is_not_public_is_closed_with_any_key(front: Front, path: str, http2: bool) -> None:
    with front.client(http2=http2) as client:
        answers = [client.request(m, path) for m in ("GET", "POST", "DELETE", "OPTIONS", "PUT")]

    for answer in answers:
        assert answer.status_code == 404
        assert answer.json()["error"] if not path.startswith("/api/") else answer.json()
        assert "x-penstock-error-source" not in answer.headers, "it reached a gateway"


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "HEAD", "PROPFIND", "get", "X" * 100])
def test_what_is_closed_is_closed_to_every_method(front: Front, method: str) -> None:
    raw = ask(front, request_for(front, "/admin/models", method=method))

    assert parsed(raw).status in (403, 404)
    assert b"scripted" not in raw


@pytest.mark.parametrize("version", ["", " HTTP/0.9", " HTTP/1.0", " HTTP/1.2", " HTTP/2.0", " X"])
def test_what_is_closed_is_closed_in_every_version(front: Front, version: str) -> None:
    raw = ask(front, request_for(front, "/admin/models", version=version))

    # HTTP/0.9 has no status; its answer is the body alone.
    assert parsed(raw).status in (403, 404, 505) or b"unknown_url" in raw
    assert b"scripted" not in raw


@pytest.mark.parametrize(
    "target",
    [
        "/v1/models/chat-small", "/v1//models", "/v1/./models", "/%76%31/models", "/x/../v1/models",
        # Passed on as they are written, these would be the gateway's /admin/… with a parameter.
        "/admin/models/../../v1/models", "/admin/calls/..%2f..%2fv1/models",
        "http://localhost/admin/../v1/models",
    ],
)  # fmt: skip
def test_a_public_path_goes_to_the_gateway_as_nginx_has_read_it(front: Front, target: str) -> None:
    raw = ask(front, request_for(front, target))

    assert parsed(raw).status == 200


@pytest.mark.parametrize(
    "target",
    [
        "/v1/models/a%0d%0aX: y",
        "/v1/models/a%20HTTP/1.1%0d%0a",
        "/v1/models/a%00",
        "/v1/models/%ff",
    ],
)
def test_no_line_break_is_smuggled_in_a_path(front: Front, target: str) -> None:
    assert parsed(ask(front, request_for(front, target))).status in (400, 404)


def test_what_is_closed_outside_is_open_inside(front: Front) -> None:
    inside = httpx.get(f"{front.server.url}/admin/models", headers=front.headers)
    ready = httpx.get(f"{front.server.url}/readyz")
    with front.client() as client:
        outside = client.get("/admin/models")

    assert inside.json()["engines"][0]["name"] == "scripted"
    assert ready.status_code == 200
    assert outside.status_code == 404


def configuration() -> str:
    """The shipped configuration without its comments."""
    text = (CONFIGURATION / "penstock.conf").read_text()
    return re.sub(r"^\s*#.*$|\s#\s.*$", "", text, flags=re.M)


def test_only_the_public_paths_have_a_location() -> None:
    exact = set(re.findall(r"location = (\S+)", configuration()))
    others = re.findall(r"location (?!=)([^{]+?) \{", configuration())

    assert exact == PUBLIC | {"/penstock-problem"}
    assert configuration().count("internal;") == 2
    assert set(others) == {"/", "@problem", '~ "^/v1/models/[A-Za-z0-9._:@+/-]+$"'}


def test_the_configuration_has_nothing_that_was_a_way_into_nginx() -> None:
    """CVE-2026-42945, CVE-2026-9256: the rewrite module with unnamed captures."""
    text = configuration()

    for banned in (
        r"\brewrite\b",
        r"\bset \$",
        r"\$\d",
        r"\balias\b",
        r"\bautoindex\b",
        r"\bif \(",
    ):
        assert re.search(banned, text) is None, banned
    assert "merge_slashes" not in text
    assert "proxy_pass http://$penstock_group$uri" in text
    assert "$request_uri" not in text
    assert "non_idempotent" not in text
