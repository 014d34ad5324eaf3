import asyncio
import os
import signal
import time
from contextlib import aclosing
from pathlib import Path

import psutil
import pytest
import structlog

from engines.errors import Unavailable
from engines.process import ProcessEngine, Supervision
from engines.process.supervisor import delay_before
from engines.protocol import Event, Finished, Health, Started
from tests.engines.process.children import Script
from tests.engines.process.hosted import (
    asking,
    events_of,
    hosted,
    is_gone,
    pid_of,
    until,
    until_ready,
)
from tests.fakes import text_of

ENDLESS = Script(is_endless=True)


async def test_a_child_that_is_killed_ends_its_streams_cleanly_and_another_serves() -> None:
    async with hosted(config=ENDLESS) as engine:
        streams = [engine.generate(asking()) for _ in range(5)]
        for stream in streams:
            assert isinstance(await anext(stream), Started)
        unread = engine.generate(asking())
        first = pid_of(engine)

        os.kill(first, signal.SIGKILL)

        for stream in streams:
            with pytest.raises(Unavailable, match="it is being restarted") as failure:
                async for _ in stream:
                    pass
            assert failure.value.retry_after is not None
            assert failure.value.retry_after >= 1.0
        await until_ready(engine)
        assert engine.pid != first
        assert isinstance(await anext(unread), Started)
        await unread.aclose()
        # What was loaded is loaded again by whoever asks for it.
        assert [model.loaded for model in await engine.models()] == [True]
        assert not psutil.pid_exists(first)


async def test_calls_are_turned_away_at_once_while_there_is_no_child() -> None:
    # Long enough for a busy machine to take its time between any two lines of this.
    async with hosted(first_delay_seconds=3000.0, max_delay_seconds=3000.0) as engine:
        os.kill(pid_of(engine), signal.SIGKILL)

        async def is_down() -> bool:
            return engine.pid is None

        await until(is_down)
        for attempt in (events_of, ProcessEngine.models):
            with pytest.raises(Unavailable, match="try again") as failure:
                await attempt(engine)
            assert failure.value.retry_after is not None
            assert 1000.0 < failure.value.retry_after < 4000.0

        async def says_how_it_ended() -> bool:
            return (
                "its process was ended by SIGKILL; next start in " in (await engine.health()).detail
            )

        await until(says_how_it_ended)
        assert not (await engine.health()).ready


async def test_a_child_that_has_just_ended_is_not_said_never_to_have_been_started() -> None:
    async with hosted(first_delay_seconds=3000.0, max_delay_seconds=3000.0) as engine:
        os.kill(pid_of(engine), signal.SIGKILL)
        async with asyncio.timeout(40):
            # Not a moment longer: it is known soon how the process ended.
            while engine.pid is not None:  # noqa: ASYNC110
                await asyncio.sleep(0)
        health = await engine.health()

    assert not health.ready
    assert health.detail.startswith("its process has ended; next start in ")


async def test_a_crash_loop_says_why_and_heals_when_its_cause_is_gone(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    async with hosted("good_once", Script(flag=str(flag))) as engine:

        async def has_failed_three_times() -> bool:
            detail = (await engine.health()).detail
            return "the GPU is gone" in detail and "failure 3 in a row" in detail

        os.kill(pid_of(engine), signal.SIGKILL)
        await until(has_failed_three_times)
        assert not (await engine.health()).ready

        flag.unlink()

        await until_ready(engine)
        assert text_of(await events_of(engine))


async def test_closing_while_it_is_restarted_leaves_nothing(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    async with hosted("good_once", Script(flag=str(flag))) as engine:
        os.kill(pid_of(engine), signal.SIGKILL)

        async def is_down() -> bool:
            return engine.pid is None

        await until(is_down)
        await engine.close()

    assert [p for p in psutil.Process().children() if "engines.process" in p.cmdline()] == []


async def test_a_child_that_hangs_is_killed_and_the_log_shows_where_it_was() -> None:
    with structlog.testing.capture_logs() as logs:
        async with hosted("hanging", hang_seconds=2.0) as engine:
            first = pid_of(engine)
            with pytest.raises(Unavailable, match="it is being restarted"):
                await events_of(engine, asking("hang"))
            await until_ready(engine)
            events = await events_of(engine, asking("do not"))

    assert text_of(events) == "fine"
    assert is_gone(first)
    reasons = [line["reason"] for line in logs if line["event"] == "engine_process_failed"]
    assert reasons == ["gave no sign of life for 2 seconds"]
    assert any("children.py" in str(line.get("text")) for line in logs)


async def test_a_child_that_was_stopped_is_killed_too() -> None:
    async with hosted(config=ENDLESS, hang_seconds=1.0) as engine:
        first = pid_of(engine)
        async with aclosing(engine.generate(asking())) as events:
            assert isinstance(await anext(events), Started)
            os.kill(first, signal.SIGSTOP)

            with pytest.raises(Unavailable):
                async for _ in events:
                    pass

        health = await engine.health()
        assert not health.ready
        await until_ready(engine)
    assert is_gone(first)


async def test_an_engine_that_says_for_long_that_it_is_not_ready_is_restarted() -> None:
    with structlog.testing.capture_logs() as logs:
        async with hosted("unwell", ENDLESS, hang_seconds=1.0) as engine:
            with pytest.raises(Unavailable):
                await events_of(engine)
            await until_ready(engine)

    reasons = [str(line["reason"]) for line in logs if line["event"] == "engine_process_failed"]
    assert reasons == ["was not ready for 1 seconds (its GPU fell off)"]


async def test_health_does_not_wait_for_a_child_that_does_not_answer() -> None:
    async with hosted(config=ENDLESS) as engine:
        async with aclosing(engine.generate(asking())) as events:
            assert isinstance(await anext(events), Started)
            os.kill(pid_of(engine), signal.SIGSTOP)

            health = await engine.health()

            os.kill(pid_of(engine), signal.SIGCONT)
        assert (health.ready, health.running) == (False, 1)
        assert "not answered" in health.detail


async def test_a_long_silence_of_the_gateway_itself_kills_no_child() -> None:
    async with hosted(config=ENDLESS, hang_seconds=1.0) as engine:
        first = pid_of(engine)
        async with aclosing(engine.generate(asking())) as events:
            assert isinstance(await anext(events), Started)

            # As SIGSTOP or a suspended laptop would have it.
            time.sleep(2.0)  # noqa: ASYNC251

            await asyncio.sleep(0.5)
            assert engine.pid == first
            assert (await engine.health()).running == 1


async def test_what_came_before_the_end_is_read_before_the_error() -> None:
    async with hosted(config=ENDLESS) as engine:
        seen: list[Event] = []

        async def have_come() -> bool:
            return (await engine.health()) == Health(ready=True, running=1)

        stream = engine.generate(asking())
        seen.append(await anext(stream))
        await until(have_come)  # after this answer, and all that was written before it
        for _ in range(20):
            await engine.health()
        os.kill(pid_of(engine), signal.SIGKILL)
        with pytest.raises(Unavailable):
            async for event in stream:
                seen.append(event)

    assert text_of(seen).startswith("0 hel 1 hel 2 hel")
    assert not any(isinstance(event, Finished) for event in seen)


@pytest.mark.parametrize(("stable_seconds", "failures"), [(0.0, [1, 1]), (1000.0, [1, 2])])
async def test_a_failure_after_a_long_life_counts_as_the_first(
    stable_seconds: float, failures: list[int]
) -> None:
    with structlog.testing.capture_logs() as logs:
        async with hosted(stable_seconds=stable_seconds) as engine:
            for _ in range(2):
                os.kill(pid_of(engine), signal.SIGKILL)

                async def is_down() -> bool:
                    return engine.pid is None

                await until(is_down)
                await until_ready(engine)

    failed = [line for line in logs if line["event"] == "engine_process_failed"]
    assert [line["failures"] for line in failed] == failures


def test_delays_double_up_to_a_bound_and_are_jittered() -> None:
    supervision = Supervision(first_delay_seconds=1.0, max_delay_seconds=30.0)

    for failures, most in [(1, 1.0), (2, 2.0), (5, 16.0), (6, 30.0), (10_000, 30.0)]:
        delays = [delay_before(failures, supervision) for _ in range(100)]
        assert all(most / 2 <= delay <= most for delay in delays)
        assert len(set(delays)) > 50
