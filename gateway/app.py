"""Puts everything together: the only place that knows all the parts."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar
from litestar.config.app import AppConfig
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.types import Receive, Send

from gateway.api import HANDLERS
from gateway.api.problems import respond_to_error
from gateway.endpoints import ADMIN, needs_admin
from gateway.gateway import Gateway, open_gateway
from gateway.middleware import CallMiddleware
from gateway.settings import Settings, read_settings


class Listeners:
    """Two applications of one gateway: which one answers depends on the port that was called.

    A path of the one does not exist in the other, however it is written: no rule about
    paths keeps them apart. A connection that comes by no port is the public one's.
    """

    def __init__(self, public: Litestar, admin: Litestar, admin_port: int) -> None:
        self.state: State = public.state
        self._public = public
        self._admin = admin
        self._admin_port = admin_port

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Hand a connection on; the gateway's life is the public application's."""
        # What the socket says, as the server puts it: no header has a part in it.
        server = scope.get("server") if scope["type"] == "http" else None
        is_admin = server is not None and server[1] == self._admin_port
        await (self._admin if is_admin else self._public)(scope, receive, send)


def create_app(settings: Settings | None = None) -> Litestar | Listeners:
    """The ASGI application for these settings.

    Raises `SettingsInvalid`, `PolicyInvalid`, `PluginInvalid` before anything is
    opened; ledger and engines open and close with the application's lifespan.
    """
    return app_of(open_gateway(settings or read_settings()))


def app_of(gateway: Gateway) -> Litestar | Listeners:
    """The ASGI application of a gateway that is not yet running."""

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncGenerator[None, None]:
        async with gateway.running():
            yield

    handlers = [*HANDLERS, *gateway.hooks.register_routes()]
    admin_port = gateway.settings.admin_port
    if admin_port is None:
        return _litestar(gateway, handlers, [lifespan])
    public = [handler for handler in handlers if not _is_for_admins(handler)]
    admin = [handler for handler in handlers if _is_for_admins(handler) or _is_health(handler)]
    return Listeners(
        _litestar(gateway, public, [lifespan]), _litestar(gateway, admin, []), admin_port
    )


def _litestar(gateway: Gateway, handlers: Sequence[Any], lifespan: Sequence[Any]) -> Litestar:
    app = Litestar.from_config(
        AppConfig(
            route_handlers=list(handlers),
            middleware=[CallMiddleware(gateway)],
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
    return app


def _is_for_admins(handler: Any) -> bool:
    """Is it an admin endpoint, or does its plugin say that it belongs beside them?"""
    return needs_admin(_name_of(handler)) or handler.opt.get("listener") == ADMIN


def _is_health(handler: Any) -> bool:
    return _name_of(handler).startswith("health.")


def _name_of(handler: Any) -> str:
    return handler.opt.get("endpoint") or handler.name or "-"
