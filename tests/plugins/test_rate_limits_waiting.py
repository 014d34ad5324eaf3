"""Calls that wait for room, and calls while the store is away."""

import asyncio

import pytest

from gateway import LimitsUnavailable, RateLimited
from gateway.errors import problem_of
from tests.plugins.limited import stage_of, standard


async def test_a_call_waits_for_one_that_ends_where_the_policy_says_so():
    stage = stage_of(standard(concurrent_calls=1, wait_seconds=20))
    order: list[str] = []

    async def run(name: str) -> None:
        async with stage.admitted(stage.call()):
            order.append(name)

    async with stage.admitted(stage.call()):
        waiting = [asyncio.create_task(run(name)) for name in "abc"]
        while stage.plugin._lines.num_waiting < 3:  # noqa: ASYNC110
            await asyncio.sleep(0)
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
        while not stage.plugin._lines.num_waiting:  # noqa: ASYNC110
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    assert stage.plugin._lines.num_waiting == 0
    assert await stage.used() == {"concurrent_calls": 0}


async def test_without_the_store_each_gateway_counts_its_share():
    stage = stage_of(standard(requests_per_minute=6), replicas=3)
    stage.store.is_away = True

    calls = [await stage.run(stage.call()) for _ in range(2)]

    assert calls[0].response_headers["x-penstock-limits"] == "degraded"
    assert calls[0].response_headers["x-ratelimit-limit-requests"] == "2"
    assert isinstance(await stage.refused(stage.call()), RateLimited)


async def test_what_was_used_meanwhile_is_charged_when_the_store_is_back():
    stage = stage_of(standard(tokens_per_minute=600))
    stage.store.is_away = True
    await stage.run(stage.call(words=3), prompt=3, output=30)

    assert stage.store.settled == [("req_1", [33], True)]
    assert await stage.used() == {"tokens_per_minute": 33}


async def test_an_open_policy_lets_everything_through_without_the_store():
    stage = stage_of(standard(requests_per_minute=1), on_store_failure="open")
    stage.store.is_away = True

    for _ in range(3):
        call = await stage.run(stage.call())
    assert call.response_headers == {"x-penstock-limits": "degraded"}


async def test_a_closed_policy_refuses_without_the_store_and_it_is_not_the_callers_fault():
    stage = stage_of(standard(requests_per_minute=1), on_store_failure="closed")
    stage.store.is_away = True

    call = stage.call()
    refusal = await stage.refused(call)

    assert isinstance(refusal, LimitsUnavailable)
    assert problem_of(refusal).status == 503
    assert call.response_headers == {"x-penstock-limits": "degraded"}


async def test_a_budget_is_closed_without_the_store_unless_the_policy_says_otherwise():
    closed = stage_of(standard(requests_per_minute=9, tokens_per_day=5000))
    closed.store.is_away = True
    assert isinstance(await closed.refused(closed.call()), LimitsUnavailable)

    opened = stage_of(standard(tokens_per_day=5000), budgets_on_store_failure="open")
    opened.store.is_away = True
    await opened.run(opened.call())


async def test_a_store_that_was_slow_keeps_nothing_of_a_call_that_was_refused():
    stage = stage_of(standard(concurrent_calls=4, requests_per_minute=9), on_store_failure="closed")
    stage.store.is_away = stage.store.does_it_all_the_same = True

    await stage.refused(stage.call())

    assert await stage.used() == {"concurrent_calls": 0, "requests_per_minute": 0}
