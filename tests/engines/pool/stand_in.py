"""Models of nothing, for tests of the pool."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from engines.pool import UNLIMITED, Budget, Limits, Need, Pool, Room
from tests.fakes import FakeClock


@dataclass(eq=False)
class StandIn:
    """What the pool sees of a loaded model."""

    name: str
    room: Room
    has_failed: bool = False
    is_closed: bool = False
    close_error: Exception | None = None

    async def close(self) -> None:
        await asyncio.sleep(0)
        self.is_closed = True
        if self.close_error is not None:
            raise self.close_error


@dataclass
class Loads:
    """Opens stand-ins, and holds or fails a load when the test says so."""

    opened: list[StandIn] = field(default_factory=list)
    holds: dict[str, asyncio.Event] = field(default_factory=dict)
    failures: list[Exception] = field(default_factory=list)
    measured: dict[str, Room] = field(default_factory=dict)  # where it is not what was needed
    needs: list[Need] = field(default_factory=list)

    async def open(self, name: str, need: Need) -> StandIn:
        if name in self.holds:
            await self.holds[name].wait()
        await asyncio.sleep(0)
        if self.failures:
            raise self.failures.pop(0)
        model = StandIn(name, self.measured.get(name, need.room))
        self.opened.append(model)
        self.needs.append(need)
        return model

    @property
    def names(self) -> list[str]:
        return [model.name for model in self.opened]


def pool_of(
    loads: Loads,
    clock: FakeClock | None = None,
    *,
    most: int = 2,
    budget: Budget | None = None,
    **limits: float,
) -> Pool[StandIn]:
    return Pool(
        loads.open,
        limits=Limits(**limits),  # type: ignore[arg-type]
        budget=budget or Budget(Room(UNLIMITED.total.main_bytes, 0, most)),
        clock=clock or FakeClock(),
    )


def budget_of(main: int, *, gpu: int = 0, free: Callable[[], Room] | None = None) -> Budget:
    total = Room(main, gpu, 100)
    return Budget(total, free or (lambda: UNLIMITED.total))


def needing(main: int, *, gpu: int = 0, gpu_layers: int = 0) -> Need:
    return Need(Room(main, gpu, 1), gpu_layers)


async def settled() -> None:
    """Let everything happen that needs no clock."""
    for _ in range(30):
        await asyncio.sleep(0)
