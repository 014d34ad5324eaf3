import asyncio
import threading
import time
from collections.abc import Callable

import pytest

from engines.errors import Unavailable
from engines.remote import connections
from engines.remote import upstream as asking
from engines.remote.connection import Connection
from engines.remote.upstream import Upstream as Client
from tests.engines.remote.conftest import GET, Open, answer_of, until
from tests.upstream import (
    END,
    SSE_HEAD,
    Scene,
    Upstream,
    answering,
    chunked,
    head,
    sending,
    trickling,
)
from tests.upstream import Connection as Served


async def tells_its_port(connection: Served) -> None:
    """Answer with the port that the connection comes from."""
    port = connection._writer.get_extra_info("peername")[1]
    await answering(str(port).encode())(connection)
    connection.keeps = True


async def test_the_connection_that_was_used_last_is_used_next(
    client: Client, upstream: Upstream
) -> None:
    upstream.scene = tells_its_port
    replies = [await client.ask(GET) for _ in range(3)]
    ports = [await reply.whole(100) for reply in replies]
    assert len(set(ports)) == client.num_open == 3

    for last in (0, 2, 1):
        replies[last].close()
        assert (await answer_of(client))[1] == ports[last]

    assert client.num_open == upstream.num_accepted == 3


async def test_a_connection_that_nobody_needs_is_closed_after_a_while(
    opened: Open, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "KEEP_ALIVE_SECONDS", 0.05)
    client = await opened()
    replies = [await client.ask(GET) for _ in range(2)]
    for reply in replies:
        await reply.whole(1000)
        reply.close()

    await until(upstream, lambda: upstream.num_open == 0)

    assert client.num_open == 0
    assert (await answer_of(client))[0] == 200


async def test_a_kept_connection_that_the_upstream_closes_is_forgotten(
    client: Client, upstream: Upstream
) -> None:
    upstream.scene = sending(head(content_length=2) + b"{}")
    for asked in range(1, 4):
        assert await answer_of(client) == (200, b"{}")
        await until(
            upstream, lambda asked=asked: upstream.num_accepted - upstream.num_open == asked
        )
        while client.num_open:  # noqa: ASYNC110 - the news is on its way through the loop
            await asyncio.sleep(0)

    assert len(upstream.requests) == 3


async def test_what_comes_on_a_kept_connection_is_nobodys_answer(
    client: Client, upstream: Upstream
) -> None:
    is_kept = threading.Event()

    async def scene(connection: Served) -> None:
        await answering(b"[1]")(connection)
        await asyncio.to_thread(is_kept.wait, 20)
        await answering(b"[666]")(connection)
        await connection.gone()
        connection.keeps = False

    upstream.scene = scene
    assert await answer_of(client) == (200, b"[1]")
    is_kept.set()
    await until(upstream, lambda: upstream.num_open == 0)

    upstream.scene = answering(b"[2]")
    assert await answer_of(client) == (200, b"[2]")
    assert upstream.num_accepted == 2


async def test_after_a_stale_connection_a_fresh_one_is_asked_even_if_more_are_kept(
    client: Client, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "STALE_SECONDS", 60.0)
    replies = [await client.ask(GET) for _ in range(3)]
    for reply in replies:
        await reply.whole(1000)
        reply.close()
    upstream.clear()
    accepted: list[int] = []

    async def closes_what_was_used(connection: Served) -> None:
        accepted.append(upstream.num_accepted)
        if upstream.num_accepted > 3:
            await answering(b"{}")(connection)

    upstream.scene = closes_what_was_used

    assert await answer_of(client) == (200, b"{}")
    assert accepted == [3, 4]


@pytest.mark.parametrize(
    "scene",
    [
        sending(then="hang"),
        trickling(b"HTTP/1.1 200 OK\r\n", b"a: b\r\n"),
        trickling(b"HTTP/1.1 200 OK\r\nx:", b"y"),
    ],
)
async def test_a_head_that_takes_too_long_ends(
    opened: Open, upstream: Upstream, scene: Scene
) -> None:
    client = await opened(first_byte_seconds=0.2)
    upstream.scene = scene

    with pytest.raises(Unavailable, match="did not answer in time"):
        await answer_of(client)

    await until(upstream, lambda: upstream.num_open == 0)


async def test_a_body_that_pauses_too_long_ends(opened: Open, upstream: Upstream) -> None:
    client = await opened(idle_seconds=0.2)
    upstream.scene = sending(SSE_HEAD + chunked(b"a"), then="hang")
    reply = await client.ask(GET)

    assert await reply.piece() == b"a"
    with pytest.raises(Unavailable, match="did not answer in time"):
        await reply.piece()
    reply.close()


async def test_a_body_that_never_ends_ends(opened: Open, upstream: Upstream) -> None:
    client = await opened(total_seconds=0.3)
    upstream.scene = trickling(SSE_HEAD, chunked(b"a"))

    with pytest.raises(Unavailable, match="did not answer in time"):
        await answer_of(client)

    await until(upstream, lambda: upstream.num_open == 0)


async def test_a_reader_that_is_slow_is_not_the_upstreams_pause(
    client: Client, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 5_000_000
    upstream.scene = sending(head(content_length=size) + b"x" * size)
    reply = await client.ask(GET)
    connection = reply._connection
    assert connection is not None
    while not connection.is_paused:  # noqa: ASYNC110 - what is read by now, the loop decides
        await asyncio.sleep(0)

    later = time.monotonic() + 61.0  # idle_seconds is 60
    monkeypatch.setattr(connections, "monotonic", lambda: later)
    assert client._connections is not None
    client._connections._look()
    assert len(await reply.whole(size)) == size
    reply.close()


async def test_who_leaves_as_the_connection_opens_leaves_it_closed(
    client: Client, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client._connections is not None
    connector = client._connections._connector
    connect = connector.connect

    async def connect_and_be_left(when_gone: Callable[[Connection], None]) -> Connection:
        connection = await connect(when_gone)
        asyncio.get_running_loop().call_soon(asking.cancel)
        return connection

    monkeypatch.setattr(connector, "connect", connect_and_be_left)
    asking = asyncio.create_task(client.ask(GET))
    with pytest.raises(asyncio.CancelledError):
        await asking

    await until(upstream, lambda: (upstream.num_accepted, upstream.num_open) == (1, 0))
    assert client.num_open == 0


async def test_nothing_is_watched_when_nothing_is_under_way(
    opened: Open, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "WATCH_SECONDS", 0.01)
    client = await opened()
    assert client._connections is not None
    assert client._connections._watch is None

    await answer_of(client)
    while client._connections._watch is not None:  # noqa: ASYNC110 - until the next look
        await asyncio.sleep(0.001)

    assert client.num_open == 1


async def test_closing_ends_answers_that_are_whole_but_unread(
    client: Client, upstream: Upstream
) -> None:
    upstream.scene = sending(SSE_HEAD + chunked(b"a") + END)
    reply = await client.ask(GET)
    await asyncio.sleep(0)

    await client.close()
    await client.close()

    with pytest.raises(Unavailable, match="was closed"):
        await reply.whole(1000)
    reply.close()
    with pytest.raises(Unavailable, match="is closed"):
        await client.ask(GET)
    assert client.num_open == 0
