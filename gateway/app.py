"""Puts everything together: the only place that knows all the parts."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from litestar import Litestar
from litestar.config.app import AppConfig
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.routes import HTTPRoute
from litestar.types import Receive, Send

from gateway.api import HANDLERS
from gateway.api.problems import respond_to_error
from gateway.direct import DirectRoutes
from gateway.endpoints import ADMIN, needs_admin
from gateway.gateway import Gateway, open_gateway
from gateway.hooks import Hooks
from gateway.middleware import CallMiddleware
from gateway.settings import Settings, read_settings

Lifespan = Callable[[Litestar], AbstractAsyncContextManager[None]]


class Listeners:
    """The applications of one gateway; which one answers depends on the port that was called.

    With an admin port there are two. A path of the one does not exist in the other, however
    it is written: no rule about paths keeps them apart. A connection that comes by no port is
    the public one's. Both are made anew when a reload of the policy changes which plugins
    serve routes; calls in flight go on in the ones that they began in.
    """

    def __init__(self, gateway: Gateway, lifespan: Lifespan) -> None:
        self._gateway = gateway
        self._admin_port = gateway.settings.admin_port
        self._public, self._admin = self._made(gateway.hooks, [lifespan])
        self._life = self._public  # the gateway's, whichever application answers later
        self.state: State = self._public.litestar.state
        gateway.prepare_routes = self.prepare

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Hand a connection on; the gateway's life is the first public application's."""
        if scope["type"] == "lifespan":
            await self._life.litestar(scope, receive, send)
            return
        # What the socket says, as the server puts it: no header has a part in it.
        server = scope.get("server")
        is_admin = server is not None and server[1] == self._admin_port
        await (self._admin if is_admin else self._public)(scope, receive, send)

    @property
    def routes(self) -> Sequence[Any]:
        """Every route that is served now, on whichever port."""
        both = self._public.routes
        return both if self._admin is self._public else [*both, *self._admin.routes]

    def prepare(self, hooks: Hooks) -> Callable[[], None]:
        """Make applications with the routes of these plugins; the answer lets them answer.

        Raises whatever Litestar has against a route.
        """
        made = self._made(hooks, [])

        def answer() -> None:
            self._public, self._admin = made

        return answer

    def _made(
        self, hooks: Hooks, lifespan: Sequence[Lifespan]
    ) -> tuple[DirectRoutes, DirectRoutes]:
        """The public application and the admins' one, which may be the same."""
        gateway, handlers = self._gateway, [*HANDLERS, *hooks.register_routes()]
        if self._admin_port is None:
            one = _application(gateway, handlers, lifespan)
            return one, one
        public = [handler for handler in handlers if not _is_for_admins(handler)]
        admin = [handler for handler in handlers if _is_for_admins(handler) or _is_health(handler)]
        return _application(gateway, public, lifespan), _application(gateway, admin, [])


def create_app(settings: Settings | None = None) -> Listeners:
    """The ASGI application for these settings.

    Raises `SettingsInvalid`, `PolicyInvalid`, `PluginInvalid` before anything is
    opened; ledger and engines open and close with the application's lifespan.
    """
    return app_of(open_gateway(settings or read_settings()))


def app_of(gateway: Gateway) -> Listeners:
    """The ASGI application of a gateway that is not yet running."""

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncGenerator[None, None]:
        async with gateway.running():
            yield

    return Listeners(gateway, lifespan)


def _application(
    gateway: Gateway, handlers: Sequence[Any], lifespan: Sequence[Any]
) -> DirectRoutes:
    middleware = CallMiddleware(gateway)
    app = Litestar.from_config(
        AppConfig(
            route_handlers=list(handlers),
            middleware=[middleware],
            exception_handlers={
                HTTPException: respond_to_error,
                Exception: respond_to_error,
            },
            lifespan=list(lifespan),
            openapi_config=None,
            logging_config=None,
            # Bodies are bounded where they are read; see api/bodies.py.
            request_max_body_size=None,
        )
    )
    app.state.gateway = gateway
    _name_options(app)
    return DirectRoutes(app, middleware)


def _name_options(app: Litestar) -> None:
    """Let OPTIONS of a path, which Litestar answers, be a call of the path's endpoint."""
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            first, *others = route.route_handlers
            for handler in others:
                if handler.http_methods == {"OPTIONS"} and handler.name is None:
                    handler.opt["endpoint"] = _name_of(first)
                    handler.opt["public"] = first.opt.get("public")


def _is_for_admins(handler: Any) -> bool:
    """Is it an admin endpoint, or does its plugin say that it belongs beside them?"""
    return needs_admin(_name_of(handler)) or handler.opt.get("listener") == ADMIN


def _is_health(handler: Any) -> bool:
    return _name_of(handler).startswith("health.")


def _name_of(handler: Any) -> str:
    return handler.opt.get("endpoint") or handler.name or "-"
