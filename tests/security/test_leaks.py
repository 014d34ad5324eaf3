"""What must not get out: secrets into logs, insides into error texts."""

import io
import json
import logging

import httpx
import pytest
import structlog

from engines.errors import EngineError
from gateway.keys.text import new_claim, written
from gateway.logs import configure_logs
from tests.security.attacker import exchange
from tests.security.conftest import Stage

KEY = written(new_claim())
CANARY = "canary-9f8e7d6c5b4a"


@pytest.fixture
def log() -> io.StringIO:
    """Everything that this process logs, at the most talkative level."""
    stream = io.StringIO()
    configure_logs("debug", "json", stream)
    return stream


CREDENTIALS = {
    "bearer": {"authorization": f"Bearer {KEY}"},
    "raw": {"authorization": KEY},
    "basic": {"authorization": "Basic Y2FuYXJ5LTlmOGU3ZDZjNWI0YTp4"},
    "x-api-key": {"x-api-key": KEY},
    "api-key": {"api-key": KEY},
    "two": {"authorization": f"Bearer {KEY}", "x-api-key": CANARY},
    "jwt": {"authorization": "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJjYW5hcnkifQ."},
    "cookie": {"cookie": f"session={CANARY}"},
    "proxy": {"proxy-authorization": f"Basic {CANARY}"},
    "user agent": {"user-agent": f"x {KEY}"},
    "request id": {"x-request-id": KEY},
}


@pytest.mark.parametrize("headers", CREDENTIALS.values(), ids=list(CREDENTIALS))
def test_no_credential_of_a_request_is_logged_at_any_level(
    stage: Stage, log: io.StringIO, headers: dict[str, str]
) -> None:
    """CVE-2024-9606, CVE-2025-0330, CVE-2025-11203."""
    url = f"{stage.server.url}/v1/chat/completions?api_key={KEY}&token={CANARY}"
    body = {"model": KEY, "messages": [{"role": "user", "content": CANARY}]}

    httpx.post(url, json=body, headers=headers)
    httpx.post(url, json={**body, "model": "chat-small"}, headers=headers)
    httpx.post(url, json={**body, KEY: 1}, headers=headers)
    httpx.get(f"{stage.server.url}/{KEY}/{CANARY}", headers=headers)
    httpx.get(f"{stage.server.url}/v1/models", headers={**headers, "x-forwarded-for": "1.2.3.4"})
    exchange(stage.server, f"GET /{KEY} HTTP/9.9\r\nauthorization: {CANARY}\r\n\r\n".encode())

    told = log.getvalue()
    assert "request_refused" in told
    assert "call_finished" in told
    # httpx logs the URLs that this test asks for, and is no part of the gateway.
    ours = "\n".join(line for line in told.splitlines() if '"logger": "httpx"' not in line)
    for secret in (KEY, KEY.split("-")[3], CANARY, "Y2FuYXJ5", "eyJzdWIi"):
        assert secret not in ours


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("redis://:hunter2@cache:6379/0", "hunter2"),
        ("postgresql+asyncpg://penstock:hunter2@db/penstock", "hunter2"),
        ("cannot reach https://user:hunter2@example.com/v1", "hunter2"),
        ("eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2lnbmF0dXJl", "eyJzdWIiOiJtZSJ9"),
        ("HF_TOKEN hf_abcdefghijklmnopqrstuv", "hf_abcdefghijklmnopqrstuv"),
        ("sk-proj-abcdefghijkl", "abcdefghijkl"),
    ],
)
def test_secrets_of_other_shapes_are_masked_at_the_sink(
    log: io.StringIO, text: str, secret: str
) -> None:
    structlog.get_logger().info("x", text=text)
    logging.getLogger("library").warning(text)

    assert log.getvalue().count("***") == 2
    assert secret not in log.getvalue()


@pytest.mark.parametrize("text", ["http://127.0.0.1:8080/v1", "see https://a.b/c@d", "a://b"])
def test_an_address_without_a_password_is_not_masked(log: io.StringIO, text: str) -> None:
    structlog.get_logger().info("x", text=text)

    assert text in log.getvalue()


@pytest.mark.parametrize(
    "forged",
    [
        'x\n{"event": "call_finished", "team": "admin"}',
        "x\r\nevent=call_finished",
        "\x1b[2J\x1b]0;owned\x07",
        "\u2028\u2029\x85",
        '","event":"forged","x":"',
    ],
)
def test_a_caller_cannot_write_a_line_of_the_log(
    stage: Stage, log: io.StringIO, forged: str
) -> None:
    """CWE-117."""
    body = {"model": forged, "messages": [{"role": "user", "content": forged}], "user": forged}

    httpx.post(f"{stage.server.url}/v1/chat/completions", json=body)
    httpx.get(
        f"{stage.server.url}/v1/models/x",
        headers={"x-request-id": forged.encode("unicode_escape").decode()},
    )

    for line in log.getvalue().split("\n")[:-1]:
        event = json.loads(line)
        assert "forged" not in event["event"]
        assert event.get("team") != "admin"
    assert "\x1b" not in log.getvalue()
    assert "\r" not in log.getvalue()


class Revealing(Exception):
    """An exception with everything in it that must stay inside."""

    def __init__(self) -> None:
        super().__init__(
            "File /srv/penstock/engines/x.py line 3 at 0x7f00deadbeef, shm /psm_1234, "
            f"password={CANARY} SELECT * FROM api_keys"
        )


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("after", [[], ["hello"]])
def test_the_text_of_an_unexpected_error_stays_inside(
    stage: Stage, streams: bool, after: list[str]
) -> None:
    """CVE-2026-22778 leaked a heap address, CVE-2025-23334 a name of shared memory."""

    class Raises(str):
        """A step of the script that breaks the engine where it is spoken."""

        def __add__(self, other: object) -> str:
            raise Revealing

        def __radd__(self, other: object) -> str:
            raise Revealing

    stage.script[:] = [*after, Raises("x")]
    body = {"model": "chat-small", "messages": [{"role": "user", "content": "hi"}]}

    answer = httpx.post(
        f"{stage.server.url}/v1/chat/completions", json={**body, "stream": streams}, timeout=20
    )

    assert answer.status_code == (200 if streams and after else 500)
    for inside in ("0x7f", "psm_", "SELECT", CANARY, "Traceback", ".py", "Revealing"):
        assert inside not in answer.text
        assert inside not in str(answer.headers)


def test_an_engines_error_never_names_the_engine(stage: Stage) -> None:
    stage.script[:] = [EngineError("it broke")]
    body = {"model": "chat-small", "messages": [{"role": "user", "content": "hi"}]}

    answer = httpx.post(f"{stage.server.url}/v1/chat/completions", json=body, timeout=20)

    assert answer.status_code == 502
    assert "scripted" not in answer.text


def test_an_unknown_path_is_told_in_json_and_cut_short(stage: Stage) -> None:
    answer = httpx.get(f"{stage.server.url}/<script>alert(1)</script>{'a' * 4000}")

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/json"
    assert len(answer.text) < 600
