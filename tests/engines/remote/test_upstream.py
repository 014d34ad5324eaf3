import asyncio
import socket

import pytest

from engines.errors import Overloaded, Unavailable
from engines.protocol import (
    Finished,
    Started,
)
from engines.remote import upstream as asking
from engines.remote.engine import RemoteEngine
from engines.wire import Relayed
from tests.engines.remote.conftest import Build, events_of, relaying, until
from tests.upstream import (
    CHAT,
    DONE,
    END,
    SSE_HEAD,
    Connection,
    Upstream,
    answering,
    chunk,
    chunked,
    head,
    sending,
    streaming,
)

CHAT_BODY = b'{"model":"public","messages":[{"role":"user","content":"hi"}]}'
STREAM_BODY = b'{"model":"public","messages":[],"stream":true}'


class Key:
    """A secret that changes."""

    def __init__(self, value: str) -> None:
        self.value = value

    def reveal(self) -> str:
        if not self.value:
            raise ValueError("environment variable UP_KEY is not set")
        return self.value


async def test_the_key_is_sent_and_read_again_when_it_was_refused(
    build: Build, upstream: Upstream
) -> None:
    key = Key("first")
    engine = build(api_key=key)
    await engine.start()
    await events_of(engine, relaying(CHAT_BODY))
    assert upstream.last.headers["authorization"] == "Bearer first"

    key.value = "second"
    upstream.scene = answering({"error": {"message": "no"}}, "401 No")
    with pytest.raises(Unavailable):
        await events_of(engine, relaying(CHAT_BODY))
    upstream.scene = answering(CHAT)
    await events_of(engine, relaying(CHAT_BODY))

    assert upstream.last.headers["authorization"] == "Bearer second"


async def test_a_key_that_is_missing_keeps_the_engine_from_starting(build: Build) -> None:
    with pytest.raises(Unavailable, match="UP_KEY is not set"):
        await build(api_key=Key("")).start()


async def test_an_upstream_that_repeats_our_key_is_not_quoted(
    build: Build, upstream: Upstream
) -> None:
    engine = build(api_key=Key("very-secret-key"))
    await engine.start()
    said = {"error": {"message": "you sent very-secret-key", "type": "invalid_request_error"}}
    upstream.scene = answering(said, "400 No")

    with pytest.raises(Exception, match=r"you sent \*\*\*") as refusal:
        await events_of(engine, relaying(CHAT_BODY))

    assert refusal.value.answer is not None  # type: ignore[attr-defined]
    assert b"very-secret" not in refusal.value.answer.body  # type: ignore[attr-defined]


async def test_connections_are_kept_and_used_again(
    engine: RemoteEngine, upstream: Upstream
) -> None:
    for _ in range(5):
        await events_of(engine, relaying(CHAT_BODY))
    upstream.scene = streaming(chunk("a"), chunk(), DONE)
    for _ in range(5):
        await events_of(engine, relaying(STREAM_BODY))

    assert upstream.num_accepted == 1
    assert engine.num_connections == 1


async def test_a_kept_connection_that_was_closed_meanwhile_costs_nothing(
    engine: RemoteEngine, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "STALE_SECONDS", 60.0)
    await events_of(engine, relaying(CHAT_BODY))
    played: list[int] = []

    async def closes_once(connection: Connection) -> None:
        played.append(1)
        if len(played) > 1:
            await answering(CHAT)(connection)

    upstream.scene = closes_once

    events = await events_of(engine, relaying(CHAT_BODY))

    assert isinstance(events[-1], Finished)
    assert len(played) == 2
    assert upstream.num_accepted == 2


async def test_a_request_that_may_have_been_worked_on_is_not_sent_again(
    engine: RemoteEngine, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "STALE_SECONDS", 0.0)  # however fast this machine is
    await events_of(engine, relaying(CHAT_BODY))
    upstream.scene = sending()
    upstream.clear()

    with pytest.raises(Unavailable):
        await events_of(engine, relaying(CHAT_BODY))

    assert len(upstream.requests) == 1


@pytest.mark.parametrize("start", [b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\ncontent-le"])
async def test_a_kept_connection_with_a_byte_of_an_answer_is_not_asked_again(
    engine: RemoteEngine, upstream: Upstream, start: bytes
) -> None:
    await events_of(engine, relaying(CHAT_BODY))
    upstream.scene = sending(start)
    upstream.clear()

    with pytest.raises(Unavailable):
        await events_of(engine, relaying(CHAT_BODY))

    assert len(upstream.requests) == 1


async def test_a_new_connection_that_is_closed_is_not_asked_again(
    engine: RemoteEngine, upstream: Upstream
) -> None:
    upstream.scene = sending()

    with pytest.raises(Unavailable):
        await events_of(engine, relaying(CHAT_BODY))

    assert len(upstream.requests) == 1


@pytest.mark.parametrize("body", [CHAT_BODY, STREAM_BODY])
async def test_a_caller_that_leaves_before_the_headers_closes_the_connection_at_once(
    engine: RemoteEngine, upstream: Upstream, body: bytes
) -> None:
    upstream.scene = sending(then="hang")
    asking_for_it = asyncio.create_task(events_of(engine, relaying(body)))
    await until(upstream, lambda: len(upstream.requests) == 1)

    asking_for_it.cancel()
    await asyncio.gather(asking_for_it, return_exceptions=True)

    await until(upstream, lambda: upstream.num_open == 0)
    assert (engine.num_running, engine.num_connections) == (0, 0)


async def test_a_stream_that_is_closed_midway_closes_the_connection_at_once(
    engine: RemoteEngine, upstream: Upstream
) -> None:
    upstream.scene = sending(SSE_HEAD + chunked(chunk("hello")), then="hang")
    events = engine.generate(relaying(STREAM_BODY))
    async for event in events:
        if isinstance(event, Relayed):
            break

    await events.aclose()

    assert (engine.num_running, engine.num_connections) == (0, 0)
    await until(upstream, lambda: upstream.num_open == 0)


async def test_closing_the_engine_ends_what_waits_for_headers_too(
    engine: RemoteEngine, upstream: Upstream
) -> None:
    upstream.scene = sending(then="hang")
    waiting = asyncio.create_task(events_of(engine, relaying(CHAT_BODY)))
    await until(upstream, lambda: len(upstream.requests) == 1)

    await engine.close()

    with pytest.raises(Unavailable, match="closed"):
        await waiting
    await until(upstream, lambda: upstream.num_open == 0)


async def test_closing_the_engine_ends_what_waits_for_more_of_an_answer(
    engine: RemoteEngine, upstream: Upstream
) -> None:
    upstream.scene = sending(SSE_HEAD + chunked(chunk("hello")), then="hang")
    events = engine.generate(relaying(STREAM_BODY))
    assert isinstance(await anext(events), Started)
    assert isinstance(await anext(events), Relayed)
    waiting = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)

    await engine.close()

    with pytest.raises(Unavailable, match="closed"):
        await waiting
    await until(upstream, lambda: upstream.num_open == 0)


async def test_one_request_too_many_is_overloaded(build: Build, upstream: Upstream) -> None:
    engine = build(max_connections=1)
    await engine.start()
    upstream.scene = sending(then="hang")
    first = asyncio.create_task(events_of(engine, relaying(CHAT_BODY)))
    await until(upstream, lambda: len(upstream.requests) == 1)

    with pytest.raises(Overloaded):
        await events_of(engine, relaying(CHAT_BODY))

    first.cancel()
    await asyncio.gather(first, return_exceptions=True)


async def test_small_pieces_are_not_held_back_on_their_way(
    engine: RemoteEngine, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[socket.socket] = []
    original = socket.socket

    class Noted(original):  # type: ignore[misc,valid-type]
        def __init__(self, *args: object, **more: object) -> None:
            super().__init__(*args, **more)
            opened.append(self)

    monkeypatch.setattr("engines.remote.addresses.socket.socket", Noted)
    upstream.scene = sending(SSE_HEAD + chunked(chunk("hello")), then="hang")
    events = engine.generate(relaying(STREAM_BODY))
    await anext(events)

    assert opened[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    await events.aclose()


async def test_a_name_is_checked_by_what_it_resolves_to(build: Build, upstream: Upstream) -> None:
    url = f"http://localhost:{upstream.port}/v1"
    engine = build(base_url=url, allow_private=False)
    await engine.start()
    with pytest.raises(Unavailable):
        await events_of(engine, relaying(CHAT_BODY))

    allowed = build(base_url=url, allow_private=False, allow_networks=["127.0.0.0/8", "::1/128"])
    await allowed.start()

    assert isinstance((await events_of(allowed, relaying(CHAT_BODY)))[-1], Finished)


async def test_bodies_larger_than_a_megabyte_go_through(
    engine: RemoteEngine, upstream: Upstream
) -> None:
    body = b'{"model":"public","messages":[],"padding":"%b"}' % (b"x" * 3_000_000)
    upstream.scene = sending(
        head(content_length=3_000_000 + len(b'{"id":""}')) + b'{"id":"' + b"y" * 3_000_000 + b'"}'
    )

    events = await events_of(engine, relaying(body))

    assert len(upstream.last.body) > 3_000_000
    assert isinstance(events[1], Relayed)
    assert len(events[1].data) > 3_000_000


async def test_a_stream_that_ends_with_its_connection_is_whole(
    engine: RemoteEngine, upstream: Upstream
) -> None:
    upstream.scene = sending(head(content_type="text/event-stream") + chunk("a") + chunk() + DONE)

    assert isinstance((await events_of(engine, relaying(STREAM_BODY)))[-1], Finished)


async def test_the_end_of_a_body_may_come_after_the_end_of_the_answer(
    engine: RemoteEngine, upstream: Upstream
) -> None:
    async def scene(connection: Connection) -> None:
        await connection.send(SSE_HEAD + chunked(chunk("a")) + chunked(chunk()) + chunked(DONE))
        await asyncio.sleep(0)
        await connection.send(END)
        connection.keeps = True

    upstream.scene = scene
    for _ in range(3):
        await events_of(engine, relaying(STREAM_BODY))

    assert upstream.num_accepted == 1
