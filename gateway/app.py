"""Puts everything together: the only place that knows all the parts."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from litestar import Litestar
from litestar.config.app import AppConfig
from litestar.exceptions import HTTPException

from gateway.api import HANDLERS
from gateway.api.problems import respond_to_error
from gateway.gateway import Gateway, open_gateway
from gateway.middleware import CallMiddleware
from gateway.settings import Settings, read_settings


def create_app(settings: Settings | None = None) -> Litestar:
    """The ASGI application for these settings.

    Raises `SettingsInvalid`, `PolicyInvalid`, `PluginInvalid` before anything is
    opened; ledger and engines open and close with the application's lifespan.
    """
    return app_of(open_gateway(settings or read_settings()))


def app_of(gateway: Gateway) -> Litestar:
    """The ASGI application of a gateway that is not yet running."""

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncGenerator[None, None]:
        async with gateway.running():
            yield

    app = Litestar.from_config(
        AppConfig(
            route_handlers=[*HANDLERS, *gateway.hooks.register_routes()],
            middleware=[CallMiddleware(gateway)],
            exception_handlers={
                HTTPException: respond_to_error,
                Exception: respond_to_error,
            },
            lifespan=[lifespan],
            openapi_config=None,
            logging_config=None,
            # Bodies are bounded where they are read; see api/bodies.py.
            request_max_body_size=None,
        )
    )
    app.state.gateway = gateway
    return app
