import asyncio

import pytest

from gateway.metrics import LoopLag
from tests.fakes import FakeClock


async def test_what_a_sleep_takes_longer_than_asked_is_the_lag() -> None:
    clock = FakeClock()
    late_by = iter((0.0, 0.02, 3.0))

    async def sleep(seconds: float) -> None:
        late = next(late_by, None)
        if late is None:
            raise asyncio.CancelledError
        clock.advance(seconds + late)

    lag = LoopLag(clock=clock, sleep=sleep)

    with pytest.raises(asyncio.CancelledError):
        await lag.watch()

    told = lag.snapshot()
    assert told.count == 3
    assert told.sum == pytest.approx(3.02)
    assert dict(zip(told.bounds, told.counts, strict=False))[0.025] == 1
