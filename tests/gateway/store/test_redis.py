"""What only a store on a real Redis can get wrong: losing scripts, connections, replies."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator

import pytest

from gateway.store import Bucket, Demand, RedisStore, StoreUnavailable, open_store
from gateway.store.redis import MAX_FAILURES
from gateway.store.scripts import script_of
from tests.redis_server import RedisServer, redis_server

TOKENS = Demand(bucket=Bucket(kind="rate", key="tokens", limit=60, burst=6000), fixed=100)
CALLS = Demand(bucket=Bucket(kind="leases", key="calls", limit=5))
BUDGET = Demand(bucket=Bucket(kind="window", key="b", limit=10**6, period="month"), fixed=100)
DEMANDS = [TOKENS, CALLS, BUDGET]


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


def opened(server: RedisServer, *, timeout_seconds: float) -> RedisStore:
    store = open_store(f"{server.url}?timeout_seconds={timeout_seconds}")
    assert isinstance(store, RedisStore)
    return store


@pytest.fixture
async def store(server: RedisServer) -> AsyncGenerator[RedisStore, None]:
    """Patient: on a busy machine a Redis that runs may take its time."""
    async with (store := opened(server, timeout_seconds=10)).running():
        yield store


@pytest.fixture
async def hasty(server: RedisServer) -> AsyncGenerator[RedisStore, None]:
    async with (store := opened(server, timeout_seconds=0.05)).running():
        await until(lambda: store.is_connected)
        yield store


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def used(store: RedisStore) -> list[int]:
    async with asyncio.timeout(30):
        while True:
            try:
                return [fill.used for fill in await store.peek(DEMANDS)]
            except StoreUnavailable:
                await asyncio.sleep(0.005)


async def test_a_decision_is_one_round_trip(store: RedisStore, server: RedisServer) -> None:
    def num_commands() -> int:
        info = server.ask("INFO", "commandstats").decode()
        return sum(
            int(line.split("calls=")[1].split(",")[0])
            for line in info.splitlines()
            if line.startswith(("cmdstat_evalsha", "cmdstat_eval:"))
        )

    before = num_commands()
    await store.reserve("c1", DEMANDS)
    assert num_commands() == before + 1

    store.settle("c1", DEMANDS, [40, 0, 40])
    assert await used(store) == [40, 0, 40]


async def test_scripts_that_redis_has_lost_are_sent_again(
    store: RedisStore, server: RedisServer
) -> None:
    server.ask("SCRIPT", "FLUSH")
    assert (await store.reserve("c1", DEMANDS)).granted

    server.ask("SCRIPT", "FLUSH")
    store.settle("c1", DEMANDS, [10, 0, 10])
    assert await used(store) == [10, 0, 10]
    assert store.is_connected


async def test_a_stopped_redis_costs_one_time_out_and_then_nothing(
    hasty: RedisStore, server: RedisServer
) -> None:
    server.pause()

    results = await asyncio.gather(
        *(hasty.reserve(f"c{i}", DEMANDS) for i in range(50)), return_exceptions=True
    )

    assert all(isinstance(result, StoreUnavailable) for result in results)
    assert not hasty.is_connected
    with pytest.raises(StoreUnavailable) as refused:
        await hasty.reserve("later", DEMANDS)
    assert not refused.value.asked
    server.resume()
    await until(lambda: hasty.is_connected)


async def test_a_few_slow_replies_do_not_cut_the_connection(
    hasty: RedisStore, server: RedisServer
) -> None:
    server.pause()
    for i in range(MAX_FAILURES - 1):
        with pytest.raises(StoreUnavailable) as refused:
            await hasty.reserve(f"c{i}", [TOKENS])
        assert refused.value.asked

    assert hasty.is_connected


async def test_what_a_stopped_redis_does_later_for_a_call_that_has_ended_is_undone(
    hasty: RedisStore, server: RedisServer
) -> None:
    server.pause()
    for i in range(MAX_FAILURES + 3):
        with pytest.raises(StoreUnavailable):
            await hasty.reserve(f"c{i}", DEMANDS)
        hasty.settle(f"c{i}", DEMANDS, [0, 0, 0])
    server.resume()
    await until(lambda: hasty.is_connected and not hasty._owed)

    assert await used(hasty) == [0, 0, 0]


async def test_what_calls_used_while_redis_was_away_is_charged_when_it_is_back(
    store: RedisStore, server: RedisServer
) -> None:
    await store.reserve("before", DEMANDS)
    server.kill()
    await until(lambda: not store.is_connected)

    store.settle("before", DEMANDS, [70, 0, 70])
    store.settle("meanwhile", DEMANDS, [30, 0, 30], charge_unreserved=True)
    server.start()
    await until(lambda: store.is_connected and not store._owed)

    assert await used(store) == [30, 0, 30]  # a Redis that keeps nothing has forgotten `before`


async def test_a_call_that_outlives_a_restart_of_redis_gets_its_lease_back(
    store: RedisStore, server: RedisServer
) -> None:
    await store.reserve("long", [CALLS])
    server.kill()
    await until(lambda: not store.is_connected)
    server.start()
    await until(lambda: store.is_connected)
    assert (await store.peek([CALLS]))[0].used == 0

    await store.renew_now()
    assert (await store.peek([CALLS]))[0].used == 1

    store.settle("long", [CALLS], [0])
    await store.renew_now([("long", [b"{penstock}:call:long", b"{penstock}:limit:calls"])])
    assert (await store.peek([CALLS]))[0].used == 0


async def test_what_is_still_on_its_way_at_the_end_arrives(server: RedisServer) -> None:
    first, second = (opened(server, timeout_seconds=10) for _ in range(2))
    async with first.running():
        await first.reserve("c1", DEMANDS)
        first.settle("c1", DEMANDS, [1, 0, 1])

    async with second.running():
        assert await used(second) == [1, 0, 1]


async def test_a_gateway_starts_while_redis_is_away(server: RedisServer) -> None:
    server.kill()
    store = opened(server, timeout_seconds=10)

    async with store.running():
        with pytest.raises(StoreUnavailable):
            await store.reserve("c1", DEMANDS)
        server.start()
        await until(lambda: store.is_connected)
        assert (await store.reserve("c2", DEMANDS)).granted


def test_every_key_of_a_decision_is_in_one_slot_of_a_cluster(server: RedisServer) -> None:
    async def reserve() -> None:
        store = opened(server, timeout_seconds=10)
        async with store.running():
            await store.reserve("c1", DEMANDS)

    asyncio.run(reserve())
    keys = [line for line in server.ask("KEYS", "*").decode().splitlines() if line.startswith("{")]

    assert len(keys) == 4
    assert all(key.startswith("{penstock}:") for key in keys)


def test_what_is_kept_expires(server: RedisServer) -> None:
    test_every_key_of_a_decision_is_in_one_slot_of_a_cluster(server)

    for key in ("call:c1", "limit:tokens", "limit:calls", "limit:b"):
        assert int(server.ask("PTTL", "{penstock}:" + key)[1:]) > 0


def test_a_script_is_read_once() -> None:
    assert script_of("reserve") is script_of("reserve")
