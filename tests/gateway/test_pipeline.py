import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import msgspec
import pytest

from engines.errors import Overloaded
from engines.protocol import (
    EmbedRequest,
    Finished,
    FinishReason,
    GenerateRequest,
    Started,
    TextDelta,
    Usage,
)
from engines.wire import Relayed
from gateway import Call, Forbidden, ModelUnknown, Route, Target, hookimpl
from gateway.hooks import Hooks
from gateway.pipeline import embed, run
from gateway.targets import Targets
from tests.fakes import Hold, ScriptedEngine, text_of

REQUEST = GenerateRequest(id="r0", model="chat-small", prompt="one two three")


class Recorder:
    """A plugin that implements every hook of the pipeline and notes the order."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.forbids = False

    @hookimpl
    async def authorize(self, call: Call) -> None:
        self.seen.append("authorize")
        if self.forbids:
            raise Forbidden("not you")

    @hookimpl
    async def prepare(self, call: Call) -> None:
        self.seen.append("prepare")
        call.replace_requests(max_tokens=7)

    @hookimpl
    async def route(self, call: Call) -> Route | None:
        self.seen.append("route")
        return Route((Target("gpu0", "a"),))

    @hookimpl
    @asynccontextmanager
    async def admit(self, call: Call) -> AsyncGenerator[None, None]:
        self.seen.append("admit")
        yield
        self.seen.append("settle")


class StageOfGateway:
    """What the pipeline asks of a gateway: its hooks and engines."""

    def __init__(self, engine: ScriptedEngine, plugin: Recorder) -> None:
        self.hooks = Hooks([("recorder", plugin)])
        self.engines = {"gpu0": engine}
        self.targets = Targets()

    async def listed_name(self, name: str) -> str:
        return name


@pytest.fixture
def plugin() -> Recorder:
    return Recorder()


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine(model_names=["a"])


@pytest.fixture
def gateway(engine: ScriptedEngine, plugin: Recorder) -> StageOfGateway:
    return StageOfGateway(engine, plugin)


async def test_a_call_meets_the_hooks_in_order_and_is_settled_at_its_end(
    gateway: StageOfGateway, call: Call, plugin: Recorder, engine: ScriptedEngine
) -> None:
    (stream,) = await run(gateway, call, [REQUEST])
    events = [event async for event in stream]
    before = list(plugin.seen)
    await call.resources.aclose()

    assert text_of(events) == "hello there"
    assert before == ["authorize", "prepare", "route", "admit"]
    assert plugin.seen[-1] == "settle"
    assert engine.requests[0].max_tokens == 7


async def test_what_a_call_used_is_noted_on_it(gateway: StageOfGateway, call: Call) -> None:
    call.choices_per_prompt = 2
    streams = await run(gateway, call, [REQUEST, msgspec.structs.replace(REQUEST, id="r1")])
    for stream in streams:
        events = [event async for event in stream]
        assert isinstance(events[-1], Finished)
    await call.resources.aclose()

    assert call.usage.prompt_tokens == 3
    assert call.usage.completion_tokens == 4
    assert call.first_output_at is not None


async def test_what_a_broken_off_call_has_got_until_then_is_noted_on_it(
    gateway: StageOfGateway, call: Call
) -> None:
    (stream,) = await run(gateway, call, [REQUEST])
    async for event in stream:
        if isinstance(event, TextDelta):
            break
    await call.resources.aclose()

    assert (call.usage.prompt_tokens, call.usage.completion_tokens) == (3, 1)


async def test_a_long_piece_of_text_is_not_taken_for_one_token(
    call: Call, plugin: Recorder
) -> None:
    engine = ScriptedEngine(["x" * 80, "never"], model_names=["a"])
    (stream,) = await run(StageOfGateway(engine, plugin), call, [REQUEST])
    async for event in stream:
        if isinstance(event, TextDelta):
            break
    await call.resources.aclose()

    assert call.usage.completion_tokens == 10


async def test_an_unknown_model_asks_no_engine(
    gateway: StageOfGateway, call: Call, engine: ScriptedEngine, plugin: Recorder
) -> None:
    with pytest.raises(ModelUnknown, match="no-such"):
        await run(gateway, call, [msgspec.structs.replace(REQUEST, model="no-such")])

    assert engine.requests == []
    assert plugin.seen == ["authorize"]


async def test_who_may_not_call_does_not_hear_which_models_exist(
    gateway: StageOfGateway, call: Call, plugin: Recorder
) -> None:
    plugin.forbids = True

    for model in ("chat-small", "no-such"):
        with pytest.raises(Forbidden):
            await run(gateway, call, [msgspec.structs.replace(REQUEST, model=model)])


async def test_all_requests_of_a_call_are_asked_at_once(
    gateway: StageOfGateway, call: Call, engine: ScriptedEngine
) -> None:
    holds = [Hold(), Hold(), Hold()]
    waiting = iter(holds)
    engine._script = lambda _: [next(waiting), "out"]
    running = asyncio.create_task(
        run(gateway, call, [msgspec.structs.replace(REQUEST, id=f"r{i}") for i in range(3)])
    )

    for hold in holds:
        await hold.reached.wait()
    for hold in holds:
        hold.release()
    streams = await running

    assert len(streams) == 3
    await call.resources.aclose()


async def test_when_one_request_of_a_call_fails_the_others_are_ended(
    gateway: StageOfGateway, call: Call, engine: ScriptedEngine
) -> None:
    scripts = iter([["fine"], [Overloaded("full")], [Hold(), "late"]])
    engine._script = lambda _: next(scripts)
    requests = [msgspec.structs.replace(REQUEST, id=f"r{i}") for i in range(3)]

    with pytest.raises(Overloaded):
        await run(gateway, call, requests)
    await call.resources.aclose()

    assert engine.running == 0


async def test_an_embedding_meets_the_same_hooks(
    gateway: StageOfGateway, call: Call, plugin: Recorder, engine: ScriptedEngine
) -> None:
    answer = await embed(
        gateway, call, EmbedRequest(id="e", model="chat-small", inputs=["one two", "three"])
    )

    assert len(answer.vectors) == 2
    assert engine.embed_requests[0].model == "a"
    assert plugin.seen == ["authorize", "prepare", "route", "admit"]
    assert call.usage.prompt_tokens == 3
    await call.resources.aclose()


async def test_what_is_relayed_is_counted_as_it_passes(call: Call, plugin: Recorder) -> None:
    steps = [Started(), Relayed(b"a", 3), Relayed(b"b"), Hold()]
    gateway = StageOfGateway(ScriptedEngine(steps, model_names=["a"]), plugin)  # type: ignore[arg-type]
    (stream,) = await run(gateway, call, [REQUEST])  # type: ignore[arg-type]

    relayed = [await anext(stream) for _ in range(3)][1:]
    await call.resources.aclose()

    assert relayed == [Relayed(b"a", 3), Relayed(b"b")]
    # The client hung up before the upstream had told the counts: the prompt's is estimated.
    assert call.usage.completion_tokens == 4
    assert call.usage.prompt_tokens > 0


async def test_an_upstreams_own_counts_are_what_counts(call: Call, plugin: Recorder) -> None:
    own = Finished(reason=FinishReason.STOP, usage=Usage(prompt_tokens=5, completion_tokens=9))
    engine = ScriptedEngine([Started(), Relayed(b"a", 3), own], model_names=["a"])
    (stream,) = await run(StageOfGateway(engine, plugin), call, [REQUEST])  # type: ignore[arg-type]

    async for _ in stream:
        pass
    await call.resources.aclose()

    assert (call.usage.prompt_tokens, call.usage.completion_tokens) == (5, 9)
