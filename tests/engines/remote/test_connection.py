import asyncio
from collections.abc import Mapping

import aiohttp
import pytest
import uvloop

from engines.errors import Unavailable
from engines.remote.config import RemoteConfig
from engines.remote.connection import MAX_FRAMING_BYTES, MAX_UNREAD_BYTES, Connection
from engines.remote.failures import ConnectionFailure
from engines.remote.upstream import Question
from engines.remote.upstream import Upstream as Client
from tests.engines.remote.conftest import GET, Open, answer_of, until
from tests.upstream import END, SSE_HEAD, Scene, Upstream, answering, chunked, head, sending
from tests.upstream import Connection as Served

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
WHOLE = OK + b"content-length: 5\r\n\r\nhello"

# What is well-formed, and whether its connection may be used again.
WELL_FORMED: Mapping[str, tuple[bytes, bool]] = {
    "with a length": (WHOLE, True),
    "empty": (OK + b"content-length: 0\r\n\r\n", True),
    "in chunks": (CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", True),
    "with chunk extensions": (CHUNKED + b'5;a=b;c="d"\r\nhello\r\n0;e\r\n\r\n', True),
    "with trailers": (CHUNKED + b"5\r\nhello\r\n0\r\nexpires: 0\r\nx: y\r\n\r\n", True),
    "until the connection ends": (OK + b"content-type: text/plain\r\n\r\nhello", False),
    "with connection: close": (OK + b"connection: close\r\ncontent-length: 5\r\n\r\nhello", False),
    "of HTTP/1.0": (b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello", False),
    "of HTTP/1.0, kept": (
        b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\ncontent-length: 5\r\n\r\nhello",
        True,
    ),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", True),
    "304": (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", True),
    "after interim ones": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + WHOLE,
        True,
    ),
    "without a reason": (b"HTTP/1.1 200\r\ncontent-length: 5\r\n\r\nhello", True),
    "with empty headers": (OK + b"a:\r\nb: \r\nContent-Length:5\r\nx-c:   d  \r\n\r\nhello", True),
    "a redirect": (b"HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n", True),
}

BROKEN: Mapping[str, tuple[bytes, str]] = {
    "nothing": (b"", "closed the connection before"),
    "half a status line": (b"HTTP/1.1 20", "closed the connection before"),
    "half a head": (OK + b"content-le", "closed the connection before"),
    "half a body": (OK + b"content-length: 9\r\n\r\nhello", "broke off"),
    "half a chunk": (CHUNKED + b"9\r\nhello", "broke off"),
    "no last chunk": (CHUNKED + b"5\r\nhello\r\n", "broke off"),
    "half a trailer": (CHUNKED + b"5\r\nhello\r\n0\r\nx: y", "broke off"),
    "only an interim answer": (b"HTTP/1.1 100 Continue\r\n\r\n", "closed the connection before"),
    "interim answers without an end": (b"HTTP/1.1 100 Continue\r\n\r\n" * 20 + WHOLE, "not HTTP"),
    "an interim answer with a body": (
        b"HTTP/1.1 150 Odd\r\ncontent-length: 2\r\n\r\nhi" + WHOLE,
        "not HTTP",
    ),
    "another protocol": (
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n" + WHOLE,
        "not HTTP",
    ),
    "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "not HTTP"),
    "HTTP/1.2": (b"HTTP/1.2 200 OK\r\ncontent-length: 0\r\n\r\n", "not HTTP"),
    "two digits of status": (b"HTTP/1.1 20 OK\r\ncontent-length: 0\r\n\r\n", "not HTTP"),
    "status 099": (b"HTTP/1.1 099 OK\r\ncontent-length: 0\r\n\r\n", "not HTTP"),
    "two lengths": (OK + b"content-length: 5\r\ncontent-length: 2\r\n\r\nhello", "not HTTP"),
    "a list of lengths": (OK + b"content-length: 5, 5\r\n\r\nhello", "not HTTP"),
    "a negative length": (OK + b"content-length: -1\r\n\r\nhello", "not HTTP"),
    "an endless length": (OK + b"content-length: %d\r\n\r\nhello" % 10**30, "not HTTP"),
    "a length and chunks": (
        OK + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "not HTTP",
    ),
    "chunks and a length": (
        OK + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "not HTTP",
    ),
    "another coding": (OK + b"transfer-encoding: gzip\r\n\r\nhello", "not HTTP"),
    "two codings": (
        OK + b"transfer-encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "not HTTP",
    ),
    "two codings in two lines": (
        OK + b"transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "not HTTP",
    ),
    "chunks, then not": (
        OK + b"transfer-encoding: chunked\r\ntransfer-encoding: x\r\n\r\n0\r\n\r\n",
        "not HTTP",
    ),
    "no size of a chunk": (CHUNKED + b"zz\r\nhello\r\n0\r\n\r\n", "not HTTP"),
    "a huge chunk": (CHUNKED + b"f" * 20 + b"\r\nhello\r\n0\r\n\r\n", "not HTTP"),
    "a chunk that is longer than its size": (CHUNKED + b"2\r\nhello\r\n0\r\n\r\n", "not HTTP"),
    "a folded header": (OK + b"a: b\r\n c\r\ncontent-length: 0\r\n\r\n", "not HTTP"),
    "a space before a colon": (OK + b"content-length : 0\r\n\r\n", "not HTTP"),
    "NUL in a header": (OK + b"a: b\0c\r\ncontent-length: 0\r\n\r\n", "not HTTP"),
    "bare line feeds": (b"HTTP/1.1 200 OK\ncontent-length: 0\n\n", "not HTTP"),
    "a huge header": (head(x="y" * 70_000, content_length=2) + b"{}", "not HTTP"),
    "a header without an end": (OK + b"x: " + b"y" * 1_000_000, "not HTTP"),
    "a name without an end": (OK + b"x" * 1_000_000, "not HTTP"),
    "many headers": (
        OK + b"".join(b"x-%d: y\r\n" % n for n in range(10_000)) + b"\r\n",
        "not HTTP",
    ),
    "trailers without an end": (CHUNKED + b"0\r\n" + b"x: y\r\n" * 20_000, "not HTTP"),
    "a length among the trailers": (
        CHUNKED + b"5\r\nhello\r\n0\r\ncontent-length: 3\r\n\r\n",
        "not HTTP",
    ),
    "an extension without an end": (CHUNKED + b"5;" + b"x" * 1_000_000, "not HTTP"),
}


class FakeTransport(asyncio.Transport):
    """Takes everything and sends nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.is_aborted = False
        self.is_reading = True
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True


async def heard(*pieces: bytes, ends: bool = True) -> tuple[Connection, bytes]:
    """A connection that was asked, given these pieces, and their body."""
    connection = Connection(lambda _: None)
    connection.connection_made(FakeTransport())
    asked = asyncio.ensure_future(connection.ask(b"GET / HTTP/1.1\r\n\r\n", b"", 1e9))
    await asyncio.sleep(0)
    for piece in pieces:
        connection.data_received(piece)
    if ends and not connection.has_ended:
        connection.connection_lost(None)
    await asked
    body = connection.take()
    if connection.failure is not None:
        raise connection.failure
    return connection, body


@pytest.mark.parametrize("name", WELL_FORMED)
async def test_an_answer_is_the_same_wherever_it_is_cut(name: str) -> None:
    answer, may_stay = WELL_FORMED[name]
    whole, body = await heard(answer)
    assert body == (b"hello" if b"hello" in answer or b"llo" in answer else b"")

    for cut in range(1, len(answer)):
        connection, got = await heard(answer[:cut], answer[cut:])
        assert (connection.status, got) == (whole.status, body)
        assert dict(connection.fields) == dict(whole.fields)
        assert connection.rest() is may_stay
    bytewise, got = await heard(*(answer[at : at + 1] for at in range(len(answer))))
    assert (bytewise.status, got, bytewise.rest()) == (whole.status, body, may_stay)


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_answer_is_broken_wherever_it_is_cut(name: str) -> None:
    answer, words = BROKEN[name]
    step = max(1, len(answer) // 200)

    for cut in range(0, len(answer) + 1, step):
        with pytest.raises(ConnectionFailure) as failure:
            await heard(answer[:cut], answer[cut:])
        assert words in failure.value.words


@pytest.mark.parametrize("name", WELL_FORMED)
async def test_over_sockets_it_reads_what_another_client_reads(
    client: Client, upstream: Upstream, name: str
) -> None:
    answer, may_stay = WELL_FORMED[name]

    async def scene(connection: Served) -> None:
        await connection.send(answer)
        connection.keeps = may_stay

    upstream.scene = scene
    for _ in range(2):
        reply = await client.ask(GET)
        body = await reply.whole(1000)
        reply.close()
    assert upstream.num_accepted == (1 if may_stay else 2)

    async with (
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session,
        session.get(f"{upstream.base_url}/models", allow_redirects=False) as other,
    ):
        assert (reply.status, body) == (other.status, await other.read())
        theirs = {key.lower(): value for key, value in other.headers.items()}
        assert dict(reply.headers) == theirs
        assert all(reply.headers[key.title()] == value for key, value in theirs.items())


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_answer_costs_its_connection_and_nothing_else(
    client: Client, upstream: Upstream, name: str
) -> None:
    answer, words = BROKEN[name]
    upstream.scene = sending(answer)

    with pytest.raises(Unavailable, match=words):
        await answer_of(client)
    assert client.num_open == 0

    upstream.scene = answering(b"{}")
    assert await answer_of(client) == (200, b"{}")


@pytest.mark.parametrize("surplus", [WHOLE, OK, b"x", b"\0" * 300_000, b"0\r\n\r\n"])
@pytest.mark.parametrize("answer", [WHOLE, CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"])
async def test_what_follows_an_answer_is_not_the_next_one(
    client: Client, upstream: Upstream, answer: bytes, surplus: bytes
) -> None:
    async def scene(connection: Served) -> None:
        await connection.send(answer + surplus)
        connection.keeps = True

    upstream.scene = scene
    assert await answer_of(client) == (200, b"hello")

    upstream.scene = answering(b"[2]")
    assert await answer_of(client) == (200, b"[2]")
    assert upstream.num_accepted == 2


async def test_what_follows_an_answer_later_is_seen_while_it_is_read() -> None:
    connection, _ = await heard(WHOLE)

    connection.data_received(WHOLE)

    assert connection.status == 200
    assert not connection.rest()


async def test_bytes_that_nobody_asked_for_close_the_connection() -> None:
    connection, _ = await heard(WHOLE)
    assert connection.rest()

    connection.data_received(b"HTTP/1.1 200 OK\r\n")

    assert not connection.rest()
    with pytest.raises(ConnectionFailure):
        await connection.ask(b"", b"", 1e9)


async def test_a_reader_that_is_slow_stops_the_upstream(client: Client, upstream: Upstream) -> None:
    size = 30_000_000
    upstream.scene = sending(head(content_length=size) + b"x" * size)
    reply = await client.ask(GET)
    connection = reply._connection
    assert connection is not None
    for _ in range(100_000):
        if connection.is_paused:
            break
        await asyncio.sleep(0)
    for _ in range(50):
        await asyncio.sleep(0)
    assert connection.is_paused

    assert connection._num_unread < 2 * MAX_UNREAD_BYTES
    assert len(await reply.whole(size)) == size
    reply.close()


async def test_a_large_question_is_answered_before_it_has_gone_out(opened: Open) -> None:
    ended = asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head("413 Too Large", content_length=2) + b"{}")
        await ended.wait()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = await opened(base_url=f"http://127.0.0.1:{port}/v1")
    question = Question(path="chat/completions", body=b"x" * 30_000_000)

    assert await answer_of(client, question) == (413, b"{}")

    assert client.num_open == 0  # most of the question is still on its way
    ended.set()
    server.close()


async def test_an_answer_that_is_longer_than_is_taken_is_not_read_to_its_end(
    client: Client, upstream: Upstream
) -> None:
    lengths: list[Scene] = [
        sending(head(content_length=MAX_FRAMING_BYTES) + b"x" * 100, then="hang"),
        sending(SSE_HEAD + chunked(b"x" * 2000), then="hang"),
    ]
    for scene in lengths:
        upstream.scene = scene
        reply = await client.ask(GET)
        with pytest.raises(Unavailable, match="longer"):
            await reply.whole(1000)
        reply.close()

    await until(upstream, lambda: upstream.num_open == 0)


async def test_pieces_come_joined_and_their_end_is_seen(client: Client, upstream: Upstream) -> None:
    upstream.scene = sending(SSE_HEAD + chunked(b"a") + chunked(b"b") + END)
    reply = await client.ask(GET)

    assert await reply.piece() == b"ab"
    assert await reply.piece() == b""
    reply.close()
    reply.close()
    with pytest.raises(Unavailable):
        await reply.piece()


def test_all_of_it_works_on_uvloop_too(upstream: Upstream) -> None:
    async def ask_in_many_ways() -> None:
        client = Client("up", RemoteConfig(base_url=upstream.base_url))
        await client.open()
        for _ in range(3):
            assert (await answer_of(client))[0] == 200
        assert upstream.num_accepted == 1

        upstream.scene = sending(head(content_length=3_000_000) + b"x" * 3_000_000)
        question = Question(path="chat/completions", body=b"y" * 3_000_000)
        _, body = await answer_of(client, question)
        assert len(body) == len(upstream.last.body) == 3_000_000

        upstream.scene = sending(then="hang")
        upstream.clear()
        waiting = asyncio.create_task(answer_of(client))
        await until(upstream, lambda: len(upstream.requests) == 1)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert client.num_open == 0

        upstream.scene = sending(SSE_HEAD + chunked(b"a"), then="hang")
        reply = await client.ask(GET)
        assert await reply.piece() == b"a"
        await client.close()
        with pytest.raises(Unavailable, match="closed"):
            await reply.piece()
        reply.close()

    uvloop.run(ask_in_many_ways())
    upstream.wait_until(lambda: upstream.num_open == 0)
