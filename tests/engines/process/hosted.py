"""Opens engines in child processes, and waits for what becomes of them."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager

import msgspec
import psutil
from msgspec import Struct

from engines.process import EngineSpec, ProcessEngine, Supervision
from engines.protocol import Event, GenerateRequest, Message, Text
from tests.engines.process import children
from tests.engines.process.children import Script

# Restarts that tests do not wait long for.
QUICK = Supervision(first_delay_seconds=0.02, max_delay_seconds=0.1, close_seconds=20.0)


def engine_of(
    factory: str = "scripted", config: Struct | None = None, **changes: object
) -> ProcessEngine:
    """An engine of a factory in children.py; `changes` are to the supervision."""
    spec = EngineSpec.of(f"{children.HERE}:{factory}", config or Script())
    return ProcessEngine("hosted", spec, supervision=msgspec.structs.replace(QUICK, **changes))


@asynccontextmanager
async def hosted(
    factory: str = "scripted", config: Struct | None = None, **changes: object
) -> AsyncGenerator[ProcessEngine, None]:
    engine = engine_of(factory, config, **changes)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


def asking(text: str = "hello", **fields: object) -> GenerateRequest:
    request = GenerateRequest(
        id="r1",
        model="scripted-model",
        messages=[Message(role="user", parts=[Text(text)])],
    )
    return msgspec.structs.replace(request, **fields)


async def events_of(engine: ProcessEngine, request: GenerateRequest | None = None) -> list[Event]:
    async with aclosing(engine.generate(request or asking())) as stream:
        return [event async for event in stream]


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what another process does; there is nothing but asking."""
    async with asyncio.timeout(40):
        while not await holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def until_ready(engine: ProcessEngine) -> None:
    async def is_ready() -> bool:
        return (await engine.health()).ready

    await until(is_ready)


async def until_idle(engine: ProcessEngine) -> None:
    async def is_idle() -> bool:
        return (await engine.health()).running == 0

    await until(is_idle)


def is_gone(pid: int) -> bool:
    """Nothing runs under this number; a zombie that others must reap runs no more."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def pid_of(engine: ProcessEngine) -> int:
    assert engine.pid is not None
    return engine.pid
