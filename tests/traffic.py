"""Sends many calls at a steady rate, does things to the engines meanwhile, and counts.

It knows neither gateway nor engine: `ask` makes one call, over a socket or in the process,
in real time or in virtual time (virtual_time.py).

    traffic = await send(ask, num_calls=10_000, calls_per_second=100, events={2000: kill})
    assert traffic.lost == []
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field


class Broke(Exception):
    """What `ask` raises for a call that failed after its first output had been there."""


@dataclass
class Traffic:
    """What became of the calls. `lost` never had a first output."""

    num_answered: int = 0
    num_broken: int = 0
    lost: list[tuple[int, Exception]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)  # of each answered call


async def send(
    ask: Callable[[int], Awaitable[None]],
    *,
    num_calls: int,
    calls_per_second: float,
    events: Mapping[int, Callable[[], Awaitable[None]]],
) -> Traffic:
    """Make the calls `0` to `num_calls - 1`; before call number n, await `events[n]`."""
    traffic = Traffic()
    clock = asyncio.get_running_loop().time
    began = clock()

    async def one(number: int) -> None:
        asked_at = clock()
        try:
            await ask(number)
        except Broke:
            traffic.num_broken += 1
        except Exception as error:  # noqa: BLE001 - whatever it is, the call is lost
            traffic.lost.append((number, error))
        else:
            traffic.num_answered += 1
            traffic.seconds.append(clock() - asked_at)

    async with asyncio.TaskGroup() as tasks:
        for number in range(num_calls):
            if number in events:
                await events[number]()
            await asyncio.sleep(max(0.0, began + number / calls_per_second - clock()))
            tasks.create_task(one(number))
    return traffic
