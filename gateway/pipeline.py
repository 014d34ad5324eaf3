"""What happens to a call, in order. The file to read first.

A dialect decodes its body to requests and hands them here. Each line of `_admit`
is a hook whose plugin is a file of the same name; then dispatch finds an engine
that produces output. What comes back is one event stream for each request,
each with its first output already there, so that every failure until then is
still an honest HTTP status.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Protocol

from engines.protocol import (
    Embeddings,
    EmbedRequest,
    Event,
    Finished,
    GenerateRequest,
    Started,
)
from gateway.call import Call, Route
from gateway.dispatch import dispatch, dispatch_embed
from gateway.errors import ModelUnknown

if TYPE_CHECKING:
    from gateway.gateway import Gateway


class HasModel(Protocol):
    """Anything that names a model."""

    @property
    def model(self) -> str: ...


async def run(
    gateway: "Gateway", call: Call, requests: Sequence[GenerateRequest]
) -> list[AsyncGenerator[Event, None]]:
    """Take decoded requests to event streams whose first output has arrived.

    Raises `Refusal` or `EngineError`. The streams belong to `call.resources`.
    """
    call.requests = requests
    await _admit(gateway, call, requests[0].model)
    streams = await _side_by_side(gateway, call)
    return [_recorded(call, stream) for stream in streams]


async def embed(gateway: "Gateway", call: Call, request: EmbedRequest) -> Embeddings:
    """Take a decoded request to its vectors. Raises `Refusal` or `EngineError`."""
    call.embed_request = request
    await _admit(gateway, call, request.model)
    embeddings = await dispatch_embed(call, gateway.engines, call.embed_request)
    call.first_output_at = time.monotonic()
    call.add_usage(embeddings.usage)
    return embeddings


async def run_on(
    gateway: "Gateway", call: Call, request: GenerateRequest, route: Route
) -> list[AsyncGenerator[Event, None]]:
    """The same as `run` for a request that names no model, so that nothing is left to choose."""
    call.requests = [request]
    await gateway.hooks.authorize(call)
    await gateway.hooks.prepare(call)
    call.route = route
    await call.resources.enter_async_context(gateway.hooks.admit(call))
    streams = await _side_by_side(gateway, call)
    return [_recorded(call, stream) for stream in streams]


async def authorize(gateway: "Gateway", call: Call, name: str) -> None:
    """Raise unless the caller may make this call and use this model: `Forbidden`, `ModelUnknown`.

    A caller who may not use the endpoint hears that first: which names exist is not for
    everyone.
    """
    call.model = call.policy.resolve(name)  # an alias becomes its model
    await gateway.hooks.authorize(call)  # plugins/allow_lists.py
    if call.model is None:
        raise ModelUnknown(name)


async def _admit(gateway: "Gateway", call: Call, name: str) -> None:
    await authorize(gateway, call, name)
    await gateway.hooks.prepare(call)  # plugins/defaults.py
    call.route = await gateway.hooks.route(call)  # plugins/routing.py
    if call.route is None or not call.route.targets:
        raise ModelUnknown(name)
    await call.resources.enter_async_context(gateway.hooks.admit(call))  # plugins/rate_limits.py


async def _side_by_side(gateway: "Gateway", call: Call) -> list[AsyncGenerator[Event, None]]:
    """Dispatch every request at once; the first failure ends them all."""
    if len(call.requests) == 1:
        return [await dispatch(call, gateway.engines, call.requests[0])]
    tasks = [
        asyncio.ensure_future(dispatch(call, gateway.engines, request)) for request in call.requests
    ]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def _recorded(call: Call, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
    """Pass events on and note on the call what observers will ask for."""
    async for event in events:
        if call.first_output_at is None and not isinstance(event, Started):
            call.first_output_at = time.monotonic()
        if isinstance(event, Finished):
            call.add_usage(event.usage)
            call.timing = event.timing
            call.finish_reason = event.reason
        yield event
