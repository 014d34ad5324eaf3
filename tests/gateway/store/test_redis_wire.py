import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from gateway.store.redis_wire import (
    RedisLink,
    RedisLost,
    RedisRefused,
    RedisTooSlow,
    encoded,
    parsed,
)


@asynccontextmanager
async def talking_to(*replies: bytes) -> AsyncGenerator[tuple[RedisLink, list[bytes]], None]:
    """A link to a server that answers each piece it reads with the next reply."""
    heard: list[bytes] = []
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        for reply in replies:
            heard.append(await reader.read(1 << 16))
            writer.write(reply)
        await reader.read()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    _, link = await asyncio.get_running_loop().create_connection(RedisLink, "127.0.0.1", port)
    try:
        yield link, heard
    finally:
        link.close()
        for writer in writers:
            writer.close()
        server.close()


def test_a_command_is_an_array_of_bulk_strings() -> None:
    assert encoded([b"SET", b"k\r\n", b""]) == b"*3\r\n$3\r\nSET\r\n$3\r\nk\r\n\r\n$0\r\n\r\n"


@pytest.mark.parametrize(
    ("wire", "reply"),
    [
        (b"+OK\r\n", b"OK"),
        (b":-12\r\n", -12),
        (b"$5\r\na\r\nbc\r\n", b"a\r\nbc"),
        (b"$0\r\n\r\n", b""),
        (b"$-1\r\n", None),
    ],
)
def test_a_reply_is_read_and_never_before_it_is_whole(wire: bytes, reply: object) -> None:
    assert parsed(bytearray(wire + b"+next"), 0) == (reply, len(wire))
    for end in range(len(wire)):
        assert parsed(bytearray(wire[:end]), 0) is None


@pytest.mark.parametrize("wire", [b"*1\r\n", b"HTTP/1.1 400\r\n", b"$x\r\n", b":\r\n"])
def test_what_is_not_a_reply_to_our_commands_is_an_error(wire: bytes) -> None:
    with pytest.raises(ValueError):
        parsed(bytearray(wire), 0)


async def test_replies_go_to_their_commands_in_order_however_they_are_cut() -> None:
    async with talking_to(b"$2\r\nab\r\n:7\r\n-ERR n", b"o\r\n") as (link, _):
        first, second, third = (link.send(b"X", timeout=30) for _ in range(3))
        assert [await first, await second] == [b"ab", 7]
        link.send(b"Y", timeout=30).add_done_callback(lambda future: future.exception())
        with pytest.raises(RedisRefused, match="ERR no"):
            await third


async def test_a_reply_that_comes_too_late_is_not_taken_for_the_next() -> None:
    async with talking_to(b"", b":1\r\n:2\r\n") as (link, _):
        with pytest.raises(RedisTooSlow):
            await link.send(b"SLOW", timeout=0.01)
        assert await link.send(b"NEXT", timeout=30) == 2


async def test_a_reply_that_has_arrived_wins_over_a_time_out_that_is_due() -> None:
    async with talking_to(b":1\r\n") as (link, heard):
        future = link.send(b"X", timeout=0.05)
        while not heard:  # noqa: ASYNC110
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        # The loop is held up past the time-out while the reply lies in the socket.
        until = asyncio.get_running_loop().time() + 0.1
        while asyncio.get_running_loop().time() < until:
            pass
        assert await future == 1


@pytest.mark.parametrize("nonsense", [b"hello\r\n", b"*2\r\n", b":1\r\n:2\r\n"])
async def test_a_server_that_talks_nonsense_is_hung_up_on(nonsense: bytes) -> None:
    async with talking_to(nonsense, b"") as (link, _):
        future = link.send(b"X", timeout=30)
        if nonsense.startswith(b":"):
            assert await future == 1
        else:
            with pytest.raises(RedisLost):
                await future
        await asyncio.wait_for(link.closed.wait(), 30)
        with pytest.raises(RedisLost):
            await link.send(b"X", timeout=30)
