"""Asks every engine from time to time how it is, so that calls need not find out."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress

import structlog

from engines.errors import EngineError
from engines.protocol import Engine, Health
from gateway.targets.targets import Targets

log = structlog.get_logger()


class HealthWatch:
    """One task that asks all engines, side by side, and tells `Targets` what they said.

    An engine that does not answer within a period is not ready. `engines` is asked anew
    each time: a reload may have changed them.
    """

    def __init__(
        self, targets: Targets, engines: Callable[[], Mapping[str, Engine]], every_seconds: float
    ) -> None:
        self._targets = targets
        self._engines = engines
        self._every_seconds = every_seconds

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """Watch until the block ends."""
        task = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def look(self) -> None:
        """Ask every engine once."""
        engines = self._engines()
        found = await asyncio.gather(*(self._ask(engine) for engine in engines.values()))
        for name, health in zip(engines, found, strict=True):
            self._targets.note_health(name, health)

    async def _watch(self) -> None:
        while True:
            await self.look()
            await self._targets.sleep(self._every_seconds)

    async def _ask(self, engine: Engine) -> Health:
        try:
            async with asyncio.timeout(self._every_seconds):
                return await engine.health()
        except TimeoutError:
            return Health(ready=False, detail="does not say how it is")
        except EngineError as error:
            return Health(ready=False, detail=error.message)
        except Exception as error:
            log.error("health_check_broke", engine=engine.name, exc_info=error)
            return Health(ready=False, detail="its health check failed")
