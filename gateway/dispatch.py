"""Tries a call's targets in order until one produces output.

Until an engine's first output the client has been sent nothing, so a failure
may still become another target's answer or a plain HTTP error. From the first
output on there is no way back: an error then ends the stream. Whose turn it is
is decided in gateway/targets/turns.py.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import msgspec
import structlog

from engines.abilities import Relay
from engines.errors import EngineError, Unavailable, Unsupported
from engines.protocol import Embeddings, EmbedRequest, Engine, Event, GenerateRequest, Started
from engines.reranking import Reranking, RerankRequest, Reranks
from engines.wire import WireRequest
from gateway.call import Call, Target
from gateway.policy import ModelPolicy
from gateway.recorder import Recorder
from gateway.targets import Attempt, Targets, Turns
from gateway.targets.hedge import first_of

log = structlog.get_logger()

Answer = TypeVar("Answer")
Ask = Callable[[Engine, str], Coroutine[Any, Any, Answer]]

# The events that are to come, and those that came: the first output, and what was before it.
Begun = tuple[AsyncGenerator[Event, None], list[Event]]

TARGETS_HEADER = "x-penstock-targets"
# A copy of a call waits until nobody else does, and spends nobody's share.
_MIRROR = {"owner": "mirror", "priority": 1_000_000}


class Running(Protocol):
    """What is needed of a gateway."""

    @property
    def engines(self) -> Mapping[str, Engine]: ...
    @property
    def targets(self) -> Targets: ...


class FirstOutputUnavailable(Unavailable):
    """The target had no output within the model's `first_output_timeout_seconds`."""


async def dispatch(
    call: Call, gateway: Running, request: GenerateRequest, sequence: int = 0
) -> AsyncGenerator[Event, None]:
    """Return an event stream whose first output has already arrived.

    What its events tell is noted on the call, as that of its `sequence`. Raises the last
    target's `EngineError` when none produced output. The stream is closed with
    `call.resources`, in the call's own task.
    """
    _mirror(call, gateway, partial(_copied, request), request.wire)
    (events, held), attempt = await first_that_can(
        call, gateway, partial(_begun, request), discard=_discarded
    )
    recorder = Recorder(call, request, sequence)
    stream = _resume(held, events, attempt, recorder)
    call.resources.push_async_callback(_close, stream, events, attempt, recorder)
    return stream


async def dispatch_embed(call: Call, gateway: Running, request: EmbedRequest) -> Embeddings:
    """The first target's vectors; the same rules as `dispatch`."""

    async def embed(engine: Engine, model: str) -> Embeddings:
        return await engine.embed(msgspec.structs.replace(request, model=model))

    async def copy(engine: Engine, model: str) -> None:
        own = {"id": f"{request.id}-mirror", "model": model, **_MIRROR}
        await engine.embed(msgspec.structs.replace(request, **own))

    _mirror(call, gateway, copy)
    return await whole(call, gateway, embed)


async def dispatch_rerank(call: Call, gateway: Running, request: RerankRequest) -> Reranking:
    """The first target's scores; the same rules as `dispatch`."""

    async def rerank(engine: Engine, model: str) -> Reranking:
        if not isinstance(engine, Reranks):
            raise Unsupported(f"{request.model!r} does not rerank", param="model")
        return await engine.rerank(msgspec.structs.replace(request, model=model))

    async def copy(engine: Engine, model: str) -> None:
        own = {"id": f"{request.id}-mirror", "model": model, **_MIRROR}
        if isinstance(engine, Reranks):
            await engine.rerank(msgspec.structs.replace(request, **own))

    _mirror(call, gateway, copy)
    return await whole(call, gateway, rerank)


async def whole(call: Call, gateway: Running, ask: Ask[Answer]) -> Answer:
    """The first target's answer, for what an engine answers in one piece."""
    answer, attempt = await first_that_can(call, gateway, ask)
    attempt.completed()
    attempt.end()
    return answer


async def first_that_can(
    call: Call,
    gateway: Running,
    ask: Ask[Answer],
    *,
    discard: Callable[[Answer], Awaitable[None]] | None = None,
) -> tuple[Answer, Attempt]:
    """The first answer there is, and the attempt that it came from; notes both on the call.

    The attempt holds a place at its target: `end` it with the answer. `ask` is given an
    engine and that engine's name for the model, and ends what it began when it is
    cancelled. `discard` closes an answer that came too late to be used.
    """
    asking = _Asking(call, gateway, ask, discard)
    try:
        attempt = asking.turns.next_target() or await asking.turns.next()
        while attempt is not None:
            try:
                answer, attempt = await asking.answer(attempt)
            except EngineError:  # noted where it was raised
                attempt = await asking.turns.next()
                continue
            call.target = attempt.target
            asking.turns.left(attempt)
            return answer, attempt
        raise asking.turns.refusal()
    finally:
        _show_targets(call)


class _Asking(Generic[Answer]):
    """Asks one target after the other the same; used for one request."""

    __slots__ = ("_ask", "_discard", "_engines", "_hedge", "_seconds", "turns")

    def __init__(
        self,
        call: Call,
        gateway: Running,
        ask: Ask[Answer],
        discard: Callable[[Answer], Awaitable[None]] | None,
    ) -> None:
        self.turns = Turns(call, gateway.targets)
        self._engines = gateway.engines
        self._ask = ask
        self._discard = discard
        model: ModelPolicy | None = call.model
        self._seconds = model.first_output_timeout_seconds if model is not None else None
        self._hedge = model.hedge if model is not None else None

    def answer(self, attempt: Attempt) -> Coroutine[Any, Any, tuple[Answer, Attempt]]:
        """The answer of this attempt, or of a faster one. Raises `EngineError`."""
        if self._hedge is None:
            return self._answer_of(attempt)
        return first_of(
            self._answer_of(attempt),
            self._second,
            after_seconds=self._hedge.after_seconds,
            discard=self._too_late,
        )

    def _second(self) -> Coroutine[Any, Any, tuple[Answer, Attempt]] | None:
        attempt = self.turns.next_target()
        return None if attempt is None else self._answer_of(attempt)

    async def _too_late(self, answered: tuple[Answer, Attempt]) -> None:
        answer, attempt = answered
        self.turns.left(attempt, "given_up")
        attempt.end()
        if self._discard is not None:
            await self._discard(answer)

    async def _answer_of(self, attempt: Attempt) -> tuple[Answer, Attempt]:
        try:
            answer = await self._in_time(attempt.target)
        except EngineError as error:
            late = isinstance(error, FirstOutputUnavailable)
            self.turns.failed(attempt, error, "first_output_timeout" if late else error.code)
            log.info("target_failed", engine=attempt.target.engine, model=attempt.target.model,
                     error=error.code)  # fmt: skip
            attempt.failed(error)
            attempt.end()
            raise
        except BaseException:
            self.turns.left(attempt, "given_up")
            attempt.given_up()
            raise
        attempt.answered()
        return answer, attempt

    def _in_time(self, target: Target) -> Coroutine[Any, Any, Answer]:
        engine = self._engines.get(target.engine)
        if engine is None:
            raise Unavailable("the engine of this target is not there any more")
        asked = self._ask(engine, target.model)
        return asked if self._seconds is None else _within(self._seconds, asked)


async def _within(seconds: float, asked: Coroutine[Any, Any, Answer]) -> Answer:
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await asked
    except TimeoutError:
        if not limit.expired():
            raise
        raise FirstOutputUnavailable(f"no output within {seconds:g} seconds") from None


def _mirror(
    call: Call,
    gateway: Running,
    copy: Callable[[Engine, str], Coroutine[Any, Any, None]],
    wire: WireRequest | None = None,
) -> None:
    mirror = call.model.mirror if call.model is not None else None
    if call.model is None or mirror is None:
        return
    model = mirror.model or call.model.name
    engine = gateway.engines.get(mirror.engine)
    if engine is None or not _can_be_asked(engine, wire):
        return
    if not gateway.targets.why_not(mirror.engine, model):
        gateway.targets.mirrors.send(mirror, model, lambda: copy(engine, model))


def _can_be_asked(engine: Engine, wire: WireRequest | None) -> bool:
    """Would the engine get the request that the targets get, and not one made of its length?"""
    if wire is None or not wire.is_all:
        return True
    return isinstance(engine, Relay) and engine.relays(wire.dialect, wire.method, wire.path)


def _show_targets(call: Call) -> None:
    """Tell the caller which targets were tried, if the policy lets the team know."""
    team = call.policy.teams.get(call.principal.team)
    if team is not None and team.show_targets:
        call.response_headers[TARGETS_HEADER] = call.targets


async def _begun(request: GenerateRequest, engine: Engine, model: str) -> Begun:
    """An engine's events as far as the first output."""
    events = engine.generate(msgspec.structs.replace(request, model=model))
    held: list[Event] = []
    try:
        async for event in events:
            held.append(event)
            if not isinstance(event, Started):
                return events, held
        raise Unavailable("the engine ended its answer before it began")
    except BaseException:
        await events.aclose()
        raise


async def _copied(request: GenerateRequest, engine: Engine, model: str) -> None:
    own = {"id": f"{request.id}-mirror", "model": model, **_MIRROR}
    async with aclosing(engine.generate(msgspec.structs.replace(request, **own))) as events:
        async for _ in events:
            pass


async def _discarded(begun: Begun) -> None:
    await begun[0].aclose()


async def _resume(
    held: list[Event], events: AsyncGenerator[Event, None], attempt: Attempt, recorder: Recorder
) -> AsyncGenerator[Event, None]:
    note = recorder.note
    for event in held:
        note(event)
        yield event
    try:
        async for event in events:
            note(event)
            yield event
    except EngineError as error:
        attempt.failed(error)
        raise
    attempt.completed()
    attempt.end()


async def _close(
    stream: AsyncGenerator[Event, None],
    events: AsyncGenerator[Event, None],
    attempt: Attempt,
    recorder: Recorder,
) -> None:
    recorder.end()
    try:
        await stream.aclose()
    finally:
        # Also by itself: an async generator that never began to run does not reach
        # its own clean-up.
        try:
            await events.aclose()
        finally:
            attempt.end()
