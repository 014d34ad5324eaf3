"""Calls while the store is away."""

import asyncio

import pytest
from structlog.testing import capture_logs

from gateway import LimitsUnavailable, RateLimited
from gateway.errors import problem_of
from tests.plugins.limited import Stage, stage_of, standard
from tests.virtual_time import run_in_virtual_time


def away(*limits: object, **options: object) -> Stage:
    """A stage whose store does not answer."""
    stage = stage_of(*limits, **options)  # type: ignore[arg-type]
    stage.store.is_away = True
    return stage


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


async def test_a_guess_larger_than_the_share_refuses_nobody():
    stage = away(standard(tokens_per_minute=10_000), replicas=10)

    async with stage.admitted(stage.call(words=9)) as call:
        assert call.response_headers["x-ratelimit-limit-tokens"] == "1000"
        assert call.response_headers["x-ratelimit-remaining-tokens"] == "0"
        refusal = await stage.refused(stage.call(words=9))

    # The next one is told when to come back.
    assert "1,000 of 1,000 tokens are used or reserved" in refusal.message
    assert refusal.retry_after > 1


async def test_what_never_fits_the_share_is_told_so_and_not_to_come_back_at_once():
    stage = away(standard(tokens_per_minute=10_000), replicas=10)

    refusal = await stage.refused(stage.call(words=9, max_tokens=2000))

    assert refusal.message.startswith(
        'this request is too large for tokens_per_minute of team "search", this gateway\'s share'
    )
    assert "needs 2,009 tokens and at most 1,000 tokens fit at once" in refusal.message
    assert refusal.headers["x-should-retry"] == "false"
    assert "retry-after-ms" not in refusal.headers


async def test_answers_are_cut_to_what_is_left_of_the_share():
    stage = away(standard(tokens_per_minute=1000, clamp_output=True), replicas=10)

    call = await stage.run(stage.call(words=10, max_tokens=500), prompt=10, output=90)

    assert call.requests[0].max_tokens == 90
    assert call.response_headers["x-penstock-max-tokens"] == "90"
    assert isinstance(await stage.refused(stage.call(words=10, max_tokens=500)), RateLimited)


async def test_calls_wait_for_the_share_where_the_policy_says_so():
    stage = away(standard(concurrent_calls=2, wait_seconds=20), replicas=2)

    async with stage.admitted(stage.call()):
        waiting = asyncio.create_task(stage.run(stage.call()))
        await stage.until_waiting(1)
        assert not waiting.done()

    assert (await waiting).response_headers["x-penstock-limits"] == "degraded"


def test_a_call_that_waited_for_the_store_does_not_wait_anew():
    async def main() -> float:
        loop = asyncio.get_running_loop()
        stage = stage_of(standard(concurrent_calls=1, wait_seconds=20))
        began = loop.time()
        async with stage.admitted(stage.call()):
            waiting = asyncio.create_task(stage.refused(stage.call()))
            await asyncio.sleep(15)
            places = stage.plugin._rules_of(stage.call()).single
            await stage.plugin._local.store.reserve("another", places)
            stage.store.is_away = True
            assert isinstance(await waiting, RateLimited)
            return loop.time() - began

    assert 19 <= run_in_virtual_time(main) <= 20


async def test_a_refusal_by_the_share_says_by_what_and_what_is_left():
    stage = away(standard(requests_per_minute=2), replicas=2)
    await stage.run(stage.call())

    call = stage.call()
    refusal = await stage.refused(call)

    headers = call.response_headers | refusal.headers
    assert headers["x-penstock-refused-by"] == "standard.requests_per_minute"
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert headers["x-penstock-limits"] == "degraded"


async def test_a_shadow_limit_is_logged_without_the_store_too():
    stage = away(standard(requests_per_minute=1, shadow=True))
    await stage.run(stage.call())

    with capture_logs() as logs:
        await stage.run(stage.call())

    assert [(line["event"], line["limit"]) for line in logs] == [
        ("limit_shadowed", "requests_per_minute")
    ]


async def test_who_hangs_up_while_waiting_for_the_share_holds_nothing_anywhere():
    stage = stage_of(standard(concurrent_calls=1, wait_seconds=20))
    stage.store.is_away = stage.store.does_it_all_the_same = True

    async with stage.admitted(stage.call()):
        waiting = asyncio.create_task(stage.run(stage.call()))
        await stage.until_waiting(1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    assert await stage.used() == {"concurrent_calls": 0}
    assert stage.plugin._local.store.num_held() == 0
