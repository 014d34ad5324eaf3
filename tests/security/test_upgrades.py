"""Requests that ask for another protocol: answered in HTTP/1.1, and nothing behind them is."""

import pytest

from tests.security.attacker import (
    BODY,
    chat_head,
    chunked,
    connected,
    exchange,
    parsed,
    until_closed,
)
from tests.security.conftest import Stage

INNER = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n"
# As java.net.http.HttpClient sends it with its first request to any `http:` URL.
H2C = ["connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAEAAEAAAAIAAAAA"]
LENGTH = f"content-length: {len(BODY)}"
CHUNKED = "transfer-encoding: chunked"
BODIES = {
    "by length": (LENGTH, BODY),
    "in one chunk": (CHUNKED, chunked(BODY)),
    "in chunks": (CHUNKED, chunked(BODY[:1], BODY[1:30], BODY[30:])),
    "with a trailer": (CHUNKED, chunked(BODY)[:-2] + b"authorization: Bearer x\r\n\r\n"),
}
cases = pytest.mark.parametrize(("framing", "body"), BODIES.values(), ids=list(BODIES))


@cases
@pytest.mark.parametrize("behind", [b"", INNER, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"])
def test_a_body_in_one_packet_with_its_head_is_read_and_nothing_behind_it(
    stage: Stage, framing: str, body: bytes, behind: bytes
) -> None:
    answer = exchange(stage.server, chat_head(*H2C, framing) + body + behind)

    assert (answer.status, answer.num_answers) == (200, 1), answer.raw
    assert answer.headers["connection"] == "close"
    assert stage.num_calls == 1
    stage.check_health()


@cases
def test_a_body_in_later_packets_is_read_and_nothing_behind_it(
    stage: Stage, framing: str, body: bytes
) -> None:
    with connected(stage.server) as connection:
        connection.sendall(chat_head(*H2C, framing, "expect: 100-continue"))
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        for at in range(0, len(body), 7):
            connection.sendall(body[at : at + 7])
        connection.sendall(INNER)
        answer = parsed(until_closed(connection))

    assert (answer.status, answer.num_answers) == (200, 1), answer.raw
    assert stage.num_calls == 1


def test_a_request_before_it_is_answered_first(stage: Stage) -> None:
    first = chat_head(LENGTH) + BODY

    answer = exchange(stage.server, first + chat_head(*H2C, LENGTH) + BODY + INNER)

    assert (answer.status, answer.num_answers) == (200, 2), answer.raw
    assert stage.num_calls == 2


@pytest.mark.parametrize(
    ("framing", "body"),
    {
        "both": ([LENGTH, CHUNKED], chunked(BODY)),
        "two lengths": ([LENGTH, "content-length: 5"], BODY),
        "chunked twice": ([CHUNKED, CHUNKED], chunked(BODY)),
        "a coding that is not known": (["transfer-encoding: gzip"], BODY),
        "a signed length": ([f"content-length: +{len(BODY)}"], BODY),
        "a negative chunk": ([CHUNKED], b"-1\r\nx\r\n0\r\n\r\n"),
        "a chunk too long": ([CHUNKED], b"1\r\nxy\r\n0\r\n\r\n"),
    }.values(),
)
def test_a_body_that_can_be_read_in_two_ways_is_refused_as_ever(
    stage: Stage, framing: list[str], body: bytes
) -> None:
    answer = exchange(stage.server, chat_head(*H2C, *framing) + body + INNER)

    assert (answer.status, answer.num_answers) == (400, 1), answer.raw
    assert answer.error["message"] != "the body is empty; send a JSON object"
    assert stage.num_calls == 0


def test_a_body_larger_than_the_head_may_be_is_read(stage: Stage) -> None:
    text = b"x" * 300_000
    body = BODY.replace(b'"hi"', b'"' + text + b'"')

    answer = exchange(stage.server, chat_head(*H2C, f"content-length: {len(body)}") + body)

    assert answer.status == 200, answer.raw


def test_what_is_sent_behind_it_while_it_is_answered_is_dropped(stage: Stage) -> None:
    with connected(stage.server) as connection:
        connection.sendall(chat_head(*H2C, LENGTH, "expect: 100-continue"))
        connection.recv(65536)
        connection.sendall(BODY + INNER)
        for _ in range(20):
            try:
                connection.sendall(b"\x00\x00\x12\x04\x00 BROKEN\r\n\r\n" + INNER)
            except (BrokenPipeError, ConnectionResetError):
                break
        answer = parsed(until_closed(connection))

    assert answer.num_answers <= 1  # a reset may take the answer with it
    assert stage.num_calls == 1
