import asyncio
import gc
import random
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from engines.errors import Unavailable
from engines.outbox import Outbox
from engines.paged.sequence import Sequence, StepPlan
from engines.paged.step_loop import SWITCH_INTERVAL_SECONDS, StepLoop
from tests.engines.paged.fake_runner import answer
from tests.engines.paged.recipients import request, to_the_end
from tests.engines.paged.steps import Steps, prompt_of


@pytest.fixture(autouse=True)
def _interpreter_as_it_was() -> Iterator[None]:
    interval = sys.getswitchinterval()
    yield
    sys.setswitchinterval(interval)
    gc.unfreeze()


class CountingOutbox(Outbox[Any]):
    """Counts how often it wakes the event loop."""

    def __init__(self) -> None:
        super().__init__(asyncio.get_running_loop())
        self.num_deliveries = 0

    def flush(self) -> bool:
        self.num_deliveries += bool(self._pending)
        return super().flush()


class Running:
    """A step loop over a fake device; leaves no thread behind."""

    def __init__(self, **shape: int) -> None:
        steps = Steps(**shape)
        self.scheduler, self.pool, self.runner = steps.scheduler, steps.pool, steps.runner
        self.clock = steps.clock
        self.outbox = CountingOutbox()
        self.errors: list[BaseException] = []
        self.plans: list[StepPlan] = []
        self.goes_on = False
        self.loop = StepLoop(
            self.runner,
            self.scheduler,
            self.outbox,
            name="fake",
            on_failure=self.failed,
            on_step=lambda plan, _seconds: self.plans.append(plan),
        )

    def failed(self, error: BaseException) -> bool:
        self.errors.append(error)
        self.runner.seated.clear()
        return self.goes_on

    def submit(self, *sequences: Sequence) -> None:
        for one in sequences:
            self.loop.submit(one)

    def pause(self) -> None:
        """Let nothing end by itself: the device stops at its fourth step until it resumes."""
        self.runner.paused_at = 3

    def resume(self) -> None:
        self.runner.resumed.set()

    async def idle(self) -> None:
        """Wait until all messages were taken in and nothing runs or waits."""
        await asyncio.wrap_future(self.loop.call(lambda: None, when_idle=True))

    async def __aenter__(self) -> "Running":
        self.loop.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.loop.stop()
        self.resume()
        await asyncio.to_thread(self.loop.join)


async def test_everybody_gets_their_own_answer() -> None:
    async with Running(num_blocks=60, max_sequences=6, max_batch_tokens=24) as running:
        sequences = [request(3 + 5 * number, max_tokens=20) for number in range(12)]
        expected = [answer(one.tokens, 20) for one in sequences]
        running.submit(*sequences)

        answers = await asyncio.gather(*(to_the_end(one) for one in sequences))

        assert answers == expected
        await running.idle()
        assert running.pool.num_in_use == 0


async def test_a_step_wakes_the_event_loop_at_most_once() -> None:
    async with Running() as running:
        sequences = [request(3, max_tokens=20) for _ in range(8)]
        running.submit(*sequences)
        await asyncio.gather(*(to_the_end(one) for one in sequences))
        await running.idle()

        assert running.outbox.num_deliveries <= len(running.plans) + 1
        assert len(running.plans) < 40


async def test_clients_that_hang_up_at_any_moment_leave_nothing_behind() -> None:
    chance = random.Random(7)
    async with Running(num_blocks=40, max_sequences=8, max_batch_tokens=32) as running:

        async def call(number: int) -> None:
            one = request(chance.randint(1, 40), max_tokens=chance.randint(1, 20))
            expected = answer(one.tokens, one.max_tokens)
            running.submit(one)
            if number % 3 == 0:
                assert await to_the_end(one) == expected
                return
            for _ in range(chance.randint(0, 6)):
                await one.payload.mailbox.get()
                if one.num_generated >= one.max_tokens:
                    break
            one.payload.mailbox.close()
            running.loop.abort(one)

        await asyncio.gather(*(call(number) for number in range(90)))

        await running.idle()
        assert (running.pool.num_in_use, running.runner.seated) == (0, {})
        running.scheduler.check()


async def test_with_nothing_to_do_the_thread_sleeps_and_tidies_up() -> None:
    collected = threading.Event()

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "stop" and info["generation"] == 2 and threading.get_ident() == thread_id:
            collected.set()

    running = Running()
    running.loop.COLLECT_AFTER_SECONDS = 0.0
    thread_id: int | None = -1
    gc.callbacks.append(note)
    try:
        async with running:
            thread_id = running.loop.thread_id
            running.submit(one := request(3))
            await to_the_end(one)
            await running.idle()
            num_steps = len(running.runner.plans)

            assert await asyncio.to_thread(collected.wait, 20)
            running.clock.now += 3600
            async with asyncio.timeout(20):
                while not running.loop.is_idle:  # noqa: ASYNC110 - it may be putting a message by
                    await asyncio.sleep(0)
            assert running.loop.seconds_stalled == 0.0
            assert len(running.runner.plans) == num_steps
    finally:
        gc.callbacks.remove(note)


async def test_a_watchdog_sees_a_step_that_does_not_end() -> None:
    entered, released = threading.Event(), threading.Event()
    async with Running() as running:
        forward = running.runner.forward

        def hang(plan: StepPlan, /) -> list[tuple[int, int, int]]:
            entered.set()
            released.wait(20)
            return forward(plan)

        running.runner.forward = hang  # type: ignore[method-assign]
        running.submit(one := request(3))
        assert await asyncio.to_thread(entered.wait, 20)
        running.clock.now += 12

        assert running.loop.seconds_stalled == pytest.approx(12)

        released.set()
        assert await to_the_end(one) == answer(prompt_of(one), 8)


@pytest.mark.parametrize("method", ["forward", "sample", "read"])
async def test_a_runner_that_fails_ends_what_runs_and_waits_and_the_engine_is_told(
    method: str,
) -> None:
    running = Running(max_sequences=1)
    error = RuntimeError("the device is gone")
    running.runner.failures[method] = [error]
    first, second = request(3), request(3)
    running.submit(first, second)
    async with running:
        for one in (first, second):
            with pytest.raises(Unavailable, match="model 'fake' failed: the device is gone"):
                await to_the_end(one)
        await asyncio.to_thread(running.loop.join)

    assert running.errors == [error]
    assert running.loop.has_ended
    assert running.pool.num_in_use == 0


async def test_after_a_failure_the_engine_may_go_on_with_an_empty_cache() -> None:
    running = Running()
    running.goes_on = True
    prompt = list(range(20))
    async with running:
        running.submit(before := request(prompt))
        await to_the_end(before)
        await running.idle()
        running.runner.failures["forward"] = [RuntimeError("out of memory")]
        running.submit(failed := request(3))
        with pytest.raises(Unavailable):
            await to_the_end(failed)

        running.submit(after := request(prompt))

        assert await to_the_end(after) == answer(prompt, 8)
        assert after.num_cached == 0


async def test_a_runner_that_only_fails_is_given_up() -> None:
    running = Running()
    running.goes_on = True
    running.runner.failures["read"] = [RuntimeError("again") for _ in range(9)]
    async with running:
        for _ in range(3):
            running.submit(one := request(3))
            with pytest.raises(Unavailable):
                await to_the_end(one)
        await asyncio.to_thread(running.loop.join)

    assert len(running.errors) == 3


async def test_a_runner_that_fails_when_told_of_an_end_is_a_runner_that_fails() -> None:
    running = Running()
    running.pause()
    async with running:
        running.submit(one := request(3, max_tokens=900), other := request(3, max_tokens=900))
        await one.payload.mailbox.get()
        running.runner.failures["end"] = [RuntimeError("the device is gone")]
        running.loop.abort(one)
        running.resume()

        with pytest.raises(Unavailable, match="the device is gone"):
            await to_the_end(other)
        await asyncio.to_thread(running.loop.join)

    assert len(running.errors) == 1


async def test_what_the_runner_says_itself_is_what_the_reader_is_told() -> None:
    running = Running()
    running.runner.failures["forward"] = [Unavailable("this GPU has fallen off the bus")]
    async with running:
        running.submit(one := request(3))

        with pytest.raises(Unavailable, match=r"^this GPU has fallen off the bus$"):
            await to_the_end(one)


async def test_stopping_ends_every_stream_and_every_call() -> None:
    running = Running(max_sequences=1)
    running.pause()
    running.submit(one := request(3, max_tokens=900), other := request(3))
    call = running.loop.call(lambda: None, when_idle=True)
    async with running:
        await one.payload.mailbox.get()

    for unfinished in (one, other):
        with pytest.raises(Unavailable, match="was unloaded"):
            await to_the_end(unfinished)
    with pytest.raises(Unavailable, match="was unloaded"):
        call.result(timeout=0)
    assert running.pool.num_in_use == 0


async def test_what_comes_after_the_end_is_told_so() -> None:
    async with Running() as running:
        pass

    running.submit(one := request(3))
    call = running.loop.call(lambda: None)

    with pytest.raises(Unavailable, match="was unloaded"):
        await to_the_end(one)
    with pytest.raises(Unavailable, match="was unloaded"):
        call.result(timeout=0)


async def test_a_call_runs_on_the_thread_between_steps() -> None:
    async with Running() as running:
        running.pause()
        running.submit(one := request(3, max_tokens=900))
        await one.payload.mailbox.get()

        call = running.loop.call(lambda: (threading.get_ident(), one.num_generated))
        running.resume()
        thread, num_generated = await asyncio.wrap_future(call)

        assert thread == running.loop.thread_id
        assert num_generated < 900


async def test_a_call_that_waits_for_idleness_comes_after_all_answers() -> None:
    running = Running()
    one, other = request(3, max_tokens=50), request(3, max_tokens=90)
    running.submit(one)
    call = running.loop.call(lambda: other.num_generated, when_idle=True)
    running.submit(other)
    async with running:
        assert await asyncio.wrap_future(call) == 90


async def test_a_call_that_fails_fails_for_its_caller_only() -> None:
    async with Running() as running:
        running.submit(one := request(3))

        with pytest.raises(ZeroDivisionError):
            await asyncio.wrap_future(running.loop.call(lambda: 1 // 0))

        assert await to_the_end(one) == answer(prompt_of(one), 8)


async def test_a_call_that_was_cancelled_is_not_made() -> None:
    running = Running()
    made: list[int] = []
    call = running.loop.call(lambda: made.append(1))
    assert call.cancel()
    async with running:
        await running.idle()

    assert made == []


async def test_an_error_outside_any_step_ends_the_loop_and_not_silently() -> None:
    running = Running()
    running.pause()
    async with running:
        running.submit(one := request(3, max_tokens=900))
        await one.payload.mailbox.get()

        running.loop._inbox.put("no message")  # type: ignore[arg-type]
        running.resume()

        with pytest.raises(Unavailable, match="model 'fake' failed"):
            await to_the_end(one)
        await asyncio.to_thread(running.loop.join)

    assert len(running.errors) == 1


async def test_a_step_thread_shortens_the_switch_interval_of_the_process() -> None:
    sys.setswitchinterval(0.005)

    async with Running():
        assert sys.getswitchinterval() == pytest.approx(SWITCH_INTERVAL_SECONDS)


def test_when_the_event_loop_is_gone_the_thread_ends() -> None:
    async def start() -> Running:
        running = Running()
        running.pause()
        running.loop.start()
        running.submit(one := request(3, max_tokens=900))
        await one.payload.mailbox.get()
        return running

    running = asyncio.run(start())
    running.resume()

    running.loop.join()
    assert running.loop.has_ended
