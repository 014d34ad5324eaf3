"""What happens to a call, in order. The file to read first.

A dialect decodes its body to requests and hands them here. Each line of `_admit`
is a hook whose plugin is a file of the same name; then dispatch finds an engine
that produces output. What comes back is one event stream for each request,
each with its first output already there, so that every failure until then is
still an honest HTTP status.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from engines.errors import ModelNotFound
from engines.protocol import (
    Embeddings,
    EmbedRequest,
    Event,
    Finished,
    GenerateRequest,
    Started,
)
from gateway.call import Call
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
    with _unknown_as(requests[0].model):
        streams = await _side_by_side(gateway, call)
    return [_recorded(call, stream) for stream in streams]


async def embed(gateway: "Gateway", call: Call, request: EmbedRequest) -> Embeddings:
    """Take a decoded request to its vectors. Raises `Refusal` or `EngineError`."""
    call.embed_request = request
    await _admit(gateway, call, request.model)
    with _unknown_as(request.model):
        embeddings = await dispatch_embed(call, gateway, call.embed_request)
    call.first_output_at = time.monotonic()
    call.add_usage(embeddings.usage)
    return embeddings


async def _admit(gateway: "Gateway", call: Call, name: str) -> None:
    call.model = call.policy.resolve(name)  # an alias becomes its model
    if call.model is None:
        # A caller who may not use this endpoint hears that first: which names
        # exist is not for everyone.
        await gateway.hooks.authorize(call)
        raise ModelUnknown(name)
    await gateway.hooks.authorize(call)  # plugins/allow_lists.py
    await gateway.hooks.prepare(call)  # plugins/defaults.py
    call.route = await gateway.hooks.route(call)  # plugins/routing.py
    if call.route is None or not call.route.targets:
        raise ModelUnknown(name)
    await call.resources.enter_async_context(gateway.hooks.admit(call))  # plugins/rate_limits.py


@contextmanager
def _unknown_as(name: str) -> Generator[None, None, None]:
    """A model that its engine does not have looks like one that the caller may not use."""
    try:
        yield
    except ModelNotFound as error:
        raise ModelUnknown(name) from error


async def _side_by_side(gateway: "Gateway", call: Call) -> list[AsyncGenerator[Event, None]]:
    """Dispatch every request at once; the first failure ends them all."""
    if len(call.requests) == 1:
        return [await dispatch(call, gateway, call.requests[0])]
    tasks = [asyncio.ensure_future(dispatch(call, gateway, request)) for request in call.requests]
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
