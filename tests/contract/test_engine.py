"""What every engine promises, run against every engine.

An engine joins by adding a `Subject` builder to `SUBJECTS`; the suite knows
engines only by their protocol.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
import pytest

from engines.errors import ContextTooLong, ModelNotFound, Unavailable, Unsupported
from engines.protocol import (
    Engine,
    Event,
    Finished,
    FinishReason,
    GenerateRequest,
    Message,
    ReasoningDelta,
    Sampling,
    Started,
    Text,
    TextDelta,
    ToolCallDelta,
)
from engines.rendering import Renders
from tests.contract.subjects import SUBJECTS, Subject
from tests.fakes import text_of


@pytest.fixture(params=SUBJECTS.values(), ids=SUBJECTS.keys())
async def subject(request: pytest.FixtureRequest) -> AsyncGenerator[Subject, None]:
    async with request.param() as opened:
        yield opened


def asking(
    subject: Subject, text: str = "Count from 1 to 20.", **fields: object
) -> GenerateRequest:
    request = GenerateRequest(
        id="r1",
        model=subject.model,
        messages=[Message(role="user", parts=[Text(text)])],
        sampling=Sampling(temperature=0.0),
        max_tokens=48,
    )
    return msgspec.structs.replace(request, **fields)


async def all_events(engine: Engine, request: GenerateRequest) -> list[Event]:
    async with aclosing(engine.generate(request)) as events:
        return [event async for event in events]


async def until_idle(engine: Engine) -> None:
    async with asyncio.timeout(10):
        # An engine's health has no event to wait for: a client can only ask.
        while (health := await engine.health()).running or health.waiting:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_a_stream_reads_started_then_output_then_finished(subject: Subject) -> None:
    events = await all_events(subject.engine, asking(subject))

    assert isinstance(events[0], Started)
    assert all(
        isinstance(event, TextDelta | ReasoningDelta | ToolCallDelta) for event in events[1:-1]
    )
    assert isinstance(events[-1], Finished)
    assert text_of(events)


async def test_usage_counts_the_prompt_as_count_tokens_does(subject: Subject) -> None:
    request = asking(subject)

    events = await all_events(subject.engine, request)

    started, finished = events[0], events[-1]
    assert isinstance(started, Started)
    assert isinstance(finished, Finished)
    if subject.has_the_model:
        counted = await subject.engine.count_tokens(request)
        assert started.prompt_tokens == finished.usage.prompt_tokens == counted
    else:
        assert started.prompt_tokens is None
        with pytest.raises(Unsupported):
            await subject.engine.count_tokens(request)
    assert finished.usage.prompt_tokens > 0
    assert 0 < finished.usage.completion_tokens <= 48


async def test_greedy_answers_are_repeatable(subject: Subject) -> None:
    first = await all_events(subject.engine, asking(subject))
    second = await all_events(subject.engine, asking(subject))

    assert text_of(first) == text_of(second)


async def test_answers_do_not_depend_on_who_else_is_asking(subject: Subject) -> None:
    questions = ["Count from 1 to 20.", "List the days of the week.", "Hello!", "What is 2+2?"]
    alone = [
        text_of(await all_events(subject.engine, asking(subject, question)))
        for question in questions
    ]

    together = await asyncio.gather(
        *(all_events(subject.engine, asking(subject, question)) for question in questions)
    )

    assert [text_of(events) for events in together] == alone


async def test_max_tokens_ends_the_answer_with_length(subject: Subject) -> None:
    events = await all_events(subject.engine, asking(subject, max_tokens=2))

    finished = events[-1]
    assert isinstance(finished, Finished)
    assert finished.reason is FinishReason.LENGTH
    assert finished.usage.completion_tokens == 2


async def test_a_stop_string_ends_the_answer_and_never_leaks_into_it(subject: Subject) -> None:
    whole = text_of(await all_events(subject.engine, asking(subject)))
    stop = whole[len(whole) // 2 :][:3]

    events = await all_events(subject.engine, asking(subject, stop=[stop]))

    finished = events[-1]
    assert isinstance(finished, Finished)
    assert finished.reason is FinishReason.STOP
    assert finished.stop == (stop if subject.has_the_model else None)
    assert text_of(events) == whole[: whole.index(stop)]


async def test_a_prompt_longer_than_the_context_is_refused_before_it_starts(
    subject: Subject,
) -> None:
    seen: list[Event] = []

    with pytest.raises(ContextTooLong) as refusal:
        async with aclosing(
            subject.engine.generate(asking(subject, "word " * subject.too_many_words))
        ) as events:
            async for event in events:
                seen.append(event)

    assert seen == []
    assert refusal.value.prompt_tokens >= refusal.value.context_tokens


async def test_closing_a_stream_early_frees_its_slot(subject: Subject) -> None:
    events = subject.engine.generate(asking(subject))
    async for event in events:
        if isinstance(event, TextDelta):
            break

    await events.aclose()

    await until_idle(subject.engine)


async def test_a_stream_that_is_never_read_holds_nothing(subject: Subject) -> None:
    events = subject.engine.generate(asking(subject))

    await events.aclose()

    await until_idle(subject.engine)


async def test_cancelling_the_reader_frees_its_slot(subject: Subject) -> None:
    reading = asyncio.create_task(all_events(subject.engine, asking(subject)))
    await asyncio.sleep(0)

    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)

    await until_idle(subject.engine)


async def test_an_unknown_model_is_not_found(subject: Subject) -> None:
    with pytest.raises(ModelNotFound):
        await all_events(subject.engine, asking(subject, model="no-such-model"))


async def test_a_rendered_prompt_is_the_one_that_is_counted(subject: Subject) -> None:
    if not isinstance(subject.engine, Renders):
        pytest.skip("this engine does not show its prompts")
    request = asking(subject, "naïve <|im_end|> 🌍")
    try:
        rendered = await subject.engine.render(request)
    except Unsupported:
        pytest.skip("the engine in this process does not show its prompts")

    assert len(rendered.tokens) == await subject.engine.count_tokens(request)
    assert b"".join(token.piece for token in rendered.tokens).decode() == rendered.text
    assert "naïve <|im_end|> 🌍" in rendered.text


async def test_loading_twice_at_once_is_one_load(subject: Subject) -> None:
    first, second = await asyncio.gather(
        subject.engine.load(subject.model), subject.engine.load(subject.model)
    )

    changes = {"expires_at": None}  # each counts from its own end
    first, second = (msgspec.structs.replace(info, **changes) for info in (first, second))
    assert first == second
    assert first.loaded
    assert subject.num_loads() == 1


async def test_an_unloaded_model_loads_again_when_it_is_asked(subject: Subject) -> None:
    await subject.engine.load(subject.model)
    await subject.engine.unload(subject.model)  # an upstream's models are its own business
    unloaded = {model.name: model.loaded for model in await subject.engine.models()}

    events = await all_events(subject.engine, asking(subject))

    assert unloaded[subject.model] is not subject.has_the_model
    assert text_of(events)


async def test_closing_the_engine_ends_every_stream_with_unavailable(subject: Subject) -> None:
    request = asking(subject, max_tokens=None)
    streams = [subject.engine.generate(subject.endless(request)) for _ in range(3)]
    for stream in streams:
        assert isinstance(await anext(stream), Started)

    await subject.engine.close()

    for stream in streams:
        with pytest.raises(Unavailable):
            async for _ in stream:
                pass
    health = await subject.engine.health()
    assert (health.running, health.waiting, health.ready) == (0, 0, False)


async def test_closing_twice_is_closing_once(subject: Subject) -> None:
    await subject.engine.close()
    await subject.engine.close()

    with pytest.raises(Unavailable):
        await all_events(subject.engine, asking(subject))
