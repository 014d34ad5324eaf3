"""Request smuggling: two servers that read one message in two ways (CWE-444)."""

import pytest

from tests.security.attacker import BODY, chat_head, chunked, connected, exchange, until_closed
from tests.security.conftest import Stage

INNER = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n"
LENGTH = f"content-length: {len(BODY)}"
CHUNKED = "transfer-encoding: chunked"

TWO_LENGTHS = {
    "length, then chunked": [LENGTH, CHUNKED],
    "chunked, then length": [CHUNKED, LENGTH],
    "two lengths": [LENGTH, "content-length: 5"],
    "the same length twice": [LENGTH, LENGTH],
    "a list of lengths": [f"content-length: {len(BODY)}, {len(BODY)}"],
    "a signed length": [f"content-length: +{len(BODY)}"],
    "a hexadecimal length": ["content-length: 0x48"],
    "a length with a space before the colon": [f"content-length : {len(BODY)}"],
    "an empty length": ["content-length:"],
    "a negative length": ["content-length: -1"],
    "a length that does not fit": ["content-length: 99999999999999999999999999"],
    "a coding that ends in chunked": ["transfer-encoding: xchunked"],
    "chunked, then identity": ["transfer-encoding: chunked, identity"],
    "identity": ["transfer-encoding: identity"],
    "two codings": [CHUNKED, "transfer-encoding: identity"],
    "a coding that is not known": ["transfer-encoding: gzip, chunked"],
    "chunked twice": ["transfer-encoding: chunked, chunked"],
    "a vertical tab before chunked": ["transfer-encoding:\x0bchunked"],
    "a quoted coding": ['transfer-encoding: "chunked"'],
    "a folded coding": ["transfer-encoding:\r\n chunked"],
    "a name with a space": ["transfer encoding: chunked"],
    "a header without a colon": ["transfer-encoding"],
    "a bare carriage return": ["x: a\rtransfer-encoding: chunked"],
    "a bare line feed": ["x: a\ntransfer-encoding: chunked"],
    "a null byte": ["x: a\x00"],
}


@pytest.mark.parametrize("headers", TWO_LENGTHS.values(), ids=list(TWO_LENGTHS))
def test_a_length_that_can_be_read_in_two_ways_is_refused(stage: Stage, headers: list[str]) -> None:
    answer = exchange(stage.server, chat_head(*headers), chunked(BODY), INNER)

    assert answer.status == 400
    assert answer.headers["connection"] == "close"
    assert answer.error["type"] == "invalid_request_error"
    assert answer.num_answers == 1, "what came after the body was taken for a request"
    assert stage.num_calls == 0


BAD_CHUNKS = {
    "a negative size": b"-1\r\nx\r\n0\r\n\r\n",
    "a size that does not fit": b"fffffffffffffffff\r\nx\r\n0\r\n\r\n",
    "a size with 0x": b"0x1\r\nx\r\n0\r\n\r\n",
    "more than the size says": b"1\r\nxy\r\n0\r\n\r\n",
    "a line feed alone": b"1\nx\n0\n\n",
    "an extension that ends in a line feed": b"1;a\nx\r\n0\r\n\r\n",
    "a space before the size": b" 1\r\nx\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("body", BAD_CHUNKS.values(), ids=list(BAD_CHUNKS))
def test_a_chunk_that_is_none_is_refused(stage: Stage, body: bytes) -> None:
    answer = exchange(stage.server, chat_head(CHUNKED) + body, INNER)

    assert answer.status == 400
    assert answer.num_answers == 1
    assert stage.num_calls == 0


@pytest.mark.parametrize("version", ["0.9", "1.2", "1.7", "2.0", "3.0", "9.9", "1.10", "x"])
def test_a_version_that_is_not_spoken_here_is_refused(stage: Stage, version: str) -> None:
    head = chat_head(LENGTH, version=version)

    assert exchange(stage.server, head, BODY).status == 400
    assert stage.num_calls == 0


def test_a_request_without_a_version_is_refused(stage: Stage) -> None:
    assert exchange(stage.server, b"GET /v1/models\r\n\r\n").status == 400


def test_chunked_is_no_word_of_http_1_0(stage: Stage) -> None:
    head = chat_head(CHUNKED, version="1.0")

    assert exchange(stage.server, head, chunked(BODY)).status == 400


HOSTS = {
    "none": [],
    "two": ["host: localhost", "host: evil.example"],
    "the same twice": ["host: localhost", "host: localhost"],
    "with a path (CVE-2026-48710)": ["host: localhost/healthz"],
    "with a query": ["host: localhost?x"],
    "with a fragment": ["host: localhost#x"],
    "with a user": ["host: user@localhost"],
    "with a space": ["host: local host"],
    "with a backslash": ["host: localhost\\evil"],
}


@pytest.mark.parametrize("hosts", HOSTS.values(), ids=list(HOSTS))
def test_a_host_that_is_missing_doubled_or_no_host_is_refused(
    stage: Stage, hosts: list[str]
) -> None:
    head = "\r\n".join(["GET /admin/models HTTP/1.1", *hosts]).encode() + b"\r\n\r\n"

    assert exchange(stage.server, head).status == 400


@pytest.mark.parametrize(
    "trailer",
    ["authorization: Bearer x", "x-forwarded-for: 10.0.0.1", "host: evil", "x-api-key: x"],
)
def test_a_trailer_does_not_become_a_header(stage: Stage, trailer: str) -> None:
    body = chunked(BODY).removesuffix(b"\r\n") + trailer.encode() + b"\r\n\r\n"

    # As a header, each of these would make `anonymous` refuse the call or look elsewhere.
    answer = exchange(stage.server, chat_head(CHUNKED, "connection: close") + body)

    assert answer.status == 200
    assert stage.num_calls == 1


def test_what_follows_a_message_is_a_request_of_its_own_and_answered_in_turn(stage: Stage) -> None:
    last = INNER.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")

    with connected(stage.server) as connection:
        connection.sendall(chat_head(LENGTH) + BODY + INNER + last)
        answers = until_closed(connection)

    assert answers.count(b"HTTP/1.1 200") == 3
    assert answers.index(b"chat.completion") < answers.index(b'"object":"list"')


def test_a_broken_request_behind_a_good_one_does_not_answer_in_its_place(stage: Stage) -> None:
    with connected(stage.server) as connection:
        connection.sendall(chat_head(LENGTH) + BODY + b"BROKEN\r\n\r\n")
        answers = until_closed(connection)

    assert not answers.startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("upgrade", ["h2c", "websocket", "TLS/1.0"])
def test_an_upgrade_opens_no_way_round_the_rules(stage: Stage, upgrade: str) -> None:
    head = (
        "GET /v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade, HTTP2-Settings\r\n"
        f"upgrade: {upgrade}\r\nhttp2-settings: AAMAAABkAAQAAP__\r\nsec-websocket-version: 13\r\n"
        "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )

    answer = exchange(stage.server, head.encode() + INNER + b"\x00" * 100)

    assert answer.status == 200
    assert answer.num_answers == 1


@pytest.mark.parametrize(
    "line", ["CONNECT localhost:80", "TRACE /v1/models", "PRI *", "BREW /coffee", "get /v1/models"]
)
def test_a_method_that_nobody_asked_for_opens_nothing(stage: Stage, line: str) -> None:
    head = f"{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"

    assert exchange(stage.server, head.encode()).status in (400, 404, 405)
