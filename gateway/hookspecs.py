"""Every place where a plugin can act, in the order a call meets them.

A hook's kind is read off its spec here and checked when a plugin is loaded:
a plain function is `sync`, an `async def` is `async`, an `@asynccontextmanager`
is `context`. Names of arguments are part of the contract; an implementation
takes those it needs.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pluggy

from gateway.call import Call, Principal, Route

if TYPE_CHECKING:
    from gateway.engine_registry import EngineRegistry
    from gateway.gateway import Gateway

hookspec = pluggy.HookspecMarker("penstock")
hookimpl = pluggy.HookimplMarker("penstock")


class HookSpecs:
    """The hooks; each docstring says when it runs and how answers combine."""

    @hookspec
    def register_engines(self, registry: "EngineRegistry") -> None:
        """At start: tell the registry which engine kinds exist. All plugins run."""

    @hookspec
    def register_routes(self) -> Sequence[Any]:  # pyright: ignore[reportReturnType]
        """At start: more Litestar handlers to serve. The lists are joined."""

    @hookspec
    @asynccontextmanager
    async def lifespan(self, gateway: "Gateway") -> AsyncGenerator[None, None]:
        """Around the gateway's running time; nested in plugin order."""
        yield

    @hookspec
    @asynccontextmanager
    async def observe(self, call: Call) -> AsyncGenerator[None, None]:
        """Around the whole call, first byte to last; nested. Must not refuse.

        After `yield`, `call.error`, `call.usage` and `call.status` are final.
        """
        yield

    @hookspec
    async def identify(self, call: Call, headers: Mapping[str, str]) -> Principal | None:
        """Say who is calling, or None to let the next plugin try. The first answer wins.

        Raise `Unauthenticated` for credentials that are this plugin's and are wrong.
        `headers` has lower-case names.
        """

    @hookspec
    async def authorize(self, call: Call) -> None:
        """Raise `Forbidden` or `ModelUnknown` if the call may not be made. All plugins run.

        It may run twice for one call: before the body is read, and again when
        `call.model` is known. `call.model` is None before that, and always for
        endpoints that name no model.
        """

    @hookspec
    async def fetch_image(self, call: Call, url: str) -> bytes | None:
        """The image at an address that a message has, or None. The first answer wins.

        Runs for calls that are authorized. Raise `BadRequest` for what may not be fetched;
        where no plugin answers, images must be in the message itself.
        """

    @hookspec
    async def prepare(self, call: Call) -> None:
        """Change `call.requests` before they are run (`call.replace_requests`). All plugins run."""

    @hookspec
    async def route(self, call: Call) -> Route | None:
        """Say which targets to try, best first. The first answer wins."""

    @hookspec
    @asynccontextmanager
    async def admit(self, call: Call) -> AsyncGenerator[None, None]:
        """Take a slot before the call, give it back after; nested, from routing to last byte.

        May raise `RateLimited`.
        """
        yield
