"""A time-out that costs nothing where nobody waits."""

import asyncio
from collections.abc import Awaitable, Generator
from types import coroutine
from typing import Any, TypeVar

Answer = TypeVar("Answer")


async def within(seconds: float | None, asked: Awaitable[Answer]) -> Answer:
    """What `asked` returns. Raises `TimeoutError` when it has waited for so long.

    `asyncio.timeout` makes its timer before anything is awaited. Most of what a call asks
    for is there already, and then there is no timer.
    """
    steps = asked.__await__()
    try:
        waits_for = steps.send(None)
    except StopIteration as done:
        return done.value
    async with asyncio.timeout(seconds):
        return await _rest_of(steps, waits_for)


@coroutine
def _rest_of(steps: Generator[Any, Any, Answer], waits_for: Any) -> Generator[Any, Any, Answer]:
    """Go on with what was begun by hand, as `await` would (PEP 380)."""
    while True:
        try:
            given = yield waits_for
        except GeneratorExit:
            steps.close()
            raise
        except BaseException as error:  # noqa: BLE001 - a cancellation is for whoever waits
            take_step, argument = steps.throw, error
        else:
            take_step, argument = steps.send, given
        try:
            waits_for = take_step(argument)
        except StopIteration as done:
            return done.value
