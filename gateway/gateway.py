"""What a running gateway holds: policy, engines, hooks, keys, and the calls in flight."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import Context
from pathlib import Path

import msgspec
import structlog

from engines.protocol import Engine
from gateway.call import Call
from gateway.engine_registry import EngineRegistry, start_engines, stop_engines
from gateway.errors import NotFound
from gateway.hooks import Hooks, build_hooks, read_policy
from gateway.keys import Keys, open_invalidations, open_pepper
from gateway.ledger import Ledger, open_ledger
from gateway.ledger.audit_recorder import AuditRecorder
from gateway.ledger.spool import Spool
from gateway.ledger.writer import UsageWriter
from gateway.model_infos import ModelInfos
from gateway.policy import Policy
from gateway.reload import Reloader
from gateway.serving import Serving
from gateway.settings import Settings
from gateway.store import Store, open_store
from gateway.targets import Targets, TargetsReport

log = structlog.get_logger()

MAX_USAGE_SPOOL_BYTES = 256 * 1024 * 1024
MAX_AUDIT_SPOOL_BYTES = 64 * 1024 * 1024


class Gateway:
    """One process's gateway. The event loop's main task owns it; plugins read it.

    `serving` is replaced whole and never changed; a call keeps the one that it
    started with.
    """

    def __init__(self, settings: Settings, policy: Policy) -> None:
        self.settings = settings
        self.registry = EngineRegistry()
        self.targets = Targets()  # outlives every policy
        self.serving = Serving(policy=policy, hooks=Hooks([]), engines={}, targets=self.targets)
        self.hooks = build_hooks(policy.plugins, self)
        self.hooks.register_engines(self.registry)
        self.read_policy: Callable[[Path], Policy] = read_policy
        self.reloader = Reloader(self)
        self.model_infos = ModelInfos()
        self.calls: dict[str, Call] = {}  # in flight, by id
        self.call_ended = asyncio.Event()  # set with each call that ends; who waits clears it
        self.started_at = time.time()
        self.ready = False
        # Set by whoever serves: makes applications with these plugins' routes; see app.py.
        self.prepare_routes: Callable[[Hooks], Callable[[], None]] | None = None
        self.on_ready: list[Callable[[], None]] = []
        self.failure: Exception | None = None  # why it did not start, if it did not
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining: asyncio.Task[None] | None = None
        self._store: Store | None = None
        self._ledger: Ledger | None = None
        self._keys: Keys | None = None
        self._usage: UsageWriter | None = None
        self._audit: AuditRecorder | None = None

    @property
    def policy(self) -> Policy:
        """The policy of calls that begin now."""
        return self.serving.policy

    async def listed_name(self, name: str) -> str:
        """How the model that `name` means is listed; see gateway/listed_names.py."""
        return await self.serving.listed_name(name)

    @property
    def hooks(self) -> Hooks:
        """The plugins of calls that begin now."""
        return self.serving.hooks

    @hooks.setter
    def hooks(self, hooks: Hooks) -> None:
        self.serving = msgspec.structs.replace(self.serving, hooks=hooks)

    @property
    def engines(self) -> Mapping[str, Engine]:
        """The engines of calls that begin now."""
        return self.serving.engines

    @property
    def store(self) -> Store:
        """The counts of limits; open while the gateway runs."""
        assert self._store is not None, "the gateway is not running"
        return self._store

    @property
    def ledger(self) -> Ledger:
        """The durable records; open while the gateway runs."""
        assert self._ledger is not None, "the gateway is not running"
        return self._ledger

    @property
    def keys(self) -> Keys:
        """The API keys; usable while the gateway runs."""
        assert self._keys is not None, "the gateway is not running"
        return self._keys

    @property
    def usage(self) -> UsageWriter:
        """Takes the usage of calls to the ledger, whatever state that is in."""
        assert self._usage is not None, "the gateway is not running"
        return self._usage

    @property
    def audit(self) -> AuditRecorder:
        """Takes what is done to the gateway to the audit log."""
        assert self._audit is not None, "the gateway is not running"
        return self._audit

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """Open store and ledger, start the engines and the plugins; undo it all at the end.

        Raises `EngineStartFailed` and what store and ledger raise, with nothing left running.
        """
        async with AsyncExitStack() as stack:
            try:
                await self._start(stack)
            except Exception as error:
                self.failure = error
                raise
            try:
                yield
            finally:
                self.ready = False
                if self._draining is not None:
                    self._draining.cancel()
                log.info("gateway_stopping", calls=len(self.calls))

    def end_call(self, call: Call) -> None:
        """A call is over."""
        del self.calls[call.id]
        self.call_ended.set()

    def begin_drain(self) -> None:
        """Take no more traffic, and end what still runs after the settings' `drain_seconds`.

        May be called from a signal handler or another thread, and twice. Streams that are
        ended get an error event, because their engines raise `Unavailable`.
        """
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._drain, context=Context())

    def end_calls(self) -> None:
        """End at once what a drain still waits for. May be called as `begin_drain` may."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._end_now, context=Context())

    def begin_reload(self, by: str) -> None:
        """Reload the policy; how it went is in the log. May be called from a signal handler."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.reloader.begin, by, context=Context())

    def drain_target(self, engine: str, model: str | None = None) -> int:
        """Send no new calls to a target, or to none of an engine's; how many still run there.

        Holds until `resume_target` or a restart, also over reloads; what `model` names is
        the engine's own name for it. Raises `NotFound` for an engine that is not there.
        """
        self._check_engine(engine)
        return self.targets.drain(engine, model)

    def resume_target(self, engine: str, model: str | None = None) -> None:
        """Take back `drain_target`; without `model`, all of the engine's. Raises `NotFound`."""
        self._check_engine(engine)
        self.targets.resume(engine, model)

    def targets_report(self) -> TargetsReport:
        """How every target is: breakers, latencies, what runs where, budgets, mirrors."""
        return self.targets.snapshot()

    def _check_engine(self, engine: str) -> None:
        if engine not in self.engines:
            there_are = ", ".join(sorted(self.engines)) or "none"
            raise NotFound(f"there is no engine {engine!r} (there are: {there_are})")

    def _drain(self) -> None:
        self.ready = False
        if self._draining is None:
            log.info("gateway_draining", calls=len(self.calls))
            self.targets.mirrors.stop()
            self._draining = asyncio.create_task(self._end_calls())

    def _end_now(self) -> None:
        self._drain()
        assert self._draining is not None
        self._draining.cancel()
        self._draining = asyncio.create_task(stop_engines(self.engines))

    async def _end_calls(self) -> None:
        await asyncio.sleep(self.settings.drain_seconds)
        await asyncio.gather(stop_engines(self.engines), self.reloader.end_retired())

    async def _start(self, stack: AsyncExitStack) -> None:
        self._loop = asyncio.get_running_loop()
        store = open_store(self.settings.store, data_dir=self.settings.data_dir)
        await stack.enter_async_context(store.running())
        self._store = store
        await self._open_records(stack)
        engines = await start_engines(self.policy.engines, self.registry, self.settings)
        self.serving = msgspec.structs.replace(self.serving, engines=engines)
        stack.push_async_callback(self._stop_engines)
        stack.push_async_callback(self.targets.mirrors.close)
        await stack.enter_async_context(self.reloader.running())
        self.ready = True
        log.info(
            "gateway_started",
            policy=str(self.policy.directory),
            digest=self.policy.digest[:12],
            engines=sorted(self.engines),
        )
        for callback in self.on_ready:
            callback()

    async def _open_records(self, stack: AsyncExitStack) -> None:
        settings = self.settings
        ledger = await stack.enter_async_context(open_ledger(settings.ledger_url, waits=True))
        usage_spool = Spool(settings.data_dir / "usage-spool", max_bytes=MAX_USAGE_SPOOL_BYTES)
        audit_spool = Spool(settings.data_dir / "audit-spool", max_bytes=MAX_AUDIT_SPOOL_BYTES)
        self._ledger = ledger
        self._usage = await stack.enter_async_context(UsageWriter(ledger.usage, usage_spool))
        self._audit = await stack.enter_async_context(AuditRecorder(ledger.audit, audit_spool))
        keys = Keys(
            ledger,
            pepper=open_pepper(settings),
            invalidations=open_invalidations(settings.store),
        )
        self._keys = await stack.enter_async_context(keys)

    async def _stop_engines(self) -> None:
        await stop_engines(self.engines)


def open_gateway(settings: Settings) -> Gateway:
    """A gateway for these settings, not yet running. Raises `PolicyInvalid`, `PluginInvalid`."""
    return Gateway(settings, read_policy(settings.policy))
