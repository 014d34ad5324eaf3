"""Declares the endpoints that are asked all day: those that answer with a model.

They read their own bodies and write their own answers, so all that they need of Litestar
is a place among its routes. `gateway/direct.py` takes a call to them past the rest of it;
a path that is written in another way (a slash at its end) comes by Litestar, to the same
answer.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from litestar import Request, post
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp

from gateway.api.bodies import Incoming

Answering = Callable[[Incoming], Awaitable[ASGIApp]]

ANSWER = "model_endpoint"  # the key in a handler's `opt`


def model_endpoint(path: str, *, name: str) -> Callable[[Answering], HTTPRouteHandler]:
    """Serve POST requests of this path; `name` is the endpoint's."""

    def declare(answer: Answering) -> HTTPRouteHandler:
        async def by_litestar(request: Request[Any, Any, Any]) -> ASGIApp:
            return await answer(request)

        # Not by `functools.wraps`, which would give it the signature, too.
        by_litestar.__module__, by_litestar.__doc__ = answer.__module__, answer.__doc__
        return post(path, name=name, status_code=200, opt={ANSWER: answer})(by_litestar)

    return declare
