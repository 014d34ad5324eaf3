"""Looks at a policy directory from time to time and says when its content has changed.

Content and not times, because a mounted ConfigMap is swapped by a link, and an editor
may write a file in several goes: a change counts when two looks have seen the same.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.policy.files import read_files
from gateway.policy.problems import PolicyInvalid


class PolicyWatch:
    """One task that looks, and calls `on_change` once for each new content."""

    def __init__(
        self,
        directory: Path,
        every_seconds: float,
        *,
        on_change: Callable[[], Awaitable[None]],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._directory = directory
        self._every_seconds = every_seconds
        self._on_change = on_change
        self._sleep = sleep

    @asynccontextmanager
    async def running(self, digest: str) -> AsyncGenerator[None, None]:
        """Watch until the block ends, for another content than `digest`; 0 seconds: never."""
        if not self._every_seconds:
            yield
            return
        task = asyncio.create_task(self._watch(digest))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _watch(self, told: str) -> None:
        seen = told
        while True:
            await self._sleep(self._every_seconds)
            found = await asyncio.to_thread(_digest_of, self._directory)
            is_settled, seen = found == seen, found
            if is_settled and found != told:
                told = found
                await self._on_change()


def _digest_of(directory: Path) -> str:
    try:
        return read_files(directory).digest
    except PolicyInvalid as error:
        return f"none: {error}"
