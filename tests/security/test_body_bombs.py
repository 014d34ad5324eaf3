"""Bodies that grow when they are read: packed, nested, of very many parts (CWE-409, CWE-770)."""

import gzip
import json
import zlib
from collections.abc import Iterator

import httpx
import psutil
import pytest

from gateway.api.body_shape import MAX_DEPTH, MAX_FIELDS, MAX_VALUES
from tests.security.attacker import BODY, chat_head, chunked, connected, exchange, until_closed
from tests.security.conftest import Stage

BOMB = gzip.compress(b"\0" * (64 * 1024 * 1024), 9)


def post(stage: Stage, content: bytes | Iterator[bytes], **headers: str) -> httpx.Response:
    return httpx.post(
        f"{stage.server.url}/v1/chat/completions",
        content=content,
        headers={"content-type": "application/json", **headers},
        timeout=30,
    )


@pytest.mark.parametrize(
    "encoding", ["gzip", "GZIP", "deflate", "br", "zstd", "gzip, gzip", "identity, gzip", "x"]
)
def test_a_packed_body_is_refused_unread(stage: Stage, encoding: str) -> None:
    """CVE-2024-12886: 64 MiB in 64 KiB. What is not unpacked cannot burst."""
    answer = post(stage, BOMB, **{"content-encoding": encoding})

    assert answer.status_code == 415
    assert answer.headers["accept-encoding"] == "identity"
    assert stage.num_calls == 0


def test_a_packed_body_that_calls_itself_plain_is_not_unpacked(stage: Stage) -> None:
    for bomb in (BOMB, zlib.compress(b"\0" * 1024 * 1024)):
        assert post(stage, bomb).status_code == 400


@pytest.mark.parametrize("encoding", ["identity", "Identity", ""])
def test_a_body_that_is_called_plain_is_read(stage: Stage, encoding: str) -> None:
    assert post(stage, BODY, **{"content-encoding": encoding}).status_code == 200


def with_field(value: bytes) -> bytes:
    return BODY[:-1] + b', "metadata": ' + value + b"}"


SHAPES = {
    "deep lists": with_field(b"[" * 100_000 + b"]" * 100_000),
    "deep objects": with_field(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "deep and never closed": b"[" * 1_000_000,
    "just too deep": with_field(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH),
    "many fields": with_field(
        b"{" + b",".join(b'"%d":1' % i for i in range(MAX_FIELDS + 1)) + b"}"
    ),
    "many values": with_field(b"[" + b"1," * (MAX_VALUES + 1) + b"1]"),
    "many empty objects": with_field(b"[" + b"{}," * (MAX_VALUES + 1) + b"{}]"),
    "many empty strings": with_field(b"[" + b'"",' * (MAX_VALUES + 1) + b'""]'),
    "a string that does not end": b'{"model": "' + b"," * (MAX_VALUES + 2),
    "a number without end": with_field(b"1" * 5_000_000),
    "an exponent": with_field(b"1e999999999"),
}


@pytest.mark.parametrize("body", SHAPES.values(), ids=list(SHAPES))
def test_a_body_of_a_bad_shape_is_a_400_and_costs_little_memory(stage: Stage, body: bytes) -> None:
    before = psutil.Process().memory_info().rss

    answer = post(stage, body)

    assert answer.status_code == 400
    assert len(answer.text) < 1000
    assert psutil.Process().memory_info().rss - before < 100 * 1024 * 1024
    assert stage.num_calls == 0


def test_marks_inside_a_text_do_not_count(stage: Stage) -> None:
    text = '[{"a": 1}, \\"' * 100_000
    body = {"model": "chat-small", "messages": [{"role": "user", "content": text}]}

    # Long enough to be refused by the engine, but for its length and not for its shape.
    answer = post(stage, json.dumps(body).encode())

    assert answer.json()["error"]["code"] == "context_length_exceeded"


def test_a_chunk_for_every_byte_is_refused(stage: Stage) -> None:
    """CVE-2025-23310, CVE-2025-23311: very many very small chunks."""
    body = BODY[:-1] + b" " * 200_000 + b"}"
    single = chunked(*(body[i : i + 1] for i in range(len(body))))

    answer = exchange(stage.server, chat_head("transfer-encoding: chunked"), single)

    assert answer.status in (400, 0)
    assert stage.num_calls == 0


def test_chunks_of_a_common_size_are_read(stage: Stage) -> None:
    body = BODY[:-1] + b" " * 200_000 + b"}"
    pieces = (body[i : i + 16] for i in range(0, len(body), 16))

    assert post(stage, pieces).status_code == 200


def test_a_chunk_extension_without_end_is_refused(stage: Stage) -> None:
    endless = [b"1;" + b"a" * 65536] + [b"a" * 65536] * 50

    assert exchange(stage.server, chat_head("transfer-encoding: chunked"), *endless).status in (
        400,
        0,
    )


def test_trailers_without_end_are_refused(stage: Stage) -> None:
    endless = [chunked(BODY).removesuffix(b"\r\n")] + [b"x: a\r\n" * 10_000] * 50

    assert exchange(stage.server, chat_head("transfer-encoding: chunked"), *endless).status in (
        400,
        0,
    )


@pytest.mark.parametrize("declared", [10**9, 10**15])
def test_a_body_that_declares_itself_too_large_is_refused_unread(
    stage: Stage, declared: int
) -> None:
    """CVE-2024-12537: the size is believed where it is a reason to refuse, and nowhere else."""
    with connected(stage.server) as connection:
        connection.sendall(chat_head(f"content-length: {declared}"))
        answer = connection.recv(65536) + until_closed(connection)

    assert answer.startswith(b"HTTP/1.1 413")


def test_a_body_that_turns_out_too_large_is_refused(stage: Stage) -> None:
    def endless() -> Iterator[bytes]:
        yield BODY[:-1]
        for _ in range(600):
            yield b" " * 65536

    assert post(stage, endless()).status_code == 413


MULTIPART = {
    "a boundary without end (CVE-2024-8984)": "multipart/form-data; boundary=" + "-" * 4000,
    "no boundary": "multipart/form-data",
    "a form": "application/x-www-form-urlencoded",
    "a text": "text/plain",
    "a type without end": "application/" + "a" * 4000,
    "msgpack": "application/x-msgpack",
}


@pytest.mark.parametrize("media_type", MULTIPART.values(), ids=list(MULTIPART))
def test_a_body_of_another_kind_is_refused_unread(stage: Stage, media_type: str) -> None:
    answer = post(stage, b"-" * 1_000_000, **{"content-type": media_type})

    assert answer.status_code == 415
    assert len(answer.text) < 1000
