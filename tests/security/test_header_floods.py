"""CVE-2025-48956: one huge head exhausts the server's memory, before any authentication."""

import psutil
import pytest

from gateway.listener.connection import MAX_HEADER_BYTES, MAX_HEADERS, MAX_TARGET_BYTES
from tests.security.attacker import connected, exchange, parsed, until_closed
from tests.security.conftest import Stage

START = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n"
FLOODS = {
    "one long value": [START + b"x: " + b"a" * (2 * MAX_HEADER_BYTES) + b"\r\n\r\n"],
    "one long name": [START + b"a" * (2 * MAX_HEADER_BYTES) + b": x\r\n\r\n"],
    "one value that does not end": [START + b"x: ", *[b"a" * 65536] * 50],
    "many small headers": [START + b"x: a\r\n" * 10_000 + b"\r\n"],
    "a few headers too many": [START + b"x: a\r\n" * MAX_HEADERS + b"\r\n"],
    "many large headers": [START + (b"x: " + b"a" * 1000 + b"\r\n") * 200 + b"\r\n"],
    "a long path": [b"GET /" + b"a" * MAX_TARGET_BYTES + b" HTTP/1.1\r\nhost: localhost\r\n\r\n"],
    "a path that does not end": [b"GET /", *[b"a" * 65536] * 50],
    "a long query": [b"GET /?" + b"a" * MAX_TARGET_BYTES + b" HTTP/1.1\r\nhost: x\r\n\r\n"],
}


@pytest.mark.parametrize("pieces", FLOODS.values(), ids=list(FLOODS))
def test_a_head_that_is_too_large_is_refused(stage: Stage, pieces: list[bytes]) -> None:
    answer = exchange(stage.server, *pieces)

    # The answer may be lost on a client that goes on sending; the connection is closed.
    assert answer.status == 431 or (answer.status == 0 and len(pieces) > 1)


def test_a_head_of_a_common_size_is_let_through(stage: Stage) -> None:
    cookies = b"".join(b"x-%d: %b\r\n" % (i, b"a" * 300) for i in range(100))

    answer = exchange(stage.server, START + cookies + b"connection: close\r\n\r\n")

    assert answer.status == 200


def test_heads_that_do_not_end_do_not_pile_up_in_memory(stage: Stage) -> None:
    before = psutil.Process().memory_info().rss

    for _ in range(20):
        with connected(stage.server) as connection:
            connection.sendall(START + b"x: ")
            try:
                for _ in range(160):
                    connection.sendall(b"a" * 65536)
            except OSError:
                pass  # it was cut off, as it should be
            assert parsed(until_closed(connection)).status in (0, 431)

    # 200 MiB were sent, or would have been.
    assert psutil.Process().memory_info().rss - before < 50 * 1024 * 1024


def test_empty_lines_before_a_request_do_not_go_on_for_ever(stage: Stage) -> None:
    assert exchange(stage.server, *[b"\r\n" * 32768] * 50).status in (0, 431)
