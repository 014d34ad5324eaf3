"""SSRF: a caller who makes the gateway connect to where the caller cannot."""

import json
import socket
from collections.abc import Iterator

import httpx
import pytest

from tests.security.attacker import BODY
from tests.security.conftest import Stage


class Canary:
    """A place inside, which no call may make the gateway talk to."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self.host, self.port = listener.getsockname()
        self.url = f"http://{self.host}:{self.port}"

    def was_visited(self) -> bool:
        # A connection that was made waits in the listener's queue until somebody looks.
        self._listener.settimeout(0)
        try:
            self._listener.accept()
        except BlockingIOError:
            return False
        return True


@pytest.fixture
def canary() -> Iterator[Canary]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield Canary(listener)


FIELDS = (
    "api_base", "base_url", "api_key", "organization", "custom_llm_provider", "fallbacks",
    "callback_url", "webhook", "proxy", "endpoint", "mock_response", "guardrails", "extra_body",
    "extra_headers", "chat_template", "chat_template_kwargs", "kv_transfer_params", "model_config",
)  # fmt: skip
HEADERS = (
    "x-portkey-custom-host", "x-portkey-provider", "x-portkey-config", "x-litellm-api-base",
    "x-api-base", "x-base-url", "x-upstream", "x-forwarded-host", "helicone-target-url",
    "openai-organization", "x-target-url", "x-penstock-upstream", "cf-aig-endpoint", "proxy",
)  # fmt: skip


@pytest.mark.parametrize("field", FIELDS)
def test_no_field_of_a_body_names_where_to_send_it(
    stage: Stage, canary: Canary, field: str
) -> None:
    """CVE-2024-6587: `api_base` in the body sent the upstream's key to the caller's host."""
    body = {**json.loads(BODY), field: canary.url}

    answer = httpx.post(f"{stage.server.url}/v1/chat/completions", json=body, timeout=20)

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == field
    assert not canary.was_visited()
    assert stage.num_calls == 0


@pytest.mark.parametrize("name", HEADERS)
def test_no_header_names_where_to_send_a_call(stage: Stage, canary: Canary, name: str) -> None:
    """CVE-2025-66405: `x-portkey-custom-host`."""
    httpx.post(
        f"{stage.server.url}/v1/chat/completions", content=BODY, timeout=20,
        headers={"content-type": "application/json", name: canary.url},
    )  # fmt: skip

    assert not canary.was_visited()


def urls(canary: Canary) -> list[str]:
    """The canary's address in the spellings that filters have missed."""
    host, port = canary.host, canary.port
    return [
        f"http://{host}:{port}/x.png", f"http://0x7f000001:{port}/x.png",
        f"http://2130706433:{port}/x.png", f"http://127.1:{port}/x.png",
        f"http://[::ffff:127.0.0.1]:{port}/x.png", f"http://localhost:{port}/x.png",
        f"http://example.com\\@{host}:{port}/x.png", f"http://example.com@{host}:{port}/",
        f"http://{host}:{port}#@example.com/", f"http:\\\\{host}:{port}\\x.png",
        f"//{host}:{port}/x.png", f"gopher://{host}:{port}/_x", f"ftp://{host}:{port}/x",
        f"HTTP://{host}:{port}/x.png", f" http://{host}:{port}/x.png", "file:///etc/passwd",
    ]  # fmt: skip


PARTS = ("image_url", "input_audio", "file", "video_url", "audio_url")


@pytest.mark.parametrize("part", PARTS)
def test_nothing_in_a_message_is_fetched(stage: Stage, canary: Canary, part: str) -> None:
    """GHSA-3f6c-7fw2-ppm4, CVE-2026-24779: an image's address, then filters that read it otherwise.

    Engines without vision refuse every image, so there is nothing to be fetched.
    """
    for url in urls(canary):
        value = {"url": url, "data": url, "file_data": url, "file_id": url, "format": "wav"}
        content = [{"type": "text", "text": "hi"}, {"type": part, part: value}]
        body = {**json.loads(BODY), "messages": [{"role": "user", "content": content}]}
        answer = httpx.post(f"{stage.server.url}/v1/chat/completions", json=body, timeout=20)
        assert answer.status_code == 400, url
        assert "root:" not in answer.text

    assert not canary.was_visited()


@pytest.mark.parametrize(
    "model",
    [
        "http://127.0.0.1:1/x", "hf.co/org/name", "../../etc/passwd", "/etc/passwd",
        "file:///etc/passwd", "chat-small/../../x", "chat-small\x00", "\\\\host\\share",
        "a" * 100_000, "%2e%2e%2f", "registry.example/x@sha256:0",
        "${jndi:ldap://127.0.0.1:1/x}", "{{7*7}}",
    ],
    ids=lambda model: repr(model)[:30],
)  # fmt: skip
def test_the_name_of_a_model_is_a_name_and_no_address(stage: Stage, model: str) -> None:
    body = {**json.loads(BODY), "model": model}

    answer = httpx.post(f"{stage.server.url}/v1/chat/completions", json=body, timeout=20)

    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"
    assert len(answer.text) < 1000
    assert stage.num_calls == 0
