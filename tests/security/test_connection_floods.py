"""Too many at once: connections, pipelined requests, sequences of one call."""

import contextlib
import json

import httpx
import pytest

from gateway.listener.connection import MAX_PIPELINED
from tests.fakes import Hold
from tests.security.attacker import BODY, chat_head, connected, exchange, parsed, until_closed
from tests.security.conftest import MAX_CONNECTIONS, Stage

PING = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"


def test_one_connection_too_many_is_told_to_come_back(stage: Stage) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(MAX_CONNECTIONS):
            stack.enter_context(connected(stage.server))
        answer = exchange(stage.server, PING)

    assert answer.status == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["connection"] == "close"
    assert answer.error["code"] == "server_is_overloaded"


def test_far_too_many_connections_are_not_even_told(stage: Stage) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(2 * MAX_CONNECTIONS):
            stack.enter_context(connected(stage.server))
        answer = exchange(stage.server, PING)

    assert answer.raw == b""


def test_a_client_that_piles_up_pipelined_requests_is_dropped(stage: Stage) -> None:
    hold = Hold()
    stage.script[:] = ["hello", hold]
    body = BODY[:-1] + b', "stream": true}'

    with connected(stage.server) as connection:
        connection.sendall(chat_head(f"content-length: {len(body)}") + body)
        stage.server.wait_until(hold.reached.is_set)
        connection.sendall(PING * (MAX_PIPELINED + 1))
        answers = until_closed(connection)

    assert b"HTTP/1.1 400" not in answers, "it would stand in the middle of the stream"
    stage.server.wait_until(lambda: stage.engine.running == 0)


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 1_000_000},
        {"n": 17},
        {"n": -1},
        {"n": 10**30},
        {"best_of": 1_000_000},
        {"max_tokens": 10**30},
        {"max_tokens": -1},
        {"top_logprobs": 1_000_000, "logprobs": True},
        {"logit_bias": {str(i): 1 for i in range(100_000)}},
        {"stop": ["a"] * 100_000},
    ],
    ids=lambda fields: json.dumps(fields)[:40],
)
def test_fan_out_is_bounded(stage: Stage, fields: dict[str, object]) -> None:
    """CVE-2024-8939, CVE-2026-34756: one call that asks for the work of a million."""
    body = {**json.loads(BODY), **fields}

    answer = httpx.post(f"{stage.server.url}/v1/chat/completions", json=body, timeout=20)

    assert answer.status_code == 400
    assert stage.num_calls == 0


def test_a_connection_that_is_closed_at_once_costs_nothing(stage: Stage) -> None:
    for _ in range(200):
        with connected(stage.server):
            pass
    stage.server.wait_until(lambda: len(stage.server.connections()) < MAX_CONNECTIONS)

    assert parsed(_asked(stage)).status == 200


def _asked(stage: Stage) -> bytes:
    with connected(stage.server) as connection:
        connection.sendall(PING.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
        return until_closed(connection)
