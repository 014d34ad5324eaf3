"""Calls from outside, through a real nginx with the configuration that is shipped."""

import json
import socket
import ssl

import httpx
import pytest
from openai import OpenAI

from tests.deploy.conftest import Front
from tests.fakes import Hold

BODY = {"model": "chat-small", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize("http2", [False, True])
def test_the_openai_client_gets_the_first_words_before_the_engine_has_the_next(
    front: Front, http2: bool
) -> None:
    hold = Hold()
    front.script[:] = ["hello", hold, " there"]

    with front.client(http2=http2) as transport:
        client = OpenAI(
            base_url=f"{front.nginx.url}/v1",
            api_key=front.key,
            http_client=transport,
            max_retries=0,
        )
        stream = client.chat.completions.create(**BODY, stream=True)  # type: ignore[call-overload]
        texts = (chunk.choices[0].delta.content for chunk in stream if chunk.choices)
        first = next(text for text in texts if text)
        # The engine cannot have said more: it waits for this.
        front.server.run(hold.release)
        rest = "".join(text or "" for text in texts)

    assert (first, rest) == ("hello", " there")


@pytest.mark.parametrize(("http2", "version"), [(False, "HTTP/1.1"), (True, "HTTP/2")])
def test_both_versions_are_spoken(front: Front, http2: bool, version: str) -> None:
    with front.client(http2=http2) as client:
        answer = client.post("/v1/chat/completions", json=BODY)

    assert answer.http_version == version
    assert answer.json()["choices"][0]["message"]["content"] == "hello there"
    assert answer.headers["strict-transport-security"]
    assert answer.headers["server"] == "nginx"  # and not which one


def test_a_client_that_hangs_up_frees_the_engine(front: Front) -> None:
    hold = Hold()
    front.script[:] = ["hello", hold, "never"]

    with (
        front.client() as client,
        client.stream("POST", "/v1/chat/completions", json={**BODY, "stream": True}) as answer,
    ):
        next(answer.iter_lines())

    front.server.wait_until(lambda: front.engine.running == 0)
    assert front.engine.num_closed_early == 1


def test_a_client_that_hangs_up_before_the_first_word_frees_the_engine(front: Front) -> None:
    front.script[:] = [Hold(), "never"]

    with front.client() as client, pytest.raises(httpx.ReadTimeout):
        client.post("/v1/chat/completions", json=BODY, timeout=0.5)

    front.server.wait_until(lambda: front.engine.running == 0)
    assert front.engine.num_closed_early == 1


def test_the_id_of_a_call_is_the_same_for_client_proxy_and_gateway(front: Front) -> None:
    with front.client() as client:
        good = client.post("/v1/chat/completions", json=BODY, headers={"x-request-id": "mine-7"})
        refused = client.post("/v1/chat/completions", json={})
    ids = [good.headers["x-request-id"], refused.headers["x-request-id"]]

    logged = [json.loads(line) for line in front.nginx.log().splitlines()]
    by_id = {line["request_id"]: line for line in logged}
    assert by_id[ids[0]]["status"] == 200
    assert by_id[ids[1]]["status"] == 400
    assert all(i.startswith("req_") for i in ids)
    assert len(good.headers.get_list("x-request-id")) == 1


def test_a_query_is_passed_on_and_never_logged(front: Front) -> None:
    with front.client() as client:
        assert client.get("/v1/models?api_key=canary&x=%2e%2e%2f").status_code == 200

    assert "canary" not in front.nginx.log()


def test_the_name_of_a_model_may_hold_slashes_and_colons(front: Front) -> None:
    with front.client() as client:
        known = client.get("/v1/models/chat-small")
        unknown = client.get("/v1/models/hf.co/org/name:q4_K_M")
        escaped = client.get("/v1/models/org%2Fname")

    assert known.json()["id"] == "chat-small"
    assert "'hf.co/org/name:q4_K_M'" in unknown.json()["error"]["message"]
    assert "'org/name'" in escaped.json()["error"]["message"]


def test_what_a_client_says_of_proxies_is_not_passed_on(front: Front) -> None:
    hold = Hold()
    front.script[:] = ["hello", hold]
    claims = {
        "x-forwarded-for": "10.0.0.1", "x-real-ip": "10.0.0.1", "forwarded": "for=10.0.0.1",
        "x-forwarded-host": "evil.example", "x-forwarded-proto": "gopher", "x-forwarded-port": "1",
        "x_forwarded_for": "10.0.0.1", "x-original-url": "/admin/models", "proxy": "evil.example",
    }  # fmt: skip

    with (
        front.client() as client,
        client.stream(
            "POST", "/v1/chat/completions", json={**BODY, "stream": True}, headers=claims
        ) as answer,
    ):
        events = answer.iter_lines()  # when it is thrown away, httpx hangs up
        next(events)
        [headers] = front.server.run(
            lambda: [dict(call.headers) for call in front.server.gateway.calls.values()]
        )

    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "https"
    assert headers["host"] == "localhost"
    assert not {name.replace("_", "-") for name in headers} & (
        set(claims) - {"x-forwarded-for", "x-forwarded-proto"}
    )
    front.server.wait_until(lambda: front.engine.running == 0)


SHAPES = {
    "/v1/chat/completions": ("error", "code"),
    "/v1/messages": ("error", "type"),
    "/api/chat": ("error",),
}


@pytest.mark.parametrize("path", SHAPES)
def test_a_body_that_is_too_large_is_a_413_in_the_dialects_own_shape(
    front: Front, path: str
) -> None:
    with connected(front) as connection:
        connection.sendall(
            f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            "content-length: 40000000\r\n\r\n".encode()
        )
        head, _, body = connection.recv(65536).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 413 ")
    assert b"application/json" in head
    value = json.loads(body)
    for key in SHAPES[path]:
        value = value[key]
    assert value in ("request_too_large", "the body is larger than this server's limit")


def test_a_body_between_the_two_limits_is_refused_by_the_gateway(front: Front) -> None:
    body = b'{"model": "' + b"a" * (32 * 1024 * 1024) + b'"}'
    with front.client() as client:
        answer = client.post(
            "/v1/chat/completions", content=body, headers={"content-type": "application/json"}
        )

    assert answer.status_code == 413
    assert answer.headers["x-penstock-error-source"] == "gateway"


def test_headers_that_are_too_long_are_told_so(front: Front) -> None:
    with front.client() as client:
        answer = client.get("/v1/models", headers={"x": "a" * 9000})

    assert answer.status_code == 431
    assert answer.json()["error"]["code"] == "headers_too_large"


def test_without_tls_nothing_is_served(front: Front) -> None:
    answer = httpx.get(f"http://127.0.0.1:{front.nginx.port}/v1/models", headers=front.headers)

    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "https_required"


@pytest.mark.parametrize("name", ["evil.example", "127.0.0.1", None])
def test_another_name_gets_no_tls(front: Front, name: str | None) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", front.nginx.port), timeout=20) as plain,
        pytest.raises(ssl.SSLError),
    ):
        context.wrap_socket(plain, server_hostname=name)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_old_tls_is_not_spoken(front: Front, version: ssl.TLSVersion) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = version, version
    with (
        socket.create_connection(("127.0.0.1", front.nginx.port), timeout=20) as plain,
        pytest.raises(ssl.SSLError),
    ):
        context.wrap_socket(plain, server_hostname="localhost")


def test_a_host_that_is_not_the_names_is_a_404(front: Front) -> None:
    """DNS rebinding, behind a name that TLS took."""
    with front.client() as client:
        assert client.get("/v1/models", headers={"host": "evil.example"}).status_code == 404


def connected(front: Front) -> ssl.SSLSocket:
    """A TLS connection to nginx, for what no HTTP library says."""
    plain = socket.create_connection(("127.0.0.1", front.nginx.port), timeout=30)
    return front.nginx.tls.wrap_socket(plain, server_hostname="localhost")
