"""How late the event loop is: what every call feels when something blocks it."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from engines.metrics import Buckets, Histogram

EVERY_SECONDS = 0.25
LAG_BOUNDS = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0),
)


class LoopLag:
    """Sleeps a little, again and again, and notes how much longer it slept than it asked."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._histogram = Histogram(LAG_BOUNDS)

    async def watch(self) -> None:
        """Go on until cancelled."""
        while True:
            due = self._clock() + EVERY_SECONDS
            await self._sleep(EVERY_SECONDS)
            self._histogram.observe(max(0.0, self._clock() - due))

    def snapshot(self) -> Buckets:
        """How late it was so far."""
        return self._histogram.snapshot()
