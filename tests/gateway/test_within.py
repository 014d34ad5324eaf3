import asyncio
from collections.abc import Awaitable

import pytest

from gateway.within import within


async def ready(value: int) -> int:
    return value


async def late(seconds: float, value: int) -> int:
    await asyncio.sleep(seconds)
    return value


async def test_what_is_there_is_returned_however_short_the_time() -> None:
    assert await within(0.0, ready(7)) == 7


async def test_what_comes_in_time_is_returned() -> None:
    assert await within(60.0, late(0.001, 7)) == 7


async def test_several_waits_are_one_wait() -> None:
    async def twice() -> int:
        return await late(0.001, 3) + await late(0.001, 4)

    assert await within(60.0, twice()) == 7


async def test_what_comes_too_late_is_ended() -> None:
    ended: list[str] = []

    async def never() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append("never")

    with pytest.raises(TimeoutError):
        await within(0.001, never())

    assert ended == ["never"]


async def test_without_a_number_nothing_is_too_late() -> None:
    assert await within(None, late(0.001, 7)) == 7


async def test_an_error_before_and_after_a_wait_is_the_callers() -> None:
    async def fails(seconds: float | None) -> None:
        if seconds is not None:
            await asyncio.sleep(seconds)
        raise LookupError("not there")

    for seconds in (None, 0.001):
        with pytest.raises(LookupError, match="not there"):
            await within(60.0, fails(seconds))


async def test_a_future_may_be_waited_for_too() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, 7)

    assert await within(60.0, future) == 7


async def test_who_is_cancelled_cancels_what_is_asked() -> None:
    seen: list[str] = []
    waiting = asyncio.Event()

    async def asked() -> None:
        try:
            waiting.set()
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    task = asyncio.create_task(within(60.0, asked()))
    await waiting.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["cancelled"]


async def test_what_takes_its_cancellation_for_an_answer_is_believed() -> None:
    waiting = asyncio.Event()

    async def stubborn() -> int:
        try:
            waiting.set()
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
        return 7

    asked: Awaitable[int] = stubborn()
    task = asyncio.create_task(within(60.0, asked))
    await waiting.wait()
    task.cancel()

    assert await task == 7
