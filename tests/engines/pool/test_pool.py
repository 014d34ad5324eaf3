import asyncio

import pytest
from structlog.contextvars import bound_contextvars, merge_contextvars
from structlog.testing import capture_logs

from engines.errors import Unavailable
from engines.pool.pool import FOLLOWING_SECONDS
from tests.engines.pool.stand_in import Loads, pool_of, settled
from tests.fakes import FakeClock


async def test_callers_who_come_during_a_load_share_it() -> None:
    loads = Loads()
    pool = pool_of(loads)

    first, second = await asyncio.gather(pool.lease("a"), pool.lease("a"))

    assert first.model is second.model
    assert loads.names == ["a"]


async def test_the_model_idle_for_longest_makes_room() -> None:
    loads, clock = Loads(), FakeClock()
    pool = pool_of(loads, clock)
    for name in ("a", "b", "a"):
        (await pool.lease(name)).release()
        clock.advance(1)

    (await pool.lease("c")).release()

    assert {model.name for model in pool.loaded()} == {"a", "c"}
    assert loads.opened[1].is_closed


async def test_a_busy_model_is_never_evicted_and_the_newcomer_waits() -> None:
    loads = Loads()
    pool = pool_of(loads, most=1)
    busy = await pool.lease("a")
    waiting = asyncio.create_task(pool.lease("b"))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not waiting.done()
    assert pool.num_waiting == 1

    busy.release()
    lease = await waiting

    assert lease.model.name == "b"
    assert loads.opened[0].is_closed


async def test_a_slow_load_does_not_hold_up_another_model() -> None:
    loads = Loads(holds={"slow": asyncio.Event()})
    pool = pool_of(loads)
    slow = asyncio.create_task(pool.lease("slow"))
    await asyncio.sleep(0)

    async with asyncio.timeout(5):
        quick = await pool.lease("quick")

    assert quick.model.name == "quick"
    loads.holds["slow"].set()
    assert (await slow).model.name == "slow"


async def test_a_failed_load_fails_its_callers_and_the_next_may_try_again() -> None:
    loads = Loads(failures=[Unavailable("no memory")])
    pool = pool_of(loads)

    outcomes = await asyncio.gather(pool.lease("a"), pool.lease("a"), return_exceptions=True)
    lease = await pool.lease("a")

    assert [str(outcome) for outcome in outcomes] == ["no memory", "no memory"]
    assert lease.model.name == "a"


async def test_a_load_that_breaks_is_unavailable() -> None:
    pool = pool_of(Loads(failures=[RuntimeError("boom")]))

    with pytest.raises(Unavailable, match="'a' could not be loaded: boom"):
        await pool.lease("a")


async def test_an_idle_model_is_unloaded_after_its_keep_alive() -> None:
    loads, clock = Loads(), FakeClock()
    pool = pool_of(loads, clock)
    (await pool.lease("a", keep_alive_seconds=10.0)).release()

    clock.advance(9)
    await (await pool.lease("b")).model.close()
    assert pool.find("a") is not None
    clock.advance(2)
    (await pool.lease("b")).release()

    assert pool.find("a") is None


async def test_zero_keep_alive_unloads_at_once_and_a_negative_one_never() -> None:
    loads, clock = Loads(), FakeClock()
    pool = pool_of(loads, clock)
    (await pool.lease("once", keep_alive_seconds=0.0)).release()
    (await pool.lease("ever", keep_alive_seconds=-1.0)).release()

    clock.advance(1e9)
    (await pool.lease("other")).release()

    assert {model.name for model in pool.loaded()} >= {"ever"}
    assert loads.opened[0].is_closed
    assert not loads.opened[1].is_closed


async def test_a_failed_model_is_opened_anew() -> None:
    loads = Loads()
    pool = pool_of(loads)
    (await pool.lease("a")).release()
    loads.opened[0].has_failed = True

    lease = await pool.lease("a")

    assert lease.model is loads.opened[1]


async def test_unload_waits_for_the_running_and_newcomers_get_a_new_copy() -> None:
    loads = Loads()
    pool = pool_of(loads)
    running = await pool.lease("a")
    unloading = asyncio.create_task(pool.unload("a"))
    newcomer = asyncio.create_task(pool.lease("a"))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not unloading.done()
    assert not newcomer.done()

    running.release()
    await unloading

    assert loads.opened[0].is_closed
    assert (await newcomer).model is loads.opened[1]


async def test_a_caller_who_gives_up_holds_nothing() -> None:
    loads = Loads(holds={"a": asyncio.Event()})
    pool = pool_of(loads)
    waiting = asyncio.create_task(pool.lease("a"))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert pool.num_waiting == 0

    loads.holds["a"].set()
    await pool.unload("a")

    assert pool.loaded() == []


async def test_close_ends_waits_and_loads_and_closes_what_is_loaded() -> None:
    loads = Loads(holds={"slow": asyncio.Event()})
    pool = pool_of(loads)
    await pool.lease("a")
    waiting = asyncio.create_task(pool.lease("slow"))
    await asyncio.sleep(0)

    await pool.close()
    await pool.close()

    with pytest.raises(Unavailable):
        await waiting
    with pytest.raises(Unavailable):
        await pool.lease("a")
    assert loads.opened[0].is_closed


async def test_the_last_keep_alive_that_was_said_holds() -> None:
    loads, clock = Loads(), FakeClock()
    pool = pool_of(loads, clock)
    (await pool.lease("a", default_keep_alive_seconds=20.0)).release()
    assert pool.idle_seconds_left("a") == 20.0

    (await pool.lease("a", keep_alive_seconds=60.0)).release()
    (await pool.lease("a", default_keep_alive_seconds=20.0)).release()
    assert pool.idle_seconds_left("a") == 60.0

    (await pool.lease("a", keep_alive_seconds=-1.0)).release()
    assert pool.idle_seconds_left("a") is None
    (await pool.lease("a", keep_alive_seconds=0.0)).release()
    await settled()
    assert pool.loaded() == []


async def test_a_model_that_breaks_down_again_and_again_is_left_alone_for_a_while() -> None:
    loads, clock = Loads(), FakeClock()
    pool = pool_of(loads, clock)
    for _ in range(2):
        lease = await pool.lease("a")
        lease.model.has_failed = True
        lease.release()
        await settled()

    with pytest.raises(Unavailable, match=r"'a' broke down \(failed 2 times, next try in 1 s\)"):
        await pool.lease("a")
    (await pool.lease("b")).release()
    clock.advance(1)
    (await pool.lease("a")).release()

    assert loads.names == ["a", "a", "b", "a"]


async def test_loads_that_fail_in_a_row_are_tried_ever_less_and_only_their_callers_fail() -> None:
    loads, clock = Loads(failures=[Unavailable("no memory")] * 3), FakeClock()
    pool = pool_of(loads, clock)
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"^no memory$"):
            await pool.lease("a")

    with pytest.raises(Unavailable, match=r"no memory .failed 2 times") as caught:
        await pool.lease("a")

    assert caught.value.retry_after == 1.0
    assert len(loads.failures) == 1  # it was not tried
    pool.retire("a")  # another file
    loads.failures.clear()
    assert (await pool.lease("a")).model.name == "a"


async def test_unloading_a_model_that_loads_still_answers_those_who_wait_for_it() -> None:
    loads = Loads(holds={"a": asyncio.Event()})
    pool = pool_of(loads)
    early = asyncio.create_task(pool.lease("a"))
    await settled()
    unloading = asyncio.create_task(pool.unload("a"))
    await settled()
    late = asyncio.create_task(pool.lease("a"))
    await settled()

    loads.holds["a"].set()
    lease = await early
    assert not late.done()
    lease.release()
    await unloading

    assert (await late).model is loads.opened[1]


async def test_a_copy_that_was_retired_while_it_was_loading_is_given_to_nobody() -> None:
    loads = Loads(holds={"a": asyncio.Event()})
    pool = pool_of(loads)
    waiting = asyncio.create_task(pool.lease("a"))
    await settled()
    pool.retire("a")

    loads.holds["a"].set()
    lease = await waiting

    assert lease.model is loads.opened[1]
    assert loads.opened[0].is_closed


async def test_an_unload_that_goes_wrong_gives_its_place_back() -> None:
    loads = Loads()
    pool = pool_of(loads, most=1)
    lease = await pool.lease("a")
    lease.model.close_error = OSError("stuck")
    lease.release()

    async with asyncio.timeout(5):
        other = await pool.lease("b")

    assert other.model.name == "b"


async def test_closing_lets_go_those_who_wait_for_an_unload() -> None:
    loads = Loads(holds={"a": asyncio.Event()})
    pool = pool_of(loads)
    waiting = asyncio.create_task(pool.lease("a"))
    await settled()
    unloading = asyncio.create_task(pool.unload("a"))
    await settled()

    await pool.close()

    async with asyncio.timeout(5):
        await unloading
    with pytest.raises(Unavailable):
        await waiting


async def test_loads_and_unloads_are_counted_by_model_and_why() -> None:
    loads, clock = Loads(failures=[Unavailable("no memory")]), FakeClock()
    pool = pool_of(loads, clock, most=1)
    with pytest.raises(Unavailable):
        await pool.lease("a")
    (await pool.lease("a")).release()
    (await pool.lease("b", keep_alive_seconds=0.0)).release()
    await settled()
    (await pool.lease("a")).release()
    await pool.unload("a")

    counted = pool.loads_of("a")

    assert counted is not None
    assert (counted.num_failed, counted.seconds.count) == (1, 2)
    assert counted.unloads == {"evicted": 1, "asked": 1}
    other = pool.loads_of("b")
    assert other is not None
    assert other.unloads == {"expired": 1}
    assert pool.loads_of("c") is None


async def test_who_counts_a_prompt_does_not_have_the_model_loaded_twice() -> None:
    loads, clock = Loads(), FakeClock()
    pool = pool_of(loads, clock, keep_alive_seconds=0.0)
    (await pool.lease("a", expects_another=True)).release()
    (await pool.lease("a", expects_another=True)).release()
    await settled()

    (await pool.lease("a", keep_alive_seconds=0.0)).release()
    await settled()
    assert not loads.opened[0].is_closed  # another of those that counted may follow
    (await pool.lease("a")).release()
    await settled()

    assert loads.names == ["a"]
    assert loads.opened[0].is_closed


async def test_a_model_that_was_kept_for_a_request_which_never_came_goes() -> None:
    loads, clock = Loads(), FakeClock()
    pool = pool_of(loads, clock, keep_alive_seconds=0.0)
    (await pool.lease("a", expects_another=True)).release()
    assert pool.idle_seconds_left("a") == FOLLOWING_SECONDS

    clock.advance(FOLLOWING_SECONDS)
    (await pool.lease("b")).release()
    await settled()

    assert loads.opened[0].is_closed


async def test_the_end_of_a_model_does_not_name_the_call_that_was_there() -> None:
    pool = pool_of(Loads())

    with capture_logs(processors=[merge_contextvars]) as logs, bound_contextvars(call="req_1"):
        (await pool.lease("a", keep_alive_seconds=0.0)).release()
        await settled()

    [told] = [entry for entry in logs if entry["event"] == "model_unloaded"]
    assert "call" not in told
