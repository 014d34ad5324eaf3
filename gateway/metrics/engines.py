"""Asks every engine how it is, and those that count what they have counted."""

import asyncio
from collections.abc import Mapping, Sequence

import structlog
from msgspec import Struct

from engines.abilities import Measured
from engines.errors import EngineError
from engines.metrics import ModelMetrics
from engines.protocol import Engine, Health

log = structlog.get_logger()

# A scrape that waits longer is given up by Prometheus, with all that the others had to tell.
PATIENCE_SECONDS = 3.0


class EngineState(Struct, frozen=True, kw_only=True):
    """One engine; `models` is empty where it counts nothing, or could not say."""

    name: str
    kind: str
    health: Health
    models: Sequence[ModelMetrics] = ()


async def ask_engines(
    engines: Mapping[str, Engine],
    kinds: Mapping[str, str],
    *,
    patience_seconds: float = PATIENCE_SECONDS,
) -> list[EngineState]:
    """All engines, asked side by side; one that does not answer in time is not ready."""

    async def ask(name: str, engine: Engine) -> EngineState:
        health, models = Health(ready=False, detail="it did not say how it is"), ()
        try:
            async with asyncio.timeout(patience_seconds):
                health = await engine.health()
                models = await engine.metrics() if isinstance(engine, Measured) else ()
        except (EngineError, TimeoutError):
            pass  # what is known by now has to do
        # One engine with a fault must not keep all others from being seen.
        except Exception:
            log.exception("engine_metrics_failed", engine=name)
        return EngineState(name=name, kind=kinds.get(name, "-"), health=health, models=models)

    return list(await asyncio.gather(*(ask(name, engine) for name, engine in engines.items())))
