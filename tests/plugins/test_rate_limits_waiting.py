"""Calls that wait for room."""

import asyncio

import pytest

from gateway import RateLimited
from tests.plugins.limited import stage_of, standard


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
