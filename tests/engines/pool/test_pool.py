import asyncio

import pytest

from engines.errors import Unavailable
from tests.engines.pool.stand_in import Loads, pool_of
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
