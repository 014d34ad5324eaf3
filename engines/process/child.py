"""The child: builds the engine, runs what the parent asks for, tells what came of it.

It ends when it is told to `Close`, when its parent is gone, or by SIGKILL.
SIGINT and SIGTERM it ignores: a terminal's Ctrl-C and a service manager's stop
are for the parent, which lets running calls finish first.
"""

import asyncio
import ctypes
import faulthandler
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import aclosing, suppress
from typing import NoReturn

import structlog

from engines.abilities import Measured
from engines.errors import EngineError, RequestRefused, Unavailable, Unsupported
from engines.process.library_questions import answer_of, steps_of
from engines.process.link import Link
from engines.process.wire import (
    UNWRITABLE,
    WINDOW,
    Answer,
    Ask,
    Batch,
    Build,
    Cancel,
    Close,
    CountTokens,
    Embed,
    Fault,
    Generate,
    Health,
    Item,
    Load,
    Metrics,
    Models,
    More,
    NotReady,
    Perform,
    Question,
    Ready,
    Render,
    Rerank,
    ToChild,
    Unload,
    encode,
    fault_of,
    packed,
)
from engines.process.words import log_to_parent
from engines.protocol import Engine, Finished
from engines.rendering import Renders
from engines.reranking import Reranks

log = structlog.get_logger()

# As in the gateway: an engine's thread and the event loop hand the GIL to and fro.
SWITCH_INTERVAL_SECONDS = 0.0005
_PR_SET_PDEATHSIG = 1
_UNEXPECTED = Fault(
    Fault.UNEXPECTED, "the engine failed on this request; the log has the traceback of its process"
)


class _Call:
    """A call that runs: its task, and how much its reader can still take."""

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.room = WINDOW
        self.has_room = asyncio.Event()
        self.is_cancelled = False

    def add_room(self, num_events: int) -> None:
        self.room += num_events
        self.has_room.set()

    async def took_room(self) -> None:
        """Note that something was sent; return when there is room for the next."""
        self.room -= 1
        while self.room <= 0:
            # The engine keeps what it makes meanwhile, and may join it.
            self.has_room.clear()
            await self.has_room.wait()


class Host:
    """Holds one engine and everything that was asked of it; lives on the child's event loop."""

    def __init__(self) -> None:
        self._link = Link(ToChild, self._on_frame)
        self._engine: Engine | None = None
        self._calls: dict[int, _Call] = {}
        self._outgoing: list[tuple[int, Item]] = []
        self._told_to_close = asyncio.Event()
        self._starting: asyncio.Task[None] | None = None

    async def serve(self, end: socket.socket) -> None:
        """Return when told to close, or when the parent is gone."""
        await self._link.connect(end)
        lost = asyncio.create_task(self._link.lost.wait())
        told = asyncio.create_task(self._told_to_close.wait())
        done, _ = await asyncio.wait({lost, told}, return_when=asyncio.FIRST_COMPLETED)
        lost.cancel()
        told.cancel()
        if told in done and self._engine is not None:
            await self._engine.close()

    def _on_frame(self, frame: ToChild) -> None:
        if isinstance(frame, Build):
            self._starting = asyncio.create_task(self._start(frame))
        elif isinstance(frame, More):
            if (call := self._calls.get(frame.call)) is not None:
                call.add_room(frame.num_events)
        elif isinstance(frame, Cancel):
            if (call := self._calls.get(frame.call)) is not None:
                call.is_cancelled = True
                if call.task is not None:
                    call.task.cancel()
        elif isinstance(frame, Close):
            self._told_to_close.set()
        else:
            call = self._calls[frame.call] = _Call()
            call.task = asyncio.create_task(self._run(frame, call))

    async def _start(self, build: Build) -> None:
        log_to_parent(build.log_level)
        try:
            engine = build.spec.build(build.name)
            await engine.start()
        except EngineError as error:
            self._link.send(NotReady(fault_of(error)))
            return
        # A task that dies is noticed by nobody, and the parent waits.
        except Exception as error:
            log.exception("engine_did_not_start")
            reason = traceback.format_exception_only(error)[-1].strip()
            self._link.send(NotReady(fault_of(Unavailable(f"the engine did not start: {reason}"))))
            return
        self._engine = engine
        self._link.send(Ready())

    async def _run(self, frame: Ask | Generate | Perform, call: _Call) -> None:
        structlog.contextvars.bind_contextvars(**frame.log_context)
        try:
            if isinstance(frame, Ask):
                answer = await self._answer(frame.question)
                self._post(frame.call, Answer(encode(answer)))
            elif isinstance(frame, Perform):
                await self._perform(frame, call)
            else:
                await self._stream(frame, call)
        except EngineError as error:
            self._post(frame.call, fault_of(error))
            if isinstance(error, Unavailable):
                await self._give_up_if_lost()
        except asyncio.CancelledError:
            if not call.is_cancelled:
                self._post(frame.call, fault_of(Unavailable("the engine gave this request up")))
            raise
        # The parent waits for something, whatever went wrong here.
        except Exception:
            log.exception("engine_failed_on_request")
            self._post(frame.call, _UNEXPECTED)
        finally:
            del self._calls[frame.call]

    async def _give_up_if_lost(self) -> None:
        """Tell the parent, which ends us, if this process can serve nobody any more."""
        with suppress(EngineError):  # one that cannot say how it is may work all the same
            health = await self._running().health()
            if health.needs_new_process:
                self._link.send(NotReady(fault_of(Unavailable(health.detail))))

    async def _stream(self, frame: Generate, call: _Call) -> None:
        async with aclosing(self._running().generate(frame.request)) as events:
            async for event in events:
                self._post(frame.call, packed(event))
                if isinstance(event, Finished):
                    return
                await call.took_room()
        raise Unavailable("the engine ended its answer before it was finished")

    async def _perform(self, frame: Perform, call: _Call) -> None:
        async with aclosing(steps_of(self._running(), frame.job)) as steps:
            async for step in steps:
                self._post(frame.call, step)
                await call.took_room()
        self._post(frame.call, Answer(encode(None)))

    async def _answer(self, question: Question) -> object:
        engine = self._running()
        match question:
            case Health():
                return await engine.health()
            case Models():
                return await engine.models()
            case Load(model, keep_alive_seconds):
                return await engine.load(model, keep_alive_seconds=keep_alive_seconds)
            case Unload(model):
                return await engine.unload(model)
            case Embed(request):
                return await engine.embed(request)
            case CountTokens(request):
                return await engine.count_tokens(request)
            case Metrics() | Render() | Rerank():
                return await _answer_of_ability(engine, question)
            case _:
                return await answer_of(engine, question)

    def _running(self) -> Engine:
        if self._engine is None:
            raise Unavailable("the engine has not started")
        return self._engine

    def _post(self, call: int, item: Item) -> None:
        """Send an item with all others of this turn of the event loop."""
        if not self._outgoing:
            asyncio.get_running_loop().call_soon(self._flush)
        self._outgoing.append((call, item))

    def _flush(self) -> None:
        items, self._outgoing = self._outgoing, []
        try:
            self._link.send(Batch(items))
        except UNWRITABLE:
            for call, item in items:
                self._send_alone(call, item)

    def _send_alone(self, call: int, item: Item) -> None:
        try:
            self._link.send(Batch([(call, item)]))
        except UNWRITABLE as error:
            refused = RequestRefused(f"what the engine answered cannot be sent: {error}")
            self._link.send(Batch([(call, fault_of(refused))]))


async def _answer_of_ability(engine: Engine, question: Metrics | Render | Rerank) -> object:
    """What not every engine can do."""
    match question:
        case Metrics():
            return await engine.metrics() if isinstance(engine, Measured) else []
        case Render(request):
            if not isinstance(engine, Renders):
                raise Unsupported("this engine cannot show the prompts that it makes")
            return await engine.render(request)
        case Rerank(request):
            if not isinstance(engine, Reranks):
                raise Unsupported("this engine does not rerank", param="model")
            return await engine.rerank(request)


def main(arguments: list[str]) -> NoReturn:
    """The child's whole life; `arguments` are its end of the socket and its parent's id."""
    end, parent = int(arguments[0]), int(arguments[1])
    _prepare(parent)
    code = 1
    try:
        connection = socket.socket(fileno=end)
        connection.set_inheritable(False)  # a grandchild would keep it open
        # Not closed: a thread of the engine that hangs must not keep us.
        runner = asyncio.Runner(loop_factory=_loop_factory())
        runner.run(Host().serve(connection))
        code = 0
    # This is the last place where anybody could hear of it.
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    if os.getppid() != parent and os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)  # what we started has nobody else to end it
    os._exit(code)


def _prepare(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    faulthandler.enable()
    _die_with_parent()
    if os.getppid() != parent:  # it died before we asked to be told
        os._exit(1)
    _leave_no_core()
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)


def _die_with_parent() -> None:
    """Have the kernel end us with the thread that started us, even if we hang by then.

    That thread runs the gateway's event loop. Where there is no such call, the
    end of the socket has to do.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _leave_no_core() -> None:
    """A core file would hold prompts, and a GPU's worth of memory."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
