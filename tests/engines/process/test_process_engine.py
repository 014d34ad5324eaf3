import asyncio
import random
from contextlib import aclosing
from pathlib import Path

import psutil
import pytest
import structlog

from engines.errors import (
    ContextTooLong,
    ModelNotFound,
    RequestRefused,
    Unavailable,
    Unsupported,
)
from engines.process.wire import WINDOW
from engines.protocol import (
    EmbedRequest,
    Finished,
    Image,
    JsonSchema,
    Message,
    Started,
    Text,
    TextDelta,
    Tool,
)
from engines.reranking import RerankRequest
from tests.engines.process.children import Plain, Script
from tests.engines.process.hosted import (
    asking,
    engine_of,
    events_of,
    hosted,
    is_gone,
    pid_of,
    until,
    until_idle,
)
from tests.fakes import ScriptedEngine, text_of


async def test_every_method_answers_as_it_does_in_the_gateways_process() -> None:
    here = ScriptedEngine(model_names=["scripted-model"])
    embed = EmbedRequest(id="e1", model="scripted-model", inputs=["two words", [1, 2, 3]])

    rerank = RerankRequest(id="k1", model="scripted-model", query="b", documents=["a b", "c"])

    async with hosted() as engine:
        assert list(await engine.models()) == list(await here.models())
        assert await engine.load("scripted-model") == await here.load("scripted-model")
        assert await engine.embed(embed) == await here.embed(embed)
        assert await engine.rerank(rerank) == await here.rerank(rerank)
        assert await engine.count_tokens(asking("a b c")) == 3
        await engine.unload("scripted-model")
        assert [model.loaded for model in await engine.models()] == [False]
        assert await engine.health() == await here.health()


async def test_errors_cross_with_their_class_and_fields() -> None:
    async with hosted() as engine:
        with pytest.raises(ModelNotFound) as unknown:
            await engine.load("no-such-model")
        with pytest.raises(ContextTooLong) as too_long:
            await events_of(engine, asking("word " * 200))

    assert unknown.value.model == "no-such-model"
    assert (too_long.value.prompt_tokens, too_long.value.context_tokens) == (200, 100)
    assert too_long.value.param == "messages"


async def test_an_engine_that_cannot_show_its_prompts_says_so_from_its_process_too() -> None:
    async with hosted() as engine:
        with pytest.raises(Unsupported, match="cannot show the prompts"):
            await engine.render(asking())


async def test_an_engines_own_fault_is_no_engine_error_and_tells_nothing_of_the_prompt() -> None:
    with structlog.testing.capture_logs() as logs:
        async with hosted("odd") as engine:
            with (
                structlog.contextvars.bound_contextvars(call="req_7"),
                pytest.raises(RuntimeError, match="the log has the traceback") as failure,
            ):
                await events_of(engine, asking("fault"))

    assert "secret" not in str(failure.value)
    (line,) = [line for line in logs if line["event"] == "engine_failed_on_request"]
    assert (line["call"], line["engine"], line["log_level"]) == ("req_7", "hosted", "error")
    assert "KeyError" in line["exception"]


async def test_what_cannot_be_sent_ends_its_stream_and_no_other() -> None:
    async with hosted("odd") as engine:
        seen: list[object] = []
        with pytest.raises(RequestRefused, match="cannot be sent"):
            async with aclosing(engine.generate(asking("odd text"))) as events:
                async for event in events:
                    seen.append(event)
        with pytest.raises(RequestRefused, match="cannot be given"):
            await events_of(engine, asking("\ud800"))

        assert await engine.count_tokens(asking("a b")) == 2
    assert TextDelta("fine ") in seen


async def test_numbers_over_64_bits_and_pictures_reach_the_engine() -> None:
    request = asking(
        messages=[Message(role="user", parts=[Text("two words"), Image(b"\x00\xff", "image/png")])],
        tools=[Tool(name="f", parameters={"maximum": 2**70})],
        constraint=JsonSchema(schema={"minimum": -(2**70)}),
    )

    async with hosted() as engine:
        assert await engine.count_tokens(request) == 2
        assert isinstance((await events_of(engine, request))[-1], Finished)


async def test_a_reader_that_stops_reading_stops_its_stream_after_a_window() -> None:
    async with hosted("pouring", Script(num_words=2000)) as engine:

        async def has_filled_its_window() -> bool:
            return (await engine.health()).waiting >= WINDOW

        async with aclosing(engine.generate(asking())) as events:
            assert isinstance(await anext(events), Started)
            await until(has_filled_its_window)
            poured = [(await engine.health()).waiting for _ in range(20)]

            rest = [event async for event in events]

    assert set(poured) == {WINDOW}
    assert len(rest) == 2001
    assert isinstance(rest[-1], Finished)


async def test_two_hundred_random_disconnects_leave_nothing_running() -> None:
    chance = random.Random(7)

    async with hosted(config=Script(is_endless=True)) as engine:

        async def read_some(num_events: int) -> None:
            async with aclosing(engine.generate(asking())) as events:
                async for _ in events:
                    num_events -= 1
                    if num_events <= 0:
                        return

        for _ in range(10):
            readers = [asyncio.create_task(read_some(chance.randrange(40))) for _ in range(20)]
            for reader in readers:
                if chance.random() < 0.5:
                    await asyncio.sleep(0)
                    reader.cancel()
            done, waiting = await asyncio.wait(readers, timeout=0.2)
            for reader in waiting:
                reader.cancel()
            await asyncio.gather(*done, *waiting, return_exceptions=True)

        await until_idle(engine)


async def test_a_closed_engine_has_left_no_process_and_no_descriptor(tmp_path: Path) -> None:
    this = psutil.Process()
    async with hosted():
        pass  # what Python opens once and keeps is open now
    before = this.num_fds()

    async with hosted() as engine:
        child = pid_of(engine)
        assert await events_of(engine)

    assert not psutil.pid_exists(child)  # reaped too
    assert this.num_fds() == before


async def test_an_engine_can_be_started_again_after_it_was_closed() -> None:
    async with hosted() as engine:
        first = pid_of(engine)
        await engine.close()
        with pytest.raises(Unavailable, match="closed"):
            await engine.models()
        assert (await engine.health()).detail == "closed"

        await engine.start()

        assert text_of(await events_of(engine)).startswith("0 hel")
        assert engine.pid != first


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        ("refusing", "^there is no GPU here$"),
        ("faulty", "the engine did not start: KeyError: 'no_such_key'"),
        ("no_such_factory", "AttributeError.*no_such_factory"),
        ("crashing", "(?s)ended by SIGSEGV before it was ready.*GGML_ASSERT"),
        ("leaving", "ended with exit code 3 before it was ready"),
        ("babbling", "ended by SIGKILL before it was ready"),
    ],
)
async def test_a_child_that_does_not_start_says_why_and_is_gone(factory: str, reason: str) -> None:
    engine = engine_of(factory, Plain())
    family = set(psutil.Process().children())

    with pytest.raises(Unavailable, match=reason):
        await engine.start()

    assert engine.pid is None
    assert not (await engine.health()).ready
    assert set(psutil.Process().children()) <= family
    await engine.close()


async def test_a_child_that_is_not_ready_in_time_is_ended_and_shows_where_it_was() -> None:
    engine = engine_of("sleeping", Plain(), start_seconds=3.0)

    with structlog.testing.capture_logs() as logs, pytest.raises(Unavailable, match="within 3 sec"):
        await engine.start()

    assert any("in sleeping" in str(line.get("text")) for line in logs)
    await engine.close()


async def test_closing_while_it_starts_ends_the_start() -> None:
    engine = engine_of("sleeping", Plain())
    starting = asyncio.create_task(engine.start())
    await asyncio.sleep(0)

    await engine.close()

    with pytest.raises(Unavailable):
        await starting


async def test_a_child_that_prints_garbage_works_and_is_heard_in_the_log() -> None:
    with structlog.testing.capture_logs() as logs:
        async with hosted("noisy") as engine:
            events = await events_of(engine)

    assert isinstance(events[-1], Finished)
    said = [str(line["text"]) for line in logs if line["event"] == "engine_said"]
    assert "printed by somebody" in said
    assert len(said) < 1000  # of 3000 lines
    assert max(map(len, said)) <= 8192
    assert all(line["engine"] == "hosted" for line in logs if line["event"] == "engine_said")


async def test_a_child_sees_none_of_the_gateways_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_PEPPER", "a secret")
    monkeypatch.setenv("HF_HOME", "/tmp/somewhere")

    async with hosted() as engine:
        environment = psutil.Process(pid_of(engine)).environ()

    assert "HF_HOME" in environment
    assert not [name for name in environment if name.startswith("PENSTOCK_")]


async def test_a_child_of_which_nothing_is_left_takes_no_calls() -> None:
    async with hosted() as engine:
        stream = engine.generate(asking())
        pid = pid_of(engine)
        await engine.close()

        with pytest.raises(Unavailable):
            await anext(stream)
    assert is_gone(pid)
