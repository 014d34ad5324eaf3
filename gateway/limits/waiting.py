"""Lines of calls that wait for room instead of being refused: first come, first served."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class WaitingLines:
    """One line for each limit. Owned by the event loop; a cancelled call leaves its line."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}
        self.num_waiting = 0

    def is_waited_for(self, key: str) -> bool:
        """Does somebody wait for this limit already?"""
        return key in self._lines

    @asynccontextmanager
    async def turn(self, key: str, *, until: float, max_waiting: int) -> AsyncGenerator[None, None]:
        """Stand in line; inside, it is this call's turn to try.

        Raises `TimeoutError` if its turn has not come by `until` (the loop's time), or
        if too many wait already.
        """
        if self.num_waiting >= max_waiting:
            raise TimeoutError
        line = self._lines.setdefault(key, _Line())
        line.length += 1
        self.num_waiting += 1
        try:
            async with asyncio.timeout_at(until):
                await line.lock.acquire()
            try:
                yield
            finally:
                line.lock.release()
        finally:
            self.num_waiting -= 1
            line.length -= 1
            if not line.length:
                del self._lines[key]


class _Line:
    def __init__(self) -> None:
        self.lock = asyncio.Lock()  # wakes those who wait in the order in which they came
        self.length = 0
