import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from engines.errors import (
    ContextTooLong,
    EngineError,
    ModelNotFound,
    Overloaded,
    RequestRefused,
    Unavailable,
)
from engines.protocol import Event, Started, TextDelta
from gateway.call import Call, Route, Target
from gateway.dispatch import dispatch
from gateway.errors import ModelUnknown
from tests.fakes import Hold, ScriptedEngine, text_of
from tests.gateway.targets.stage import REQUEST, StageOfTargets


@pytest.fixture
def engines() -> dict[str, ScriptedEngine]:
    return {
        "gpu0": ScriptedEngine(model_names=["a"]),
        "overflow": ScriptedEngine.saying("hello", model_names=["b"]),
    }


@pytest.fixture
def routed(call: Call) -> Call:
    call.route = Route((Target("gpu0", "a"), Target("overflow", "b")))
    return call


async def gathered(stream: AsyncGenerator[Event, None]) -> list[Event]:
    return [event async for event in stream]


@pytest.mark.parametrize("error", [Overloaded("64 wait"), Unavailable("gone")])
async def test_a_target_that_cannot_answer_falls_back_before_the_first_output(
    routed: Call, engines: dict[str, ScriptedEngine], error: EngineError
) -> None:
    engines["gpu0"] = ScriptedEngine([Started(prompt_tokens=1), error], model_names=["a"])

    events = await gathered(await dispatch(routed, StageOfTargets(engines), REQUEST))

    assert text_of(events) == "hello"
    assert routed.target == Target("overflow", "b")
    await routed.resources.aclose()


async def test_the_engine_is_asked_by_its_own_name_for_the_model(
    routed: Call, engines: dict[str, ScriptedEngine]
) -> None:
    await dispatch(routed, StageOfTargets(engines), REQUEST)

    assert engines["gpu0"].requests[0].model == "a"
    await routed.resources.aclose()


async def test_after_the_first_output_an_error_ends_the_stream(
    routed: Call, engines: dict[str, ScriptedEngine]
) -> None:
    engines["gpu0"] = ScriptedEngine(["half", Unavailable("died")], model_names=["a"])
    seen: list[Event] = []

    stream = await dispatch(routed, StageOfTargets(engines), REQUEST)
    with pytest.raises(Unavailable, match="died"):
        async for event in stream:
            seen.append(event)

    assert text_of(seen) == "half"
    assert engines["overflow"].requests == []
    await routed.resources.aclose()


async def test_a_request_that_is_wrong_is_not_tried_elsewhere(
    routed: Call, engines: dict[str, ScriptedEngine]
) -> None:
    engines["gpu0"] = ScriptedEngine([RequestRefused("bad schema")], model_names=["a"])

    with pytest.raises(RequestRefused, match="bad schema"):
        await dispatch(routed, StageOfTargets(engines), REQUEST)

    assert engines["overflow"].requests == []


async def test_a_fallback_is_tried_only_after_the_errors_it_names(
    call: Call, engines: dict[str, ScriptedEngine]
) -> None:
    too_long = ContextTooLong(prompt_tokens=9, context_tokens=8)
    engines["gpu0"] = ScriptedEngine([too_long], model_names=["a"])
    for on, is_tried in ({"overloaded"}, False), ({"context_too_long"}, True):
        call.route = Route((Target("gpu0", "a"), Target("overflow", "b", on=frozenset(on))))
        engines["overflow"].requests.clear()

        if is_tried:
            await dispatch(call, StageOfTargets(engines), REQUEST)
        else:
            with pytest.raises(ContextTooLong):
                await dispatch(call, StageOfTargets(engines), REQUEST)

        assert bool(engines["overflow"].requests) is is_tried
    await call.resources.aclose()


async def test_when_no_target_answers_the_last_error_is_raised(
    routed: Call, engines: dict[str, ScriptedEngine]
) -> None:
    engines["gpu0"] = ScriptedEngine([Overloaded("a")], model_names=["a"])
    engines["overflow"] = ScriptedEngine([Unavailable("b")], model_names=["b"])

    with pytest.raises(Unavailable, match="b"):
        await dispatch(routed, StageOfTargets(engines), REQUEST)


async def test_a_model_that_the_engine_lacks_is_unknown_by_its_public_name(
    routed: Call, engines: dict[str, ScriptedEngine]
) -> None:
    routed.model = routed.policy.models["chat-small"]
    routed.route = Route((Target("gpu0", "no-such"),))

    with pytest.raises(ModelUnknown, match="chat-small") as refusal:
        await dispatch(routed, StageOfTargets(engines), REQUEST)

    assert "no-such" not in refusal.value.message
    assert not isinstance(refusal.value, ModelNotFound)


async def test_closing_the_calls_resources_frees_an_engine_whose_stream_was_never_read(
    routed: Call, engines: dict[str, ScriptedEngine]
) -> None:
    engines["gpu0"] = ScriptedEngine(["one", Hold()], model_names=["a"])

    await dispatch(routed, StageOfTargets(engines), REQUEST)
    running = engines["gpu0"].running
    await routed.resources.aclose()

    assert running == 1
    assert engines["gpu0"].running == 0


async def test_a_caller_that_leaves_before_the_first_output_frees_the_engine(
    routed: Call, engines: dict[str, ScriptedEngine]
) -> None:
    hold = Hold()
    engines["gpu0"] = ScriptedEngine([hold, "never"], model_names=["a"])
    waiting = asyncio.create_task(dispatch(routed, StageOfTargets(engines), REQUEST))
    await hold.reached.wait()

    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)

    assert engines["gpu0"].running == 0
    assert engines["overflow"].requests == []


async def test_started_is_held_back_and_then_comes_first(
    routed: Call, engines: dict[str, ScriptedEngine]
) -> None:
    async with aclosing(await dispatch(routed, StageOfTargets(engines), REQUEST)) as stream:
        events = [event async for event in stream]

    assert isinstance(events[0], Started)
    assert isinstance(events[1], TextDelta)
    await routed.resources.aclose()
