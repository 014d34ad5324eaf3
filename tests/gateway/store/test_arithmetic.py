from calendar import timegm
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from gateway.store import Bucket, Demand, MemoryStore, RedisStore
from gateway.store.arithmetic import rate_fill, window_of
from gateway.store.redis_address import parse_redis_url
from tests.redis_server import redis_server

MOMENTS = st.integers(0, 4_102_444_800_000)  # 1970 to 2100


@given(MOMENTS)
def test_a_window_is_the_day_or_month_in_utc(now: int) -> None:
    moment = datetime.fromtimestamp(now / 1000, UTC)
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    month = (day.replace(day=1) + timedelta(days=32)).replace(day=1)

    def milliseconds(moment: datetime) -> int:
        return timegm(moment.timetuple()) * 1000

    next_day = milliseconds(day + timedelta(days=1))
    assert window_of("day", now)[1:] == (milliseconds(day), next_day)
    assert window_of("month", now)[1:] == (milliseconds(day.replace(day=1)), milliseconds(month))


@given(
    limit=st.integers(1, 2**31 - 1),
    burst=st.integers(1, 2**31 - 1),
    level=st.integers(0, 2**31 * 60_000),
    cost=st.integers(0, 2**31 - 1),
)
def test_a_call_that_is_told_to_come_back_then_fits_and_not_much_earlier(
    limit: int, burst: int, level: int, cost: int
) -> None:
    bucket = Bucket(kind="rate", key="k", limit=limit, burst=burst)

    fill = rate_fill(bucket, level, cost)

    if fill.retry_ms > 0:
        drained = max(0, level - fill.retry_ms * limit)
        assert rate_fill(bucket, drained, cost).fits
        assert not rate_fill(bucket, max(0, level - (fill.retry_ms - 1) * limit), cost).fits
    assert fill.fits == (fill.retry_ms == 0)


async def test_both_stores_count_the_largest_limits_exactly() -> None:
    """Lua counts in doubles; nothing may come near 2^53."""
    largest = 2**31 - 1
    demands = [
        Demand(
            bucket=Bucket(kind="rate", key="r", limit=largest, burst=largest), fixed=largest - 7
        ),
        Demand(
            bucket=Bucket(kind="window", key="w", limit=10**15, period="month"), fixed=10**9 + 1
        ),
    ]
    with redis_server() as server:
        stores = [
            MemoryStore(clock=lambda: 1_763_700_000_123),
            RedisStore(
                parse_redis_url(server.url + "?timeout_seconds=10"), clock=lambda: 1_763_700_000_123
            ),
        ]
        seen = []
        for store in stores:
            async with store.running():
                first = await store.reserve("c1", demands)
                again = await store.reserve("c2", demands)
                store.settle("c1", demands, [largest, 10**15 - 1])
                seen.append([first, again, list(await store.peek(demands))])

    assert seen[0] == seen[1]


async def test_lua_and_python_have_the_same_calendar() -> None:
    now = [0]
    looks = [
        Demand(bucket=Bucket(kind="window", key=period, limit=9, period=period), fixed=0)
        for period in ("day", "month")
    ]
    firsts = [timegm((year, month, 1, 0, 0, 0)) for year in (2024, 2100) for month in range(1, 13)]
    moments = [second * 1000 + more for second in firsts for more in (-1, 0, 1, 28 * 86_400_000)]
    with redis_server() as server:
        store = RedisStore(
            parse_redis_url(server.url + "?timeout_seconds=10"), clock=lambda: now[0]
        )
        memory = MemoryStore(clock=lambda: now[0])
        async with store.running():
            for now[0] in moments:
                assert list(await store.peek(looks)) == list(await memory.peek(looks))
