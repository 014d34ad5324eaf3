"""What tests/contract/test_store.py does not see of the memory store: what it keeps and forgets."""

import pytest

from gateway.store import Bucket, Demand, MemoryStore
from gateway.store.memory import SWEEP_AT, TOMBSTONE_MS

RATE = Bucket(kind="rate", key="rate", limit=600, burst=100)
DAY = Bucket(kind="window", key="day", limit=100, period="day")
CALLS = Bucket(kind="leases", key="calls", limit=5)


class Clock:
    now = 1_763_700_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(clock=clock)


async def used(store: MemoryStore, *buckets: Bucket) -> list[int]:
    return [fill.used for fill in await store.peek([Demand(bucket, 0) for bucket in buckets])]


async def test_a_call_that_wants_nothing_is_let_in(store: MemoryStore) -> None:
    decision = await store.reserve("c1", [], output=7)
    store.settle("c1", [], [])

    assert (decision.granted, decision.output, list(decision.fills)) == (True, 7, [])
    assert store.num_held() == 0


async def test_a_call_that_wants_the_same_bucket_twice_takes_and_settles_both(
    store: MemoryStore,
) -> None:
    demands = [Demand(RATE, 30), Demand(RATE, 20), Demand(DAY, 30), Demand(DAY, 20)]
    await store.reserve("c1", demands)
    assert await used(store, RATE, DAY) == [50, 50]

    store.settle("c1", demands, [10, 20, 10, 20])
    assert await used(store, RATE, DAY) == [30, 30]


async def test_looking_keeps_nothing(store: MemoryStore) -> None:
    assert await used(store, RATE, DAY, CALLS) == [0, 0, 0]

    assert not store._states


async def test_what_has_emptied_is_forgotten_and_what_runs_is_not(
    store: MemoryStore, clock: Clock
) -> None:
    running = [Demand(CALLS), Demand(DAY, 3)]
    await store.reserve("running", running)
    for number in range(SWEEP_AT):
        bucket = Bucket(kind="rate", key=f"key-{number}", limit=60, burst=60)
        await store.reserve(f"c{number}", [Demand(bucket)])
        store.settle(f"c{number}", [Demand(bucket)], [1])
    clock.now += 3_600_000 + TOMBSTONE_MS
    for number in range(3 * SWEEP_AT):
        await store.reserve(f"d{number}", [Demand(RATE, 0)])
        store.settle(f"d{number}", [Demand(RATE, 0)], [0])

    assert sorted(store._states) == ["calls", "day", "rate"]
    assert "running" in store._reservations
    assert "c0" not in store._reservations
    assert await used(store, CALLS, DAY) == [1, 3]
    store.settle("running", running, [0, 2])
    assert await used(store, CALLS, DAY) == [0, 2]
