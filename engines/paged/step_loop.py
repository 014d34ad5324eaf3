"""The one thread that steps an engine: it takes in, computes and hands out.

Everyone else sends it messages. Each turn it takes in what has arrived, runs one
turn of generation.py and wakes the event loop once with all that came of it.
With nothing to do it sleeps on its inbox. There is no asyncio in it.

`submit`, `abort`, `call` and `stop` may be called from the event loop and never
wait; everything with an underscore runs on the thread.
"""

import gc
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any, NamedTuple

import structlog

from engines.errors import EngineError, Unavailable
from engines.outbox import Outbox
from engines.paged.failures import without_frames
from engines.paged.generation import Generation, Runner
from engines.paged.scheduler import Scheduler
from engines.paged.sequence import Sequence, StepPlan

log = structlog.get_logger()

SWITCH_INTERVAL_SECONDS = 5e-5
# A runner that fails so often, and completes nothing between, is given up.
MAX_FAILURES_IN_A_ROW = 3


class _Abort(NamedTuple):
    sequence: Sequence


class _Call(NamedTuple):
    function: Callable[[], Any]
    future: "Future[Any]"
    when_idle: bool


class _Stop(NamedTuple):
    pass


_Message = Sequence | _Abort | _Call | _Stop


def tune_interpreter() -> None:
    """Settings of the whole process that keep a step thread on time.

    With the default switch interval, a thread that comes back from the device waits 5 ms
    for the interpreter while another computes; and the garbage collector need not look
    through what was loaded for good.
    """
    sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL_SECONDS))
    gc.collect()
    gc.freeze()


class StepLoop:
    """An engine's thread. A stopped or failed one is not started again.

    `on_failure` is called on the thread with what the runner raised, after every
    sequence was ended, and says whether the runner may be used again: with all its
    places empty and nothing in its blocks. `on_step` sees each step that was read and
    the seconds since the last, for metrics.
    """

    COLLECT_AFTER_SECONDS = 1.0  # of idleness

    def __init__(
        self,
        runner: Runner,
        scheduler: Scheduler,
        outbox: Outbox[Any],
        *,
        name: str,
        on_failure: Callable[[BaseException], bool] = lambda _: False,
        on_step: Callable[[StepPlan, float], None] = lambda _plan, _seconds: None,
    ) -> None:
        self._name = name
        self._scheduler = scheduler
        self._outbox = outbox
        self._on_failure = on_failure
        self._on_step = on_step
        self._generation = Generation(runner, scheduler, outbox)
        self._inbox: queue.SimpleQueue[_Message] = queue.SimpleQueue()
        self._when_idle: deque[_Call] = deque()
        self._thread = threading.Thread(target=self._run, name=f"paged-{name}", daemon=True)
        self._num_failures = 0  # since a step was last read
        # Written by the thread and read by others; late by a step at worst.
        self.is_idle = True
        self.last_step_at = scheduler.clock()  # when it last did something
        self.has_ended = False
        self.num_running = 0
        self.num_waiting = 0
        self.cache_used = 0.0

    @property
    def seconds_stalled(self) -> float:
        """Seconds since the last step while there is something to do; for a watchdog."""
        return (
            0.0 if self.is_idle or self.has_ended else self._scheduler.clock() - self.last_step_at
        )

    @property
    def thread_id(self) -> int | None:
        """The thread's id, by which a watchdog finds its stack."""
        return self._thread.ident

    def start(self) -> None:
        """Begin to step; all that is kept for good should be loaded by now."""
        tune_interpreter()
        self._thread.start()

    def submit(self, sequence: Sequence) -> None:
        """Take in a sequence; from now on it belongs to the thread."""
        self._inbox.put(sequence)
        if self.has_ended:  # the thread may have emptied its inbox before this came
            sequence.payload.mailbox.put(self._gone())

    def abort(self, sequence: Sequence) -> None:
        """Forget a sequence before the next step; idempotent, and fine if it is over."""
        self._inbox.put(_Abort(sequence))

    def call(self, function: Callable[[], Any], *, when_idle: bool = False) -> "Future[Any]":
        """Run a function on the thread between two steps, or once nothing runs or waits."""
        call = _Call(function, Future(), when_idle)
        self._inbox.put(call)
        if self.has_ended:
            _refuse(call, self._gone())
        return call.future

    def stop(self) -> None:
        """End every stream with `Unavailable`, then the thread."""
        self._inbox.put(_Stop())

    def join(self) -> None:
        """Wait until the thread has ended; blocks."""
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        reason: EngineError = self._gone()
        try:
            self._generation.start()
            while self._take_in():
                self._turn()
        except EngineError as error:
            reason = without_frames(error)
        # The thread would die silently, and every stream would wait for ever.
        except BaseException as error:
            log.exception("step_loop_failed", model=self._name)
            reason = self._failure(error)
            self._on_failure(error)
            without_frames(error)
        finally:
            self.has_ended = True
            self._end_all(reason)
            self._outbox.flush()
            # With the runner, and the device's memory: now, and not when somebody collects.
            self._generation.close()
            del self._generation

    def _take_in(self) -> bool:
        """Take in all messages, waiting for one if there is nothing to do; False to stop."""
        while True:
            has_work = self._generation.has_work
            if not has_work and self._when_idle:
                self._answer(self._when_idle.popleft())
                continue
            try:
                message = self._inbox.get_nowait() if has_work else self._wait()
            except queue.Empty:
                return True
            if isinstance(message, _Stop):
                return False
            if isinstance(message, Sequence):
                self._generation.add(message)
            elif isinstance(message, _Abort):
                self._drop(message.sequence)
            elif message.when_idle:
                self._when_idle.append(message)
            else:
                self._answer(message)

    def _wait(self) -> _Message:
        """Sleep until a message comes, and tidy up once if that takes a while."""
        self._note_health()
        self._outbox.flush()
        self.is_idle = True
        try:
            message = self._inbox.get(timeout=self.COLLECT_AFTER_SECONDS)
        except queue.Empty:
            gc.collect()  # now it delays nobody
            message = self._inbox.get()
        self.last_step_at = self._scheduler.clock()
        self.is_idle = False
        return message

    def _turn(self) -> None:
        try:
            read = self._generation.turn()
        # Whatever the runner raises ends what runs and waits, and is not tried for ever.
        except Exception as error:
            log.exception("step_failed", model=self._name)
            self._recover(error)
            read = None
        now = self._scheduler.clock()
        if read is not None:
            self._num_failures = 0
            self._on_step(read, now - self.last_step_at)
        self.last_step_at = now
        self._note_health()
        if not self._outbox.flush():
            self._inbox.put(_Stop())  # the event loop is closed: nobody is there to answer

    def _drop(self, sequence: Sequence) -> None:
        try:
            self._generation.drop(sequence)
        # As in a turn: the runner was told of the end, and failed.
        except Exception as error:
            log.exception("step_failed", model=self._name)
            self._recover(error)

    def _recover(self, error: Exception) -> None:
        """End every sequence and ask the engine whether to go on; raises if not."""
        reason = self._failure(error)
        self._generation.fail_all(reason)
        self._num_failures += 1
        may_go_on = self._on_failure(error)
        without_frames(error)
        if not may_go_on or self._num_failures >= MAX_FAILURES_IN_A_ROW:
            raise reason  # and nobody hears of it before `has_ended` tells who asks again
        self._outbox.flush()

    def _answer(self, call: _Call) -> None:
        if not call.future.set_running_or_notify_cancel():
            return
        try:
            call.future.set_result(call.function())
        # The caller gets it; the thread goes on.
        except BaseException as error:  # noqa: BLE001
            call.future.set_exception(error)

    def _note_health(self) -> None:
        self.num_running = self._scheduler.num_running
        self.num_waiting = self._scheduler.num_waiting
        self.cache_used = self._scheduler.pool.used

    def _end_all(self, reason: EngineError) -> None:
        self._generation.fail_all(reason)
        for call in self._when_idle:
            _refuse(call, reason)
        while True:
            try:
                message = self._inbox.get_nowait()
            except queue.Empty:
                break
            if isinstance(message, Sequence):
                self._outbox.post(message.payload.mailbox, reason)
            elif isinstance(message, _Call):
                _refuse(message, reason)
        self._note_health()

    def _failure(self, error: BaseException) -> EngineError:
        if isinstance(error, EngineError):
            return error
        return Unavailable(f"model {self._name!r} failed: {error}")

    def _gone(self) -> Unavailable:
        return Unavailable(f"model {self._name!r} was unloaded")


def _refuse(call: _Call, reason: EngineError) -> None:
    # Whoever called and the thread that ended may both come here, and the caller may have left.
    with suppress(InvalidStateError):
        call.future.set_exception(reason)
