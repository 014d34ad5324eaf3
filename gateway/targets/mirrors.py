"""Sends copies of calls to a target that is being tried out; nobody waits for its answers.

A copy is a task of its own: it cannot delay its call or fail it, its tokens are
nobody's, and what it does is not held against the target. There are at most
`max_concurrent` at once for each mirror; more are dropped, not queued, because a mirror
that cannot keep up would otherwise hold ever more prompts in memory.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from engines.errors import EngineError
from gateway.policy import MirrorPolicy
from gateway.targets.report import MirrorReport

log = structlog.get_logger()


class Mirrors:
    """The copies that run. The event loop owns it; they end when the gateway drains."""

    def __init__(self, draw: Callable[[], float]) -> None:
        self._draw = draw
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: Counter[tuple[str, str]] = Counter()
        self._is_stopped = False
        self._num_sent = 0
        self._num_completed = 0
        self._num_failed = 0
        self._num_dropped = 0

    def send(
        self, mirror: MirrorPolicy, model: str, copy: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        """Run `copy` beside its call, if it is this call's turn and there is room for it."""
        place = (mirror.engine, model)
        if self._is_stopped or self._draw() * 100 >= mirror.percent:
            return
        if self._running[place] >= mirror.max_concurrent:
            self._num_dropped += 1
            return
        self._running[place] += 1
        self._num_sent += 1
        task = asyncio.create_task(self._run(copy, mirror.timeout_seconds, place))
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._ended(done, place))

    def stop(self) -> None:
        """End all copies, and take no more."""
        self._is_stopped = True
        for task in self._tasks:
            task.cancel()

    async def close(self) -> None:
        """Return when the last copy has ended."""
        self.stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def report(self) -> MirrorReport:
        """How many there were."""
        return MirrorReport(
            running=len(self._tasks),
            sent=self._num_sent,
            completed=self._num_completed,
            failed=self._num_failed,
            dropped=self._num_dropped,
        )

    def _ended(self, task: asyncio.Task[None], place: tuple[str, str]) -> None:
        # Also for a task that was cancelled before it began to run.
        self._tasks.discard(task)
        self._running[place] -= 1
        if not self._running[place]:
            del self._running[place]

    async def _run(
        self,
        copy: Callable[[], Coroutine[Any, Any, None]],
        seconds: float,
        place: tuple[str, str],
    ) -> None:
        error = "timeout"
        try:
            async with asyncio.timeout(seconds):
                await copy()
        except EngineError as failure:
            error = failure.code
        except TimeoutError:
            pass
        except Exception as failure:
            log.error("mirror_broke", engine=place[0], model=place[1], exc_info=failure)
            error = "internal"
        else:
            self._num_completed += 1
            return
        self._num_failed += 1
        log.info("mirror_failed", engine=place[0], model=place[1], error=error)
