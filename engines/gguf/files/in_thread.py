"""Runs what blocks in a thread, and never leaves it running alone."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


async def in_thread(function: Callable[..., Result], *arguments: object) -> Result:
    """`asyncio.to_thread`, but a cancelled caller waits until the function has returned.

    For what touches files under a lock: the lock must not be given back before."""
    running = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            try:
                await asyncio.wait({running})
            except asyncio.CancelledError:
                continue
        if not running.cancelled():
            running.exception()  # or asyncio complains that nobody looked
        raise
