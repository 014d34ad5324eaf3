import asyncio

import pytest

from engines.errors import ModelNotFound
from engines.protocol import Capability
from tests.engines.remote.conftest import Build
from tests.upstream import Upstream, answering, sending

LIST = {
    "object": "list",
    "data": [
        {"id": "qwen/small", "created": 1_700_000_000, "max_model_len": 32_768},
        {"id": "qwen/secret"},
        {"id": "llama", "meta": {"n_ctx_train": 8192}},
        {"id": "penstock", "kind": "gguf", "context_length": 4096, "capabilities": ["chat", "x"]},
        {"id": "odd", "context_length": "long", "created": "today"},
        {"id": ""},
        {"id": "x" * 300},
        {"name": "no id"},
        "text",
    ],
}


async def test_the_upstreams_list_fills_in_the_globs(build: Build, upstream: Upstream) -> None:
    upstream.scene = answering(LIST)
    engine = build(models=["qwen/*", "!*secret", "named"], refresh_seconds=60)

    await engine.start()

    assert [info.name for info in await engine.models()] == ["named", "qwen/small"]
    assert upstream.last.path == "/v1/models"
    assert (await engine.health()).ready


async def test_what_servers_tell_of_their_models_is_read(build: Build, upstream: Upstream) -> None:
    upstream.scene = answering(LIST)
    engine = build(
        refresh_seconds=60,
        context_tokens={"odd": 123},
        capabilities={"odd": [Capability.EMBED], "penstock": [Capability.TOOLS]},
    )

    await engine.start()

    found = {info.name: info for info in await engine.models()}
    assert set(found) == {"qwen/small", "qwen/secret", "llama", "penstock", "odd"}
    assert found["qwen/small"].context_tokens == 32_768
    assert found["qwen/small"].modified_at == 1_700_000_000
    assert found["llama"].context_tokens == 8192
    assert found["penstock"].context_tokens == 4096
    assert found["penstock"].capabilities == {Capability.TOOLS}  # the policy's word counts
    assert found["odd"].capabilities == {Capability.EMBED}
    assert found["odd"].context_tokens == 123
    assert found["qwen/secret"].context_tokens == 0
    assert found["qwen/secret"].capabilities == frozenset()  # not told, so not known


async def test_what_a_server_says_that_a_model_can_do_is_read(
    build: Build, upstream: Upstream
) -> None:
    upstream.scene = answering(LIST)
    engine = build(refresh_seconds=60)

    await engine.start()

    (found,) = [info for info in await engine.models() if info.name == "penstock"]
    assert found.capabilities == {Capability.CHAT}


async def test_the_list_is_read_again(build: Build, upstream: Upstream) -> None:
    upstream.scene = answering({"data": [{"id": "old"}]})
    engine = build(refresh_seconds=0.02)
    await engine.start()
    upstream.scene = answering({"data": [{"id": "new"}]})
    upstream.clear()

    await asyncio.to_thread(upstream.wait_until, lambda: len(upstream.requests) > 2)

    assert [info.name for info in await engine.models()] == ["new"]
    assert upstream.num_accepted == 1


@pytest.mark.parametrize("status", ["500 No", "401 No", "302 Found"])
async def test_a_list_that_cannot_be_read_leaves_the_last_one(
    build: Build, upstream: Upstream, status: str
) -> None:
    upstream.scene = answering({"data": [{"id": "old"}]})
    engine = build(refresh_seconds=60)
    await engine.start()
    upstream.scene = answering({}, status)

    await engine.catalog.read()

    assert [info.name for info in await engine.models()] == ["old"]
    health = await engine.health()
    assert not health.ready
    assert "upstream" in health.detail


async def test_an_upstream_without_a_list_is_ready(build: Build, upstream: Upstream) -> None:
    upstream.scene = answering({"detail": "Not Found"}, "404 Not Found")
    engine = build(models=["*", "named"], refresh_seconds=60)

    await engine.start()

    assert [info.name for info in await engine.models()] == ["named"]
    assert (await engine.health()).ready


async def test_an_upstream_that_is_down_does_not_keep_the_gateway_from_starting(
    build: Build, upstream: Upstream
) -> None:
    upstream.scene = sending()
    engine = build(refresh_seconds=60)

    await engine.start()

    assert await engine.models() == []
    assert not (await engine.health()).ready


async def test_loading_says_whether_a_model_may_be_asked_for(
    build: Build, upstream: Upstream
) -> None:
    engine = build(models=["a-*"])
    await engine.start()

    assert (await engine.load("a-1")).loaded
    with pytest.raises(ModelNotFound):
        await engine.load("b-1")
    assert upstream.requests == []


async def test_stars_do_not_backtrack(build: Build) -> None:
    engine = build(models=["*" + "a*" * 20 + "b"])

    with pytest.raises(ModelNotFound):
        async with asyncio.timeout(10):
            await engine.load("a" * 100)


async def test_what_the_upstream_does_not_list_it_lacks(build: Build, upstream: Upstream) -> None:
    upstream.scene = answering({"data": [{"id": "qwen/small"}, {"id": "phi:latest"}]})
    engine = build(models=["*", "!*secret", "named"], refresh_seconds=60)
    assert not engine.lacks("qwen/large"), "nothing is known yet"

    await engine.start()

    lacking = {"qwen/large", "qwen/secret"}
    for name in ("qwen/small", "named", "phi", "x" * 300, *lacking):
        assert engine.lacks(name) is (name in lacking)


async def test_an_upstream_without_a_list_may_have_anything(
    build: Build, upstream: Upstream
) -> None:
    upstream.scene = answering({"data": []})
    engine = build(models=["*", "named"], refresh_seconds=60)

    await engine.start()

    assert not engine.lacks("qwen/large")
