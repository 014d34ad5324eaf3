"""How processes tell each other, over a real Redis."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator

import pytest
from redis.asyncio import Redis

from gateway.keys import OwnProcess, open_invalidations
from gateway.keys.redis_invalidations import CHANNEL, RedisInvalidations
from tests.gateway.keys.desk import Desk
from tests.redis_server import RedisServer, redis_server

KEY = "k3v90q2mxw7a"


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
async def client(redis: RedisServer) -> AsyncGenerator[Redis, None]:
    client: Redis = Redis.from_url(redis.url)
    yield client
    await client.aclose()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - any state may be asked for
            await asyncio.sleep(0.01)


async def heard_by(invalidations: RedisInvalidations, heard: list[str]) -> None:
    """Announce until somebody hears it: a listener needs a moment to connect."""
    async with asyncio.timeout(30):
        while not heard:
            await invalidations.announce(KEY)
            await asyncio.sleep(0.01)


async def test_a_change_is_heard_by_everyone(redis: RedisServer) -> None:
    one, two, teller = (RedisInvalidations(redis.url) for _ in range(3))
    heard_by_one: list[str] = []
    heard_by_two: list[str] = []

    async with one.listening(heard_by_one.append), two.listening(heard_by_two.append):
        await heard_by(teller, heard_by_one)
        await heard_by(teller, heard_by_two)

    assert set(heard_by_one + heard_by_two) == {KEY}


async def test_a_revoked_key_is_forgotten_by_every_process(redis: RedisServer) -> None:
    desk = Desk(RedisInvalidations(redis.url))
    async with desk.keys:
        told = await desk.keys.create("me", "told")
        new = await desk.keys.create("me", "laptop")
        assert await desk.keys.verify(told.secret)
        assert await desk.keys.verify(new.secret)
        # The clock stands still: what is felt here was heard.
        other = desk.another()
        async with asyncio.timeout(30):
            while await desk.keys.verify(told.secret):
                await other.disable(told.key.id)
                await other.enable(told.key.id)
                await other.disable(told.key.id)
                await asyncio.sleep(0.01)

        await other.revoke(new.key.id)
        async with asyncio.timeout(30):
            while await desk.keys.verify(new.secret):  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.01)


async def test_what_is_no_key_id_is_not_listened_to(redis: RedisServer, client: Redis) -> None:
    heard: list[str] = []
    invalidations = RedisInvalidations(redis.url)
    async with invalidations.listening(heard.append):
        await heard_by(invalidations, heard)
        heard.clear()
        for hostile in (b"", b"\xff\xfe", b"x" * 100_000, b"../etc", KEY.upper().encode()):
            await client.publish(CHANNEL, hostile)
        await client.publish(CHANNEL, KEY)
        await until(lambda: bool(heard))

    assert set(heard) == {KEY}


async def test_a_listener_finds_a_redis_that_was_killed_again(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.keys.redis_invalidations.AGAIN_SECONDS", 0.01)
    heard: list[str] = []
    invalidations = RedisInvalidations(redis.url)
    async with invalidations.listening(heard.append):
        await heard_by(invalidations, heard)
        redis.kill()
        await invalidations.announce(KEY)  # neither fails nor waits
        heard.clear()
        redis.start()

        await heard_by(invalidations, heard)


async def test_a_redis_that_hangs_holds_nobody_up(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.keys.redis_invalidations.ANNOUNCE_SECONDS", 0.05)
    monkeypatch.setattr("gateway.keys.redis_invalidations.CONNECT_SECONDS", 0.05)
    heard: list[str] = []
    invalidations = RedisInvalidations(redis.url)
    async with invalidations.listening(heard.append):
        await heard_by(invalidations, heard)
        redis.pause()

        await invalidations.announce(KEY)


async def test_without_redis_everyone_is_in_this_process() -> None:
    assert isinstance(open_invalidations("memory:"), OwnProcess)
    heard: list[str] = []
    own = OwnProcess()
    async with own.listening(heard.append):
        await own.announce(KEY)
    await own.announce("again")

    assert heard == [KEY]


@pytest.mark.parametrize("url", ["redis://h:1/0?timeout_seconds=0.05", "rediss://h", "unix:///x"])
def test_a_redis_is_known_by_its_url(url: str) -> None:
    assert isinstance(open_invalidations(url), RedisInvalidations)


async def test_who_stops_listening_as_a_connection_is_made_is_not_kept(redis: RedisServer) -> None:
    # redis-py loses one cancel in twenty that come at such a moment; then the block never ended.
    invalidations = RedisInvalidations(redis.url)
    for attempt in range(100):
        async with invalidations.listening(lambda _: None):
            await asyncio.sleep(attempt * 0.00005)
