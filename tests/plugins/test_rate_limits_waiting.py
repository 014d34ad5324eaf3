"""Calls that wait for room."""

import asyncio

import pytest

from gateway import RateLimited
from gateway.policy import LimitPolicy
from tests.plugins.limited import stage_of, standard
from tests.virtual_time import run_in_virtual_time


async def test_a_call_waits_for_one_that_ends_where_the_policy_says_so():
    stage = stage_of(standard(concurrent_calls=1, wait_seconds=20))
    order: list[str] = []

    async def run(name: str) -> None:
        async with stage.admitted(stage.call()):
            order.append(name)

    async with stage.admitted(stage.call()):
        waiting = [asyncio.create_task(run(name)) for name in "abc"]
        await stage.until_waiting(3)
        assert order == []
    await asyncio.gather(*waiting)

    assert order == ["a", "b", "c"]
    assert stage.plugin._lines.num_waiting == 0


async def test_a_call_whose_wait_would_be_too_long_is_refused_at_once():
    stage = stage_of(standard(requests_per_minute=1, wait_seconds=20))
    await stage.run(stage.call())

    refusal = await stage.refused(stage.call())

    assert "there is room in 1m0s" in refusal.message


async def test_only_so_many_may_wait():
    stage = stage_of(standard(concurrent_calls=1, wait_seconds=20), max_waiting=0)

    async with stage.admitted(stage.call()):
        assert isinstance(await stage.refused(stage.call()), RateLimited)


async def test_a_client_that_hangs_up_while_it_waits_holds_nothing():
    stage = stage_of(standard(concurrent_calls=1, wait_seconds=20))

    async with stage.admitted(stage.call()):
        waiting = asyncio.create_task(stage.run(stage.call()))
        await stage.until_waiting(1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    assert stage.plugin._lines.num_waiting == 0
    assert await stage.used() == {"concurrent_calls": 0}


CONCURRENT = LimitPolicy(name="one", per=[], concurrent_calls=1, wait_seconds=10)


def test_a_limit_that_allows_no_wait_refuses_at_once_whoever_else_waits():
    async def main() -> tuple[float, str]:
        loop = asyncio.get_running_loop()
        stage = stage_of(CONCURRENT, standard(requests_per_minute=1))
        async with stage.admitted(stage.call(team="search")):
            ahead = asyncio.create_task(stage.run(stage.call(team="batch")))
            await stage.until_waiting(1)
            began = loop.time()
            refusal = await stage.refused(stage.call(team="search"))
            seconds = loop.time() - began
        await ahead
        return seconds, refusal.message

    seconds, message = run_in_virtual_time(main)

    assert "requests_per_minute" in message
    assert seconds == 0


async def test_who_can_never_fit_does_not_stand_in_line_and_is_told_how_full_it_is():
    stage = stage_of(standard(concurrent_calls=1, tokens_per_minute=500, wait_seconds=20))

    async with stage.admitted(stage.call(max_tokens=10)):
        waiting = asyncio.create_task(stage.run(stage.call(max_tokens=10)))
        await stage.until_waiting(1)
        call = stage.call(max_tokens=600)
        refusal = await stage.refused(call)
        assert not waiting.done()
    await waiting

    assert "this request is too large" in refusal.message
    assert refusal.headers["x-penstock-refused-by"] == "standard.tokens_per_minute"
    assert call.response_headers["x-ratelimit-remaining-tokens"] == "487"


def test_a_limit_that_fills_up_meanwhile_is_not_waited_for_longer_than_it_allows():
    async def main() -> tuple[float, str]:
        loop = asyncio.get_running_loop()
        # One call every five seconds.
        stage = stage_of(CONCURRENT, standard(requests_per_minute=12, burst_seconds=5))
        stage.store._clock = lambda: int(loop.time() * 1000)
        async with stage.admitted(stage.call(team="batch")):
            began = loop.time()
            waiting = [asyncio.create_task(stage.refused_or_run(stage.call())) for _ in range(2)]
            await stage.until_waiting(2)
        # Both fitted when they came; the first uses up what the second would need.
        first, second = await asyncio.gather(*waiting)
        assert first is None
        assert second is not None
        return loop.time() - began, second.message

    seconds, message = run_in_virtual_time(main)

    assert "requests_per_minute" in message
    assert seconds < 1
