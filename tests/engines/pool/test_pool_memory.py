"""Which models stay and which wait, when memory is short."""

import asyncio

import pytest

from engines.errors import Overloaded, Unavailable
from engines.pool import Room
from tests.engines.pool.stand_in import Loads, budget_of, needing, pool_of, settled
from tests.fakes import FakeClock


async def test_two_models_in_a_budget_for_one_take_turns_when_idle() -> None:
    loads = Loads()
    pool = pool_of(loads, budget=budget_of(100))

    for name in ("a", "b", "a"):
        (await pool.lease(name, needs=[needing(60)])).release()

    assert loads.names == ["a", "b", "a"]
    assert pool.room == Room(60, 0, 1)


async def test_a_model_that_can_never_fit_is_refused_at_once_with_need_budget_and_way_out() -> None:
    loads = Loads()
    pool = pool_of(loads, budget=budget_of(4 << 30))

    with pytest.raises(Unavailable) as caught:
        await pool.lease("giant", needs=[needing(9 << 30, gpu=1), needing(10 << 30)])

    assert caught.value.message == (
        "model 'giant' needs 10.0 GiB and all models of this engine may take 4.0 GiB: raise "
        "max_memory_bytes, lower context_tokens or num_slots, or choose a smaller model"
    )
    assert loads.names == []


async def test_what_was_measured_counts_from_then_on() -> None:
    loads = Loads(measured={"a": Room(20)})
    pool = pool_of(loads, budget=budget_of(100))
    busy = await pool.lease("a", needs=[needing(60)])

    async with asyncio.timeout(5):
        other = await pool.lease("b", needs=[needing(80)])

    assert pool.room == Room(100, 0, 2)
    busy.release()
    other.release()


async def test_a_model_that_took_too_much_answers_and_goes() -> None:
    loads = Loads(measured={"a": Room(120)})
    pool = pool_of(loads, budget=budget_of(100))

    lease = await pool.lease("a", needs=[needing(60)])
    assert not lease.model.is_closed
    lease.release()
    await settled()

    assert loads.opened[0].is_closed
    assert pool.room == Room()


async def test_a_model_in_steady_use_makes_way_after_its_minimum_residency() -> None:
    loads, clock = Loads(), FakeClock()
    pool = pool_of(loads, clock, budget=budget_of(100), min_residency_seconds=10.0)
    first = await pool.lease("a", needs=[needing(60)])
    other = asyncio.create_task(pool.lease("b", needs=[needing(60)]))
    await settled()

    clock.advance(9)
    second = await pool.lease("a")  # it has not been there for long enough
    first.release()
    clock.advance(2)
    (await pool.lease("a")).release()
    late = asyncio.create_task(pool.lease("a", needs=[needing(60)]))
    await settled()
    assert not late.done()
    assert not pool.serves("a")

    second.release()
    lease = await other

    assert lease.model.name == "b"
    lease.release()
    (await late).release()
    assert loads.names == ["a", "b", "a"]


async def test_a_model_whose_rival_gave_up_takes_newcomers_again() -> None:
    loads, clock = Loads(), FakeClock()
    pool = pool_of(loads, clock, budget=budget_of(100), min_residency_seconds=0.0)
    busy = await pool.lease("a", needs=[needing(60)])
    rival = asyncio.create_task(pool.lease("b", needs=[needing(60)]))
    await settled()
    newcomer = asyncio.create_task(pool.lease("a", needs=[needing(60)]))
    await settled()
    assert not newcomer.done()

    rival.cancel()
    async with asyncio.timeout(5):
        lease = await newcomer

    assert lease.model is busy.model


async def test_the_queue_for_a_model_is_bounded_and_says_when_to_come_back() -> None:
    loads, clock = Loads(holds={"a": asyncio.Event()}), FakeClock()
    pool = pool_of(loads, clock, budget=budget_of(100), max_waiting=2)
    waiting = [asyncio.create_task(pool.lease("a")) for _ in range(2)]
    await settled()
    clock.advance(7)
    loads.holds["a"].set()
    for task in waiting:
        (await task).release()
    await pool.unload("a")

    loads.holds["a"] = asyncio.Event()
    waiting = [asyncio.create_task(pool.lease("a")) for _ in range(2)]
    await settled()
    clock.advance(3)
    with pytest.raises(Overloaded) as caught:
        await pool.lease("a")

    assert caught.value.retry_after == 4.0  # the last load took 7 seconds, and 3 are over
    loads.holds["a"].set()
    for task in waiting:
        (await task).release()


async def test_memory_that_others_give_back_is_found() -> None:
    loads = Loads()
    left = [Room(10, 0, 9)]
    pool = pool_of(loads, budget=budget_of(100, free=lambda: left[0]))
    waiting = asyncio.create_task(pool.lease("a", needs=[needing(40)]))
    await settled()
    assert not waiting.done()

    left[0] = Room(50, 0, 9)
    async with asyncio.timeout(5):
        lease = await waiting

    assert lease.model.name == "a"


async def test_who_cannot_have_the_memory_of_other_programs_is_told() -> None:
    loads, clock = Loads(), FakeClock()
    pool = pool_of(loads, clock, budget=budget_of(1 << 30, free=lambda: Room(1 << 20, 0, 9)))
    waiting = asyncio.create_task(pool.lease("a", needs=[needing(1 << 29)]))
    await settled()
    clock.advance(2)

    with pytest.raises(Unavailable, match=r"needs 512.0 MiB and this machine has 1.0 MiB left"):
        await waiting


async def test_the_way_that_was_chosen_is_told_to_who_loads() -> None:
    loads = Loads()
    pool = pool_of(loads, budget=budget_of(100, gpu=10))
    ways = [needing(5, gpu=20, gpu_layers=8), needing(15, gpu=10, gpu_layers=4), needing(25)]

    await pool.lease("a", needs=ways)

    assert [need.gpu_layers for need in loads.needs] == [4]
    assert pool.room == Room(15, 10, 1)
