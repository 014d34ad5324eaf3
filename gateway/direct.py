"""Takes calls of model endpoints to their handlers without Litestar's layers between.

Litestar looks at each request for what these handlers do not use: guards, dependencies,
signatures, encoders, its own error handlers (docs/decisions/0061). What it declares stays
the only list of what is served: which paths go directly is read off its routes, and any
other method or spelling of a path goes through Litestar.
"""

from collections.abc import Awaitable, Mapping, Sequence
from functools import partial
from typing import Any

from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute
from litestar.types import ASGIApp, Receive, Send
from msgspec import Struct

from gateway.api.model_endpoint import ANSWER, Answering
from gateway.middleware import CallMiddleware


class _Route(Struct, frozen=True):
    handler: HTTPRouteHandler
    app: ASGIApp


class _Request(Struct, frozen=True):
    """As much of a request as a model endpoint reads."""

    scope: Any
    receive: Any


class DirectRoutes:
    """One Litestar application, and the short way to its model endpoints."""

    def __init__(self, app: Litestar, middleware: CallMiddleware) -> None:
        self.litestar = app
        self._middleware = middleware
        self._routes = _direct_routes(app)

    @property
    def routes(self) -> Sequence[Any]:
        """Every route of the application."""
        return self.litestar.routes

    def __call__(self, scope: Any, receive: Receive, send: Send) -> Awaitable[None]:
        """What answers this connection."""
        # A path below a `root_path` is for Litestar to take apart.
        route = self._routes.get(scope.get("path")) if not scope.get("root_path") else None
        if route is None or scope.get("method") != "POST":
            return self.litestar(scope, receive, send)
        scope["route_handler"] = route.handler
        scope.setdefault("state", {})
        return self._middleware.handle(scope, receive, send, route.app)


def _direct_routes(app: Litestar) -> Mapping[str, _Route]:
    """The model endpoints of an application by their paths; all are for POST."""
    return {
        route.path: _Route(handler, partial(_answered, handler.opt[ANSWER]))
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        if ANSWER in handler.opt
    }


async def _answered(answer: Answering, scope: Any, receive: Receive, send: Send) -> None:
    reply = await answer(_Request(scope, receive))
    await reply(scope, receive, send)
