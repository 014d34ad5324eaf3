"""Slowloris and its kin: clients that hold what they use for as long as they can (CWE-400)."""

import socket

import pytest

from tests.fakes import Hold
from tests.security.attacker import (
    BODY,
    chat_head,
    connected,
    exchange,
    parsed,
    until_closed,
)
from tests.security.conftest import Stage

LENGTH = f"content-length: {len(BODY)}"


def drip(connection: socket.socket, data: bytes) -> bytes:
    """Send byte by byte, at a pace at which each byte is news; what was answered, when cut off."""
    connection.settimeout(0.1)
    for position in range(len(data)):
        try:
            connection.sendall(data[position : position + 1])
            if seen := connection.recv(65536):
                return seen
            return b""
        except TimeoutError:
            continue
        except OSError:
            return b""
    pytest.fail("it was never cut off")


def test_a_head_that_comes_byte_by_byte_is_cut_off(stage: Stage) -> None:
    with connected(stage.server) as connection:
        answer = parsed(drip(connection, chat_head("x: " + "a" * 1000)))

    assert answer.status == 408
    assert answer.headers["connection"] == "close"


def test_empty_lines_that_come_one_by_one_are_cut_off(stage: Stage) -> None:
    with connected(stage.server) as connection:
        answer = parsed(drip(connection, b"\r\n" * 500))

    assert answer.status == 408


def test_a_connection_that_is_never_used_is_closed_without_a_word(stage: Stage) -> None:
    assert exchange(stage.server).raw == b""


@pytest.mark.parametrize("in_one_piece", [True, False])
def test_a_second_head_that_does_not_end_is_cut_off_too(stage: Stage, in_one_piece: bool) -> None:
    first, second = (
        b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n",
    )

    with connected(stage.server) as connection:
        connection.sendall(first + second if in_one_piece else first)
        answers = connection.recv(65536)
        connection.sendall(b"" if in_one_piece else second)
        answers += until_closed(connection)

    assert answers.startswith(b"HTTP/1.1 200")
    assert b"HTTP/1.1 408" in answers


def test_a_body_that_does_not_come_is_told_so_in_the_dialects_shape(stage: Stage) -> None:
    answer = exchange(stage.server, chat_head(LENGTH) + BODY[:10])

    assert answer.status == 408
    assert answer.error["code"] == "request_timeout"
    assert answer.headers["connection"] == "close"
    assert answer.headers["x-request-id"].startswith("req_")
    assert stage.num_calls == 0


def test_a_body_that_comes_byte_by_byte_is_cut_off(stage: Stage) -> None:
    with connected(stage.server) as connection:
        connection.sendall(chat_head("content-length: 100000"))
        answer = parsed(drip(connection, b" " * 1000))

    assert answer.status == 408


def test_a_body_that_nobody_wants_is_not_waited_for(stage: Stage) -> None:
    head = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\n"

    with connected(stage.server) as connection:
        connection.sendall(head)
        answers = until_closed(connection)

    assert answers.startswith(b"HTTP/1.1 200")


def test_a_stream_is_not_cut_off_for_its_clients_silence(stage: Stage) -> None:
    hold = Hold()
    stage.script[:] = ["hello", hold, " there"]

    with connected(stage.server) as connection:
        body = BODY[:-1] + b', "stream": true}'
        # A stray line break behind a body is an old habit of clients.
        connection.sendall(chat_head(f"content-length: {len(body)}") + body + b"\r\n")
        stage.server.wait_until(hold.reached.is_set)
        # An idle connection of the same age is closed: so the check has been by.
        assert exchange(stage.server).raw == b""
        stage.server.run(hold.release)
        seen = b""
        while b"[DONE]" not in seen:
            seen += connection.recv(65536)

    assert b"there" in seen


def test_a_client_that_does_not_read_its_stream_is_dropped_and_the_engine_freed(
    stage: Stage,
) -> None:
    stage.script[:] = ["a" * 16384] * 2000
    body = BODY[:-1] + b', "stream": true}'

    with connected(stage.server, receive_bytes=4096) as connection:
        connection.sendall(chat_head(f"content-length: {len(body)}") + body)
        stage.server.wait_until(lambda: stage.engine.running == 1)
        # Nothing is read. 32 MB wait, of which the buffers on the way take a few hundred kB.
        stage.server.wait_until(lambda: stage.engine.running == 0)

    assert stage.engine.num_closed_early >= 1


def test_a_client_that_does_not_read_its_whole_answer_is_dropped(stage: Stage) -> None:
    stage.script[:] = ["a" * (16 * 1024 * 1024)]

    with connected(stage.server, receive_bytes=4096) as connection:
        connection.sendall(chat_head(LENGTH, "connection: close") + BODY)
        stage.server.wait_until(lambda: stage.num_calls == 1)
        stage.server.wait_until(lambda: not stage.server.gateway.calls)
        # The call is over; what the client did not read must not stay either.
        stage.server.wait_until(
            lambda: not any(c.transport.is_closing() for c in stage.server.connections())
        )
