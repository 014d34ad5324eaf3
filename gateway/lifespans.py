"""The plugins' running time: each one's `lifespan` hook in a task of its own.

A reload ends some and begins others, from whichever task asked for it; but what a
context opened (a task group, a time-out) must be closed by the task that opened it.
"""

import asyncio
from collections.abc import Mapping
from contextvars import Context
from typing import TYPE_CHECKING

import structlog

from gateway.hooks import Hooks

if TYPE_CHECKING:
    from gateway.gateway import Gateway

log = structlog.get_logger()


class Lifespan:
    """One plugin's lifespan, from `begin` to `end`."""

    def __init__(self, name: str, plugin: object, gateway: "Gateway") -> None:
        self.name = name
        self._context = Hooks([(name, plugin)]).lifespan(gateway)
        self._begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ending = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Enter it. Raises what the plugin raises, and then it is over."""
        self._task = asyncio.create_task(
            self._run(), name=f"lifespan of {self.name}", context=Context()
        )
        await self._begun

    async def end(self) -> None:
        """Leave it; a failure is logged and keeps nobody else."""
        self._ending.set()
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        try:
            async with self._context:
                self._begun.set_result(None)
                await self._ending.wait()
        except Exception as error:
            # Raised where `begin` waits; later there is nobody to raise it to.
            if not self._begun.done():
                self._begun.set_exception(error)
                return
            log.error("plugin_end_failed", plugin=self.name, exc_info=error)


async def begin_lifespans(plugins: Mapping[str, object], gateway: "Gateway") -> dict[str, Lifespan]:
    """Begin one after the other. Raises what a plugin raises, with none left running."""
    begun: dict[str, Lifespan] = {}
    try:
        for name, plugin in plugins.items():
            lifespan = Lifespan(name, plugin, gateway)
            await lifespan.begin()
            begun[name] = lifespan
    except BaseException:
        await end_lifespans(begun)
        raise
    return begun


async def end_lifespans(lifespans: Mapping[str, Lifespan]) -> None:
    """End them in reverse."""
    for name in reversed(list(lifespans)):
        await lifespans[name].end()
