"""Keeps one child running: notices that it ended or hangs, and starts another.

A child that ends is replaced after a delay that grows with every failure and
never ends, so a crash loop costs little and heals by itself. A child hangs when
calls wait and it gives no sign of life for `hang_seconds`, or when its engine
says for as long that it is not ready; it is killed then. So is one that gives up:
whose engine says, after a call that failed, that it needs a new process.
"""

import asyncio
import contextlib
import random
import time
from typing import NamedTuple

import structlog
from msgspec import Struct

from engines.errors import EngineError, Unavailable
from engines.process.child_process import ChildProcess
from engines.process.spec import EngineSpec
from engines.process.wire import Health as AskHealth
from engines.protocol import Health

log = structlog.get_logger()

_BEATS = 5  # signs of life that may fail to come, in `hang_seconds`


class Supervision(Struct, frozen=True, kw_only=True):
    """How patient a supervisor is."""

    start_seconds: float = 600.0  # a large model from a slow disk
    close_seconds: float = 10.0
    hang_seconds: float = 60.0
    first_delay_seconds: float = 0.25
    max_delay_seconds: float = 30.0
    stable_seconds: float = 60.0  # after so long a life, a failure counts as the first


def delay_before(num_failures: int, supervision: Supervision) -> float:
    """Seconds to wait after so many failures in a row, jittered down to the half."""
    doubled = supervision.first_delay_seconds * 2.0 ** min(num_failures - 1, 32)
    return min(doubled, supervision.max_delay_seconds) * random.uniform(0.5, 1.0)


class _Down(NamedTuple):
    """What has become of a child; `why` is empty where only its end can tell."""

    why: str = ""
    hangs: bool = False


class Supervisor:
    """Owns the child of one engine; lives on the event loop."""

    def __init__(self, name: str, spec: EngineSpec, supervision: Supervision) -> None:
        self._name = name
        self._spec = spec
        self._supervision = supervision
        self._current: ChildProcess | None = None  # starting, ready or ending
        self._is_ready = False
        self._is_closed = False
        self._num_failures = 0
        self._why_not = "it has not been started"
        self._retry_at = 0.0  # time.monotonic
        self._start_seconds = 0.0  # what the last start took
        self._supervising: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the first child. Raises `EngineError`; then there is none, and none will be."""
        self._closing, self._is_closed = None, False
        child = await self._new_child()
        self._supervising = asyncio.create_task(self._supervise(child))

    async def close(self) -> None:
        """End the child and every call; idempotent."""
        if self._closing is None:
            self._is_closed = True
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    @property
    def child(self) -> ChildProcess | None:
        """The child, if it is ready."""
        return self._current if self._is_ready else None

    @property
    def retry_after(self) -> float:
        """Seconds until there may be a child again, as far as one can tell."""
        return max(0.0, self._retry_at - time.monotonic()) + max(1.0, self._start_seconds)

    @property
    def why_not(self) -> str:
        """Why there is no child that is ready; for operators, not for callers."""
        if self._is_closed:
            return "closed"
        if not self._num_failures:
            return self._why_not
        seconds = self._retry_at - time.monotonic()
        again = f"next start in {seconds:.1f} seconds" if seconds > 0 else "it is being started"
        times = f", failure {self._num_failures} in a row" if self._num_failures > 1 else ""
        return f"its process {self._why_not}{times}; {again}"

    def running(self) -> ChildProcess:
        """The child that takes calls. Raises `Unavailable`."""
        if self._is_closed:
            raise Unavailable(f"engine {self._name!r} is closed")
        if self._current is None or not self._is_ready:
            raise Unavailable(
                "the engine's process is being restarted; try again", retry_after=self.retry_after
            )
        return self._current

    async def _new_child(self) -> ChildProcess:
        child = self._current = ChildProcess(self._name)
        await child.start(self._spec, within_seconds=self._supervision.start_seconds)
        self._is_ready = True
        self._start_seconds = child.start_seconds
        return child

    async def _supervise(self, child: ChildProcess) -> None:
        try:
            while True:
                down = await self._until_down(child)
                delay = self._is_down(child, down.why or "has ended")
                ended = await child.end(dumps_stacks=down.hangs)
                self._why_not = down.why or ended
                log.error("engine_process_failed", engine=self._name, reason=self._why_not,
                          failures=self._num_failures, retry_seconds=round(delay, 2))  # fmt: skip
                child = await self._restarted(delay)
        # Nobody awaits this task while the gateway runs: the engine would stay down in silence.
        except Exception:
            self._is_ready = False
            self._why_not = "is not watched any more, by a fault of Penstock's own"
            log.exception("engine_supervision_failed", engine=self._name)

    def _is_down(self, child: ChildProcess, why: str) -> float:
        """Turn calls away from now on; returns the seconds until the next start."""
        self._is_ready = False
        self._why_not = why
        if time.monotonic() - child.ready_at >= self._supervision.stable_seconds:
            self._num_failures = 0
        delay = self._failed()
        child.fail_calls(
            "the engine's process ended while it was working on this; it is being restarted",
            retry_after=self.retry_after,
        )
        return delay

    def _failed(self) -> float:
        self._num_failures += 1
        delay = delay_before(self._num_failures, self._supervision)
        self._retry_at = time.monotonic() + delay
        return delay

    async def _restarted(self, delay: float) -> ChildProcess:
        while True:
            await asyncio.sleep(delay)
            try:
                child = await self._new_child()
            except EngineError as error:
                delay = self._failed()
                self._why_not = f"did not start ({error.message})"
                log.error("engine_process_failed", engine=self._name, reason=self._why_not,
                          failures=self._num_failures, retry_seconds=round(delay, 2))  # fmt: skip
                continue
            log.info("engine_restarted", engine=self._name, pid=child.pid,
                     seconds=round(child.start_seconds, 2))  # fmt: skip
            return child

    async def _until_down(self, child: ChildProcess) -> _Down:
        """Return when the child has ended, has given up or hangs."""
        beats = _Beats(child, self._supervision.hang_seconds)
        lost = asyncio.ensure_future(child.lost.wait())
        given_up = asyncio.ensure_future(child.given_up.wait())
        try:
            while True:
                # Turns are counted, and not seconds: a gateway that was stopped for an hour has
                # waited for nobody in that time.
                await asyncio.wait(
                    {lost, given_up},
                    timeout=self._supervision.hang_seconds / _BEATS,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if given_up.done():
                    return _Down(f"gave up ({child.why_given_up})")
                if lost.done():
                    return _Down()
                if (reason := beats.missed()) is not None:
                    return _Down(reason, hangs=True)
        finally:
            lost.cancel()
            given_up.cancel()
            beats.stop()

    async def _close(self) -> None:
        if self._supervising is not None:
            self._supervising.cancel()
            await asyncio.gather(self._supervising, return_exceptions=True)
        child = self._current
        if child is None:
            return
        child.fail_calls(f"engine {self._name!r} was closed")
        if self._is_ready:
            self._is_ready = False
            await child.close(within_seconds=self._supervision.close_seconds)
        else:
            await child.end()


class _Beats:
    """Asks a child now and then how it is, while it has something to do."""

    def __init__(self, child: ChildProcess, hang_seconds: float) -> None:
        self._child = child
        self._hang_seconds = hang_seconds
        self._num_heard = child.num_heard
        self._num_silent = 0
        self._num_not_ready = 0
        self._asked: asyncio.Task[Health] | None = None

    def missed(self) -> str | None:
        """Take stock, once in a `_BEATS`th of `hang_seconds`; says so if the child hangs."""
        if self._child.num_calls == 0:
            self._num_silent = self._num_not_ready = 0
            return None
        detail = self._note_answer()
        heard, self._num_heard = self._num_heard, self._child.num_heard
        self._num_silent = 0 if self._num_heard != heard else self._num_silent + 1
        if self._num_silent > _BEATS:
            return f"gave no sign of life for {self._hang_seconds:g} seconds"
        if self._num_not_ready >= _BEATS:
            return f"was not ready for {self._hang_seconds:g} seconds ({detail})"
        if self._asked is None:
            self._asked = asyncio.create_task(self._child.ask(AskHealth(), Health))
        return None

    def _note_answer(self) -> str:
        if self._asked is None or not self._asked.done():
            return ""
        asked, self._asked = self._asked, None
        if asked.cancelled() or asked.exception() is not None:
            return ""  # an engine that cannot say how it is may work all the same
        health = asked.result()
        self._num_not_ready = 0 if health.ready else self._num_not_ready + 1
        return health.detail

    def stop(self) -> None:
        """Forget what was asked."""
        if self._asked is not None and not self._asked.cancel() and not self._asked.cancelled():
            self._asked.exception()  # or asyncio complains that nobody looked


async def asked_in_time(child: ChildProcess, seconds: float) -> Health | None:
    """How the child's engine is; None if it did not say in time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            return await child.ask(AskHealth(), Health)
    return None
