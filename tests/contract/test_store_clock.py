"""Every store, by what a clock does to it: long pauses, and being set ahead and back."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack

import pytest

from gateway.store import Bucket, Demand, Fill, MemoryStore, Store
from gateway.store.memory import SWEEP_AT
from tests.contract.test_store import DAY, SUBJECTS, Subject
from tests.redis_server import RedisServer, redis_server

HOUR = 3_600_000
RATE = Bucket(kind="rate", key="rate", limit=100, burst=100)
CALLS = Bucket(kind="leases", key="calls", limit=1)
BUDGETS = [
    Bucket(kind="window", key="day", limit=100, period="day"),
    Bucket(kind="window", key="month", limit=100, period="month"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture(params=SUBJECTS)
async def subject(
    request: pytest.FixtureRequest, server: RedisServer
) -> AsyncGenerator[Subject, None]:
    async with AsyncExitStack() as stack:
        subject = SUBJECTS[request.param](server)
        await subject.open(stack)
        yield subject


async def use(store: Store, call_id: str, bucket: Bucket, *, reserved: int, used: int) -> None:
    demands = [Demand(bucket, reserved)]
    assert (await store.reserve(call_id, demands)).granted
    store.settle(call_id, demands, [used])


async def look(store: Store, bucket: Bucket, cost: int = 0) -> Fill:
    [fill] = await store.peek([Demand(bucket, cost)])
    return fill


async def sweep(subject: Subject) -> None:
    """Have the store do whatever it does with what it need not keep."""
    store = subject.stores[0]
    for number in range(2 * SWEEP_AT if isinstance(store, MemoryStore) else 0):
        await use(store, f"sweep-{subject.now}-{number}", CALLS, reserved=1, used=0)


async def test_a_debt_is_remembered_for_as_long_as_it_lasts(subject: Subject) -> None:
    store = subject.stores[0]
    await use(store, "c1", RATE, reserved=10, used=20_000)

    subject.now += HOUR
    await sweep(subject)
    assert (await look(store, RATE)).used == 14_000
    assert not (await store.reserve("c2", [Demand(RATE)])).granted

    subject.now += 140 * 60_000
    await sweep(subject)
    assert (await look(store, RATE)).used == 0


async def test_so_is_a_debt_of_a_call_that_never_reserved(subject: Subject) -> None:
    store = subject.stores[0]
    store.settle("c1", [Demand(RATE)], [20_000], charge_unreserved=True)

    subject.now += HOUR
    await sweep(subject)

    assert (await look(store, RATE)).used == 14_000


@pytest.mark.parametrize("budget", BUDGETS, ids=lambda bucket: bucket.period)
async def test_a_budget_of_a_clock_that_was_wrong_is_not_the_budget_of_today(
    subject: Subject, budget: Bucket
) -> None:
    store, today = subject.stores[0], subject.now
    subject.now = today + 365 * DAY
    await use(store, "c1", budget, reserved=100, used=100)
    assert not (await store.reserve("c2", [Demand(budget)])).granted

    subject.now = today

    fill = await look(store, budget, 1)
    assert (fill.fits, fill.used, fill.retry_ms) == (True, 0, 0)
    assert fill.reset_ms <= 31 * DAY
    await use(store, "c3", budget, reserved=5, used=7)
    assert (await look(store, budget)).used == 7


async def test_a_budget_stays_spent_when_the_clock_goes_back_within_its_day(
    subject: Subject,
) -> None:
    store = subject.stores[0]
    await use(store, "c1", BUDGETS[0], reserved=100, used=100)

    subject.now -= HOUR

    fill = await look(store, BUDGETS[0], 1)
    assert (fill.fits, fill.used) == (False, 100)


async def test_a_bucket_drains_on_when_the_clock_is_set_back(subject: Subject) -> None:
    store = subject.stores[0]
    await use(store, "c1", RATE, reserved=100, used=100)

    subject.now -= HOUR
    refused = await store.reserve("c2", [Demand(RATE, 50)])
    assert (refused.granted, refused.fills[0].retry_ms) == (False, 30_000)

    subject.now += 30_000
    assert (await store.reserve("c3", [Demand(RATE, 50)])).granted


async def test_what_drained_before_the_clock_was_set_back_is_not_given_back(
    subject: Subject,
) -> None:
    store = subject.stores[0]
    first, second = [Demand(RATE, 50)], [Demand(RATE, 40)]
    await store.reserve("c1", first)
    await store.reserve("c2", second)
    subject.now += 30_000  # the first has drained
    await store.reserve("c3", [Demand(RATE, 10)])

    subject.now -= HOUR
    store.settle("c1", first, [0])

    assert (await look(store, RATE)).used == 50
