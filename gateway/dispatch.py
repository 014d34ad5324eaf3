"""Tries a call's targets in order until one produces output.

Until an engine's first output the client has been sent nothing, so a failure
may still become another target's answer or a plain HTTP error. From the first
output on there is no way back: an error then ends the stream.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import TypeVar

import msgspec
import structlog

from engines.errors import EngineError, ModelNotFound, RequestRefused, Unavailable
from engines.protocol import Embeddings, EmbedRequest, Engine, Event, GenerateRequest, Started
from gateway.call import Call, Target
from gateway.errors import ModelUnknown

log = structlog.get_logger()

Answer = TypeVar("Answer")


async def dispatch(
    call: Call, engines: Mapping[str, Engine], request: GenerateRequest
) -> AsyncGenerator[Event, None]:
    """Return an event stream whose first output has already arrived.

    Raises the last target's `EngineError` when none produced output. The stream
    is closed with `call.resources`, in the call's own task.
    """

    async def begin(engine: Engine, model: str) -> tuple[AsyncGenerator[Event, None], list[Event]]:
        events = engine.generate(msgspec.structs.replace(request, model=model))
        try:
            return events, await _until_output(events)  # keeps Started back
        except BaseException:
            await events.aclose()
            raise

    events, held = await _first_that_can(call, engines, begin)
    # Both are closed: an async generator that never began to run does not
    # reach its own clean-up.
    await call.resources.enter_async_context(aclosing(events))
    return await call.resources.enter_async_context(aclosing(_resume(held, events)))


async def dispatch_embed(
    call: Call, engines: Mapping[str, Engine], request: EmbedRequest
) -> Embeddings:
    """The first target's vectors; the same rules as `dispatch`."""

    async def embed(engine: Engine, model: str) -> Embeddings:
        return await engine.embed(msgspec.structs.replace(request, model=model))

    return await _first_that_can(call, engines, embed)


async def _first_that_can(
    call: Call,
    engines: Mapping[str, Engine],
    attempt: Callable[[Engine, str], Awaitable[Answer]],
) -> Answer:
    """The answer of the first target whose attempt does not fail; notes it on the call."""
    failure: EngineError | None = None
    for target in _targets(call):
        if failure is not None and not _may_follow(target, failure):
            continue
        try:
            answer = await attempt(engines[target.engine], target.model)
        except EngineError as error:
            failure = _seen(call, target, error)
            continue
        call.target = target
        return answer
    raise _as_refusal(call, failure)


def _targets(call: Call) -> tuple[Target, ...]:
    return call.route.targets if call.route else ()


def _may_follow(target: Target, failure: EngineError) -> bool:
    # What is wrong with the request stays wrong on every target, unless the
    # policy says that this target is for just that.
    if target.on:
        return failure.code in target.on
    return not isinstance(failure, RequestRefused | ModelNotFound)


def _seen(call: Call, target: Target, error: EngineError) -> EngineError:
    log.info("target_failed", engine=target.engine, model=target.model,
             error=error.code)  # fmt: skip
    call.failed_targets.append((target, error.code))
    return error


def _as_refusal(call: Call, failure: EngineError | None) -> Exception:
    if isinstance(failure, ModelNotFound):
        # The engine's own name for the model is not the caller's business.
        return ModelUnknown(call.model.name if call.model else failure.model)
    return failure or Unavailable("no target of this model can take the request")


async def _until_output(events: AsyncGenerator[Event, None]) -> list[Event]:
    held: list[Event] = []
    async for event in events:
        held.append(event)
        if not isinstance(event, Started):
            return held
    raise Unavailable("the engine ended its answer before it began")


async def _resume(
    held: list[Event], events: AsyncGenerator[Event, None]
) -> AsyncGenerator[Event, None]:
    for event in held:
        yield event
    async for event in events:
        yield event
