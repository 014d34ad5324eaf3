import asyncio
import socket
from collections.abc import Callable
from contextlib import aclosing

import pytest

from engines.errors import ModelNotFound, Overloaded, Unavailable, Unsupported
from engines.protocol import (
    EmbedRequest,
    Event,
    Finished,
    FinishReason,
    GenerateRequest,
    Relay,
    Relayed,
    Started,
    TextDelta,
    WireRequest,
)
from engines.remote.engine import RemoteEngine
from tests.engines.remote.conftest import Build, asking, relaying
from tests.upstream import (
    CHAT,
    DONE,
    END,
    SSE_HEAD,
    USAGE,
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


async def events_of(engine: RemoteEngine, request: GenerateRequest) -> list[Event]:
    async with aclosing(engine.generate(request)) as events:
        return [event async for event in events]


async def until(upstream: Upstream, holds: Callable[[], bool]) -> None:
    await asyncio.to_thread(upstream.wait_until, holds)


async def test_a_client_of_the_same_dialect_is_relayed(
    engine: RemoteEngine, upstream: Upstream
) -> None:
    events = await events_of(engine, relaying(CHAT_BODY))

    started, relayed, finished = events
    assert isinstance(started, Started)
    assert started.head is not None
    assert started.head.content_type == "application/json"
    assert isinstance(relayed, Relayed)
    assert b'"model":"public"' in relayed.data
    assert isinstance(finished, Finished)
    assert (finished.usage.prompt_tokens, finished.usage.completion_tokens) == (7, 2)
    assert upstream.last.path == "/v1/chat/completions"


async def test_another_dialects_request_is_put_into_words(
    engine: RemoteEngine, upstream: Upstream
) -> None:
    upstream.scene = streaming(chunk("hel"), chunk("lo"), chunk(), USAGE, DONE)

    events = await events_of(engine, asking())

    assert [event.text for event in events if isinstance(event, TextDelta)] == ["hel", "lo"]
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert finished.reason is FinishReason.STOP
    assert finished.usage.prompt_tokens == 7
    assert upstream.last.json["messages"] == [{"role": "user", "content": "hi"}]


async def test_only_listed_headers_go_to_the_upstream(build: Build, upstream: Upstream) -> None:
    engine = build(headers={"x-tenant-tag": "blue"}, pass_headers=["OpenAI-Beta"])
    await engine.start()
    sent = {
        "authorization": "Bearer of-the-client",
        "cookie": "a=b",
        "x-api-key": "of-the-client",
        "x-forwarded-for": "10.0.0.1",
        "connection": "x-secret",
        "x-anything": "1",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "openai-beta": "assistants=v2",
    }

    await events_of(engine, relaying(CHAT_BODY, headers=sent))

    got = upstream.last.headers
    assert got["traceparent"] == sent["traceparent"]
    assert got["openai-beta"] == "assistants=v2"
    assert got["x-tenant-tag"] == "blue"
    assert got["x-request-id"] == "req_1-0"
    assert got["accept-encoding"] == "identity"
    assert "of-the-client" not in str(got)
    assert not {"cookie", "x-api-key", "x-forwarded-for", "x-anything", "authorization"} & set(got)


async def test_only_listed_headers_come_back(build: Build, upstream: Upstream) -> None:
    engine = build(return_headers=["X-Cost"])
    await engine.start()
    upstream.scene = answering(CHAT, x_cost="3", set_cookie="a=b", x_other="1")

    started = (await events_of(engine, relaying(CHAT_BODY)))[0]

    assert isinstance(started, Started)
    assert started.head is not None
    assert started.head.headers == {"x-cost": "3"}


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
    engine: RemoteEngine, upstream: Upstream
) -> None:
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


async def test_a_model_that_is_not_listed_is_not_asked_for(
    build: Build, upstream: Upstream
) -> None:
    engine = build(models=["small-*", "!small-secret"])
    await engine.start()

    for model in ("large", "small-secret"):
        with pytest.raises(ModelNotFound):
            await events_of(engine, relaying(CHAT_BODY, model=model))
    await events_of(engine, relaying(CHAT_BODY, model="small-1"))

    assert len(upstream.requests) == 1


async def test_a_link_local_address_is_not_connected_to(build: Build) -> None:
    for host in ("169.254.169.254", "[fe80::1]", "2852039166", "[::ffff:169.254.169.254]", "0"):
        engine = build(base_url=f"http://{host}/v1")
        await engine.start()

        with pytest.raises(Unavailable):
            await events_of(engine, relaying(CHAT_BODY))


async def test_a_loopback_address_is_refused_where_private_ones_are(build: Build) -> None:
    engine = build(allow_private=False)
    await engine.start()

    with pytest.raises(Unavailable, match="cannot be connected to"):
        await events_of(engine, relaying(CHAT_BODY))


async def test_a_name_is_checked_by_what_it_resolves_to(build: Build, upstream: Upstream) -> None:
    url = f"http://localhost:{upstream.port}/v1"
    engine = build(base_url=url, allow_private=False)
    await engine.start()
    with pytest.raises(Unavailable):
        await events_of(engine, relaying(CHAT_BODY))

    allowed = build(base_url=url, allow_private=False, allow_networks=["127.0.0.0/8", "::1/128"])
    await allowed.start()

    assert isinstance((await events_of(allowed, relaying(CHAT_BODY)))[-1], Finished)


async def test_vectors_are_read_or_relayed(engine: RemoteEngine, upstream: Upstream) -> None:
    upstream.scene = answering(
        {"data": [{"index": 1, "embedding": [0.5, 1]}, {"index": 0, "embedding": "AACAPw=="}],
         "usage": {"prompt_tokens": 4, "total_tokens": 4}, "model": "upstream-model"}
    )  # fmt: skip
    request = EmbedRequest(id="r", model="upstream-model", inputs=["a", "b"])
    wire = WireRequest(
        dialect="openai", method="POST", path="embeddings", body=b'{"model":"p","input":["a","b"]}'
    )

    read = await engine.embed(request)
    relayed = await engine.embed(EmbedRequest(id="r", model="upstream-model", inputs=[], wire=wire))

    assert [list(vector) for vector in read.vectors] == [[1.0], [0.5, 1]]
    assert read.usage.prompt_tokens == relayed.usage.prompt_tokens == 4
    assert relayed.relayed is not None
    assert b'"model":"p"' in relayed.relayed
    assert upstream.last.json == {"model": "upstream-model", "input": ["a", "b"]}


async def test_too_few_vectors_are_no_answer(engine: RemoteEngine, upstream: Upstream) -> None:
    upstream.scene = answering({"data": [{"index": 0, "embedding": [1.0]}]})

    with pytest.raises(Unavailable, match="1 vectors for 2 inputs"):
        await engine.embed(EmbedRequest(id="r", model="m", inputs=["a", "b"]))


async def test_tokens_cannot_be_counted_without_the_models_tokenizer(engine: RemoteEngine) -> None:
    with pytest.raises(Unsupported):
        await engine.count_tokens(asking())


async def test_it_says_which_paths_it_relays(build: Build) -> None:
    engine = build(passthrough=["responses", "GET responses/*"])

    assert isinstance(engine, Relay)
    assert engine.relays("openai", "POST", "chat/completions")
    assert engine.relays("openai", "GET", "responses/resp_1")
    assert not engine.relays("openai", "DELETE", "responses/resp_1")
    assert not engine.relays("anthropic", "POST", "chat/completions")


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
