"""What happens to a call, in order. The file to read first.

A dialect decodes its body to requests and hands them here. Each line of `_decide`
is a hook whose plugin is a file of the same name; then dispatch finds an engine
that produces output. What comes back is one event stream for each request,
each with its first output already there, so that every failure until then is
still an honest HTTP status.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from engines.errors import ContextTooLong
from engines.protocol import (
    Embeddings,
    EmbedRequest,
    Event,
    GenerateRequest,
)
from engines.reranking import Reranking, RerankRequest
from gateway.call import Call, Route
from gateway.dispatch import dispatch, dispatch_embed, dispatch_rerank
from gateway.errors import ModelUnknown

if TYPE_CHECKING:
    from gateway.gateway import Gateway
    from gateway.serving import Serving


Shorten = Callable[[EmbedRequest, ContextTooLong], Awaitable[EmbedRequest]]


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
    call.asked_max_tokens = requests[0].max_tokens
    serving = call.serving or gateway
    await _admit(serving, call, requests[0].model)
    return await _side_by_side(serving, call)


async def embed(
    gateway: "Gateway", call: Call, request: EmbedRequest, *, shorten: Shorten | None = None
) -> Embeddings:
    """Take a decoded request to its vectors. Raises `Refusal` or `EngineError`.

    One that is too long for its model is asked once more as `shorten` makes it.
    """
    call.embed_request = request
    serving = call.serving or gateway
    await _admit(serving, call, request.model)
    try:
        embeddings = await dispatch_embed(call, serving, call.embed_request)
    except ContextTooLong as error:
        if shorten is None:
            raise
        call.embed_request = await shorten(call.embed_request, error)
        embeddings = await dispatch_embed(call, serving, call.embed_request)
    call.first_output_at = time.monotonic()
    call.tally(0).set(embeddings.usage)
    return embeddings


async def rerank(gateway: "Gateway", call: Call, request: RerankRequest) -> Reranking:
    """Take a decoded request to its scores. Raises `Refusal` or `EngineError`."""
    call.rerank_request = request
    serving = call.serving or gateway
    await _admit(serving, call, request.model)
    reranking = await dispatch_rerank(call, serving, call.rerank_request)
    call.first_output_at = time.monotonic()
    call.tally(0).set(reranking.usage)
    return reranking


async def run_on(
    gateway: "Gateway", call: Call, request: GenerateRequest, route: Route
) -> list[AsyncGenerator[Event, None]]:
    """The same as `run` for a request that names no model, so that nothing is left to choose."""
    call.requests = [request]
    call.asked_max_tokens = request.max_tokens
    serving = call.serving or gateway
    await serving.hooks.authorize(call)
    await serving.hooks.prepare(call)
    call.route = route
    await call.resources.enter_async_context(serving.hooks.admit(call))
    return await _side_by_side(serving, call)


async def choose(gateway: "Gateway", call: Call, name: str) -> Route:
    """Where a call goes that wants something of a model, but no answer.

    Counted like any other. Raises `Refusal`.
    """
    await _admit(call.serving or gateway, call, name)
    assert call.route is not None
    return call.route


async def authorize(gateway: "Gateway | Serving", call: Call, name: str) -> None:
    """Raise unless the caller may make this call and use this model: `Forbidden`, `ModelUnknown`.

    A caller who may not use the endpoint hears that first: which names exist is not for
    everyone.
    """
    listed = await (call.serving or gateway).listed_name(name)
    call.model = call.policy.resolve(listed)  # an alias becomes its model
    await gateway.hooks.authorize(call)  # plugins/allow_lists.py
    if call.model is None:
        raise ModelUnknown(name)


async def _admit(gateway: "Gateway | Serving", call: Call, name: str) -> None:
    hooks, began = gateway.hooks, time.monotonic()
    try:
        await authorize(gateway, call, name)
        await hooks.prepare(call)  # plugins/defaults.py
        call.route = await hooks.route(call)  # plugins/routing.py
        if call.route is None or not call.route.targets:
            raise ModelUnknown(name)
        await call.resources.enter_async_context(hooks.admit(call))  # plugins/rate_limits.py
    finally:
        call.admission_seconds = time.monotonic() - began


async def _side_by_side(
    gateway: "Gateway | Serving", call: Call
) -> list[AsyncGenerator[Event, None]]:
    """Dispatch every request at once; the first failure ends them all."""
    if len(call.requests) == 1:
        return [await dispatch(call, gateway, call.requests[0])]
    tasks = [
        asyncio.ensure_future(dispatch(call, gateway, request, sequence))
        for sequence, request in enumerate(call.requests)
    ]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
