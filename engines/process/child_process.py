"""One child as its parent sees it: started, asked, and ended for good.

A child is started in a session of its own, so that a terminal's Ctrl-C does not
reach it and that whatever it starts can be ended with it. They talk over a
socket pair that the child inherits: no file, no name, nobody else can connect.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable
from pathlib import Path
from typing import TypeVar, cast

import msgspec
import structlog

from engines.errors import EngineOverloaded, RequestRefused, Unavailable
from engines.outbox import Mailbox
from engines.process.library_questions import Job
from engines.process.link import Link
from engines.process.spec import EngineSpec
from engines.process.wire import (
    UNWRITABLE,
    WINDOW,
    Answer,
    Ask,
    Batch,
    Build,
    Cancel,
    Close,
    Fault,
    FromChild,
    Generate,
    Item,
    More,
    NotReady,
    Perform,
    Question,
    Ready,
    error_of,
)
from engines.process.words import Words
from engines.protocol import Event, Finished, GenerateRequest, Progress, TextDelta

log = structlog.get_logger()

# A child that reads nothing may have so much waiting for it before new calls are turned away.
MAX_UNSENT_BYTES = 256 * 1024 * 1024
_DUMP_SECONDS = 2.0  # to write where its threads were
_REAP_SECONDS = 10.0  # a process inside a driver may be slow to die
_WORDS_SECONDS = 1.0
# The gateway's own settings, with the pepper and the ledger's password among them.
_PRIVATE = "PENSTOCK_"

Result = TypeVar("Result")


class ChildProcess:
    """A process that runs an engine; lives on the event loop. Used for one life only."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._link = Link(FromChild, self._on_frame)
        self._words = Words(name)
        self._calls: dict[int, Mailbox[Item]] = {}
        self._last_call = 0
        self._takes_calls = True
        self._process: subprocess.Popen[bytes] | None = None
        self._ready: asyncio.Future[None] | None = None
        self._ending: asyncio.Task[str] | None = None
        self.given_up = asyncio.Event()  # set when it says that it can work no more
        self.why_given_up = ""
        self.ready_at = 0.0  # time.monotonic
        self.start_seconds = 0.0

    @property
    def pid(self) -> int:
        """The child's process id; its process group has the same."""
        assert self._process is not None
        return self._process.pid

    @property
    def lost(self) -> asyncio.Event:
        """Set when nothing can come from this child any more."""
        return self._link.lost

    @property
    def num_calls(self) -> int:
        """Calls that have not ended."""
        return len(self._calls)

    @property
    def num_heard(self) -> int:
        """Grows with every sign of life."""
        return self._link.num_received

    async def start(self, spec: EngineSpec, *, within_seconds: float) -> None:
        """Return when the engine is ready. Raises `EngineError` with nothing left running."""
        began = time.monotonic()
        self._ready = asyncio.get_running_loop().create_future()
        try:
            await self._spawn()
            level = logging.getLogger().getEffectiveLevel()
            self._link.send(Build(self._name, spec, level))
            async with asyncio.timeout(within_seconds):
                await self._ready_or_lost(self._ready)
        except TimeoutError:
            await self.end(dumps_stacks=True)
            raise Unavailable(
                f"the engine's process was not ready within {within_seconds:g} seconds"
            ) from None
        except OSError as error:
            await self.end()
            raise Unavailable(f"the engine's process could not be started: {error}") from None
        except BaseException:
            await self.end()
            raise
        self.ready_at = time.monotonic()
        self.start_seconds = self.ready_at - began

    async def _spawn(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                # Here and not in another thread: the child dies with the thread that starts it.
                self._process = _popen(theirs.fileno())
                # At once, since whoever cancels this start would leave the pipe open.
                assert self._process.stdout is not None
                await self._words.read(self._process.stdout)
                await self._link.connect(ours)
            except BaseException:
                ours.close()
                raise

    async def _ready_or_lost(self, ready: asyncio.Future[None]) -> None:
        lost = asyncio.ensure_future(self._link.lost.wait())
        try:
            await asyncio.wait({ready, lost}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            lost.cancel()
            self._ready = None  # what arrives later changes nothing
        if ready.done():
            return ready.result()
        reason = await self.end()
        # Nothing was asked of it yet, so there is no prompt in what it said.
        words = f"; its last words: {self._words.last}" if self._words.last else ""
        raise Unavailable(f"the engine's process {reason} before it was ready{words}")

    def _on_frame(self, frame: FromChild) -> None:
        if isinstance(frame, Batch):
            for call, item in frame.items:
                self._deliver(call, item)
        elif self._ready is None or self._ready.done():
            if isinstance(frame, NotReady):
                self.why_given_up = frame.fault.message
                self.given_up.set()
        elif isinstance(frame, Ready):
            self._ready.set_result(None)
        else:
            self._ready.set_exception(error_of(frame.fault))

    def _deliver(self, call: int, item: Item) -> None:
        mailbox = self._calls.get(call)
        if mailbox is None:
            return  # given up since
        if isinstance(item, Fault):
            del self._calls[call]
            mailbox.put(error_of(item))
            return
        if isinstance(item, Finished | Answer):
            del self._calls[call]
        mailbox.put(item)

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Event, None]:
        """Run one request; see `Engine.generate`."""
        call, mailbox = self._new_call()
        num_read = 0
        try:
            self._ask(Generate(call, request, _log_context()))
            while True:
                item = await mailbox.get()
                event = TextDelta(item) if isinstance(item, str) else cast(Event, item)
                yield event
                if isinstance(event, Finished):
                    return
                num_read += 1
                if num_read == WINDOW // 2:
                    self._link.send(More(call, num_read))
                    num_read = 0
        finally:
            # No await here: the reader may be gone, and this may run in a cancelled scope.
            self._end_call(call)

    async def perform(self, job: Job) -> AsyncGenerator[Progress, None]:
        """The steps of a job. Raises any `EngineError`."""
        call, mailbox = self._new_call()
        try:
            self._ask(Perform(call, job, _log_context()))
            while isinstance(step := await mailbox.get(), Progress):
                yield step
                self._link.send(More(call, 1))
        finally:
            # No await here, as in `generate`.
            self._end_call(call)

    async def ask(self, question: Question, kind: type[Result]) -> Result:
        """The child's answer, read as a `kind`. Raises any `EngineError`."""
        call, mailbox = self._new_call()
        try:
            self._ask(Ask(call, question, _log_context()))
            answer = cast(Answer, await mailbox.get())
        finally:
            self._end_call(call)
        return msgspec.msgpack.decode(answer.value, type=kind)

    def fail_calls(self, message: str, *, retry_after: float | None = None) -> None:
        """End every call with `Unavailable`; readers first get what came before. Take no more."""
        self._takes_calls = False
        calls, self._calls = self._calls, {}
        for mailbox in calls.values():
            mailbox.put(Unavailable(message, retry_after=retry_after))

    def _new_call(self) -> tuple[int, Mailbox[Item]]:
        if not self._takes_calls:
            raise Unavailable("the engine's process has ended; try again", retry_after=1.0)
        if self._link.num_unsent_bytes > MAX_UNSENT_BYTES:
            raise EngineOverloaded("the engine's process takes no more requests at the moment")
        self._last_call += 1
        mailbox = self._calls[self._last_call] = Mailbox[Item]()
        return self._last_call, mailbox

    def _ask(self, frame: Ask | Generate | Perform) -> None:
        try:
            self._link.send(frame)
        except UNWRITABLE as error:
            raise RequestRefused(f"the request cannot be given to the engine: {error}") from None

    def _end_call(self, call: int) -> None:
        # What has ended by itself is not in the table any more.
        if self._calls.pop(call, None) is not None:
            self._link.send(Cancel(call))

    async def close(self, *, within_seconds: float) -> None:
        """Let the engine close, and end the child in any case."""
        self._link.send(Close())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_seconds):
                await self._link.lost.wait()
        await self.end()

    def end(self, *, dumps_stacks: bool = False) -> Awaitable[str]:
        """Kill the child with all that it started, and say how it ended: "ended by SIGKILL".

        Idempotent, and goes on when whoever waits is cancelled. `dumps_stacks` has
        it write to the log where its threads are, before.
        """
        if self._ending is None:
            self._ending = asyncio.create_task(self._end(dumps_stacks=dumps_stacks))
        return asyncio.shield(self._ending)

    async def _end(self, *, dumps_stacks: bool) -> str:
        if self._process is None:
            self._link.close()
            return "was not started"
        if dumps_stacks:
            with contextlib.suppress(ProcessLookupError, TimeoutError):
                os.kill(self.pid, signal.SIGABRT)  # faulthandler is on in every child
                async with asyncio.timeout(_DUMP_SECONDS):
                    await self._link.lost.wait()
        # Before it is waited for: until then nothing else can have its number.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._link.close()
        returncode = await self._reaped(self._process)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_WORDS_SECONDS):
                await self._words.ended.wait()
        self._words.close()
        await self._words.ended.wait()
        await self._link.lost.wait()
        return _how(returncode)

    async def _reaped(self, process: subprocess.Popen[bytes]) -> int | None:
        # Not in a thread: one that waits for a process inside a driver would keep us from exiting.
        pause, until = 0.001, time.monotonic() + _REAP_SECONDS
        while (returncode := process.poll()) is None and time.monotonic() < until:
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.05)
        if returncode is None:
            log.error("engine_process_not_reaped", engine=self._name, pid=process.pid)
        return returncode


def _log_context() -> dict[str, str]:
    context = structlog.contextvars.get_contextvars()
    return {name: value for name, value in context.items() if isinstance(value, str)}


def _popen(end: int) -> subprocess.Popen[bytes]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(_PRIVATE)
    }
    # What the parent could import, the child can; and nothing else, whatever folder it is in.
    environment["PYTHONPATH"] = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    return subprocess.Popen(
        [sys.executable, "-u", "-P", "-m", "engines.process", str(end), str(os.getpid())],
        env=environment,
        pass_fds=(end,),
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        bufsize=0,
    )


def _how(returncode: int | None) -> str:
    if returncode is None:
        return "does not end, even by SIGKILL"
    if returncode < 0:
        return f"was ended by {signal.Signals(-returncode).name}"
    return f"ended with exit code {returncode}"
