import pytest

from engines.abilities import Relay
from engines.errors import ModelNotFound, Unavailable, Unsupported
from engines.protocol import (
    EmbedRequest,
    Finished,
    FinishReason,
    Started,
    TextDelta,
)
from engines.remote.engine import RemoteEngine
from engines.wire import Relayed, WireRequest
from tests.engines.remote.conftest import Build, asking, events_of, relaying
from tests.upstream import (
    CHAT,
    DONE,
    USAGE,
    Upstream,
    answering,
    chunk,
    streaming,
)

CHAT_BODY = b'{"model":"public","messages":[{"role":"user","content":"hi"}]}'
STREAM_BODY = b'{"model":"public","messages":[],"stream":true}'


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
    assert got["x-client-request-id"] == "req_1-0"
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


async def test_a_call_that_only_another_upstream_understands_is_not_put_into_words(
    engine: RemoteEngine, upstream: Upstream
) -> None:
    wire = WireRequest(dialect="openai", method="POST", path="responses", body=b"{}", is_all=True)

    with pytest.raises(Unsupported, match="responses"):
        await events_of(engine, asking(prompt="{}", wire=wire))

    assert upstream.requests == []
