import pytest

from gateway.store import RedisStore, StoreNotOpened, open_store
from gateway.store.redis_address import RedisAddress, parse_redis_url, without_password
from tests.redis_server import redis_server


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://", RedisAddress()),
        ("redis://cache:7000/3", RedisAddress(host="cache", port=7000, database=3)),
        ("redis://:p%40ss@cache", RedisAddress(host="cache", password="p@ss")),
        ("redis://me:pw@cache", RedisAddress(host="cache", user="me", password="pw")),
        ("rediss://cache", RedisAddress(host="cache", tls=True)),
        ("unix:///run/redis.sock", RedisAddress(path="/run/redis.sock")),
        ("unix:///run/redis.sock?db=2", RedisAddress(path="/run/redis.sock", database=2)),
        ("redis://[::1]:7000", RedisAddress(host="::1", port=7000)),
        ("redis://cache?timeout_seconds=0.05", RedisAddress(host="cache", timeout_seconds=0.05)),
    ],
)
def test_a_url_says_where_redis_is(url: str, address: RedisAddress) -> None:
    assert parse_redis_url(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "redis://cache:port",
        "redis://cache/name",
        "redis://cache?timeout=1",
        "redis://cache?timeout_seconds=0",
        "redis://cache?timeout_seconds=soon",
        "memory",
        "postgresql://db",
        "",
    ],
)
def test_a_url_that_cannot_be_used_is_named(url: str) -> None:
    with pytest.raises(StoreNotOpened, match="PENSTOCK_STORE="):
        open_store(url)


def test_a_password_is_never_shown() -> None:
    with pytest.raises(StoreNotOpened) as refused:
        open_store("redis://me:secret-word@cache:port")

    assert "secret-word" not in str(refused.value)
    assert without_password("ftp://me:secret-word@host") == "ftp://***@host"
    assert "secret-word" not in str(parse_redis_url("redis://me:secret-word@cache"))


async def test_a_store_logs_in_with_its_password_and_chooses_its_database() -> None:
    with redis_server() as server:
        server.ask("ACL", "SETUSER", "me", "on", ">word", "~*", "&*", "+@all")
        server.ask("CONFIG", "SET", "requirepass", "other")
        good = open_store(f"unix://me:word@{server.socket}?db=3")
        bad = open_store(f"unix://me:wrong@{server.socket}")

        async with good.running(), bad.running():
            assert isinstance(good, RedisStore)
            assert isinstance(bad, RedisStore)
            assert (good.is_connected, bad.is_connected) == (True, False)
