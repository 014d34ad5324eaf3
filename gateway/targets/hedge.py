"""Asks a second time when the first answer is late; whichever comes first is taken.

As in Dean and Barroso, The Tail at Scale (2013): a few more requests take away most
of a long tail. It costs work that is thrown away, so it is off unless the policy says.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from engines.errors import EngineError

Answer = TypeVar("Answer")
Asking = Coroutine[Any, Any, Answer]


async def first_of(
    first: "Asking[Answer]",
    second: "Callable[[], Asking[Answer] | None]",
    *,
    after_seconds: float,
    discard: Callable[[Answer], Awaitable[None]],
) -> Answer:
    """The answer of `first`, or of `second()` if that is begun after a while and is faster.

    Raises the last `EngineError` when nobody answers. The slower one is cancelled and has
    ended when this returns; an answer that it had already is given to `discard`.
    """
    tasks = [asyncio.ensure_future(first)]
    winner: asyncio.Future[Answer] | None = None
    try:
        await asyncio.wait(tasks, timeout=after_seconds)
        if not tasks[0].done() and (asking := second()) is not None:
            tasks.append(asyncio.ensure_future(asking))
        winner = await _first_success(tasks)
        return winner.result()
    finally:
        losers = [task for task in tasks if task is not winner]
        for task in losers:
            task.cancel()
        for result in await asyncio.gather(*losers, return_exceptions=True):
            if not isinstance(result, BaseException):
                await discard(result)


async def _first_success(tasks: "Sequence[asyncio.Future[Answer]]") -> "asyncio.Future[Answer]":
    running = set(tasks)
    while True:
        done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task in done and task.exception() is None:
                return task
        for task in done:
            error = task.exception()
            if error is not None and (not running or not isinstance(error, EngineError)):
                raise error
