"""Counts calls and serves `/metrics`, to those who may read it.

Numbers tell a good deal: who calls, how much, which models there are. So they are
for this machine, for administrators and for the teams in `readers`; `public`
opens them to everybody, and then teams are not named.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ClassVar

from msgspec import Struct

from gateway import Call, Forbidden, Unauthenticated, hookimpl
from gateway.metrics import CallMetrics, LoopLag, ask_engines
from plugins.anonymous import is_from_this_machine

if TYPE_CHECKING:
    from gateway.gateway import Gateway
    from gateway.metrics.exposition import Observed


class MetricsTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `[metrics]` table of gateway.toml."""

    public: bool = False  # anybody may read
    readers: Sequence[str] = ()  # teams that may read, besides administrators
    teams: bool | None = None  # name teams in labels; left out: unless public


class Metrics:
    """Owns the counts of this process's calls; the engines own theirs."""

    table: ClassVar[type[Struct] | None] = MetricsTable

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway
        self._calls = CallMetrics()
        self._loop_lag = LoopLag()
        self._version = version("penstock")

    @hookimpl
    @asynccontextmanager
    async def lifespan(self, gateway: "Gateway") -> AsyncGenerator[None, None]:
        """Watch the event loop while the gateway runs."""
        watching = asyncio.create_task(self._loop_lag.watch())
        try:
            yield
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching

    @hookimpl
    @asynccontextmanager
    async def observe(self, call: Call) -> AsyncGenerator[None, None]:
        """Count the call when it is over."""
        try:
            yield
        finally:
            self._calls.record(call)

    @hookimpl
    def register_routes(self) -> Sequence[Any]:
        """`GET /metrics`."""
        # What is imported here is slow to import, and the command line needs none of it.
        from litestar import HttpMethod, Request, Response, route

        from gateway.metrics.exposition import expose

        # Public to the router alone: who may read is decided here, since some need no key.
        @route(
            "/metrics",
            http_method=[HttpMethod.GET, HttpMethod.HEAD],
            name="metrics",
            opt={"public": True},
        )
        async def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
            call: Call = request.scope["state"]["call"]
            await self._check(call)
            observed = await self._observed(call)
            # It takes milliseconds, which nobody's token should wait for.
            exposition = await asyncio.to_thread(expose, observed, call.headers.get("accept", ""))
            return Response(exposition.content, headers={"content-type": exposition.media_type})

        return [metrics]

    async def _check(self, call: Call) -> None:
        """Raise unless the caller may read."""
        table = call.policy.table("metrics", MetricsTable)
        if table.public or is_from_this_machine(call, call.headers):
            return
        principal = await self._gateway.hooks.identify(call, call.headers)
        if principal is None:
            raise Unauthenticated(
                "metrics are for administrators, for the teams of [metrics] readers in "
                "gateway.toml and for this machine; send a key as `Authorization: Bearer <key>`"
            )
        call.principal = principal
        if not principal.is_admin and principal.team not in table.readers:
            raise Forbidden(
                f"team {principal.team!r} may not read metrics; "
                "[metrics] readers in gateway.toml names those that may"
            )

    async def _observed(self, call: Call) -> "Observed":
        from gateway.metrics.exposition import Observed
        from gateway.metrics.targets import in_policy

        gateway = self._gateway
        table = call.policy.table("metrics", MetricsTable)
        kinds = {name: engine.kind for name, engine in call.policy.engines.items()}
        engines = await ask_engines(gateway.engines, kinds)
        return Observed(
            calls=self._calls.snapshot(
                gateway.calls.values(),
                names_teams=not table.public if table.teams is None else table.teams,
            ),
            engines=engines,
            targets=in_policy(gateway.targets_report(), call.policy),
            loop_lag=self._loop_lag.snapshot(),
            is_ready=gateway.ready,
            version=self._version,
            policy_digest=call.policy.digest[:12],
        )
