import asyncio

import aiohttp
import hypothesis
import pytest
import uvloop
from hypothesis import strategies

from engines.errors import Unavailable
from engines.remote.config import RemoteConfig
from engines.remote.connection import MAX_FRAMING_BYTES, MAX_UNREAD_BYTES, Connection
from engines.remote.failures import BrokenOff, ConnectionFailure
from engines.remote.upstream import Question
from engines.remote.upstream import Upstream as Client
from tests.engines.remote.conftest import GET, Open, answer_of, until
from tests.engines.remote.http_answers import BROKEN, CHUNKED, OK, WELL_FORMED, WHOLE
from tests.upstream import END, SSE_HEAD, Scene, Upstream, answering, chunked, head, sending
from tests.upstream import Connection as Served


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


def mangled(answer: bytes, at: float, width: int, by: bytes) -> bytes:
    place = int(at * len(answer))
    return answer[:place] + by + answer[place + width :]


@hypothesis.given(
    strategies.sampled_from([answer for answer, _ in (*WELL_FORMED.values(), *BROKEN.values())]),
    strategies.floats(0, 1),
    strategies.integers(0, 4),
    strategies.sampled_from(
        [b"", b"\r\n", b"\n", b"\0", b":", b" ", b"9", b"\xff", WHOLE, CHUNKED]
    ),
    strategies.integers(1, 30),
)
@hypothesis.settings(max_examples=300)
def test_whatever_comes_is_an_answer_or_a_failure(
    answer: bytes, at: float, width: int, by: bytes, size: int
) -> None:
    came = mangled(answer[:2000], at, width, by)

    async def hear() -> None:
        try:
            connection, body = await heard(
                *(came[start : start + size] for start in range(0, len(came), size))
            )
        except ConnectionFailure:
            return
        assert 200 <= connection.status <= 999
        assert len(body) <= len(came)

    asyncio.run(hear())


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


async def test_a_body_without_a_length_does_not_end_with_a_reset() -> None:
    connection, body = await heard(OK + b"\r\nhel", ends=False)
    assert body == b"hel"

    connection.connection_lost(ConnectionResetError("reset"))

    assert not connection.has_ended
    assert isinstance(connection.failure, BrokenOff)


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
