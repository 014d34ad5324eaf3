"""Replaces a running gateway's policy: checked, whole, or not at all.

    read and check ─► start new engines ─► make new plugins ─► note in the audit log
                   ─► swap ─► retire what is gone, when the calls that use it have ended

Everything that can fail comes before the swap, and undoes itself; the policy in use
stays in use. A plugin that is listed as before, with the same table, stays the same
object, so that what it knows is not lost; an engine with the same table goes on running.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import Context
from typing import TYPE_CHECKING, Any, cast

import structlog
from msgspec import Struct

from engines.protocol import Engine
from gateway.engine_registry import (
    EngineRegistry,
    EngineStartFailed,
    start_engines,
    stop_engines,
)
from gateway.errors import PolicyRefused, Refusal
from gateway.hooks import Hooks, PluginInvalid, build_hooks, hooks_of, installed_plugins
from gateway.ledger import DoneBy, new_entry
from gateway.lifespans import Lifespan, begin_lifespans, end_lifespans
from gateway.policy import Policy, PolicyInvalid
from gateway.policy.changes import changes_of
from gateway.policy.watch import PolicyWatch
from gateway.serving import Serving

if TYPE_CHECKING:
    from gateway.gateway import Gateway

log = structlog.get_logger()


class Reloaded(Struct, frozen=True, kw_only=True):
    """What a reload did, or what one would do."""

    digest: str
    previous_digest: str
    changes: Sequence[str]  # readable lines
    notes: Sequence[str] = ()  # what needs a restart all the same


class LastReload(Struct, frozen=True, kw_only=True):
    """The last attempt: who wanted it, when, and what was wrong if it failed."""

    at: float
    by: str
    problems: Sequence[str] = ()


class Reloader:
    """The one that changes `gateway.serving`. Owned by the event loop; one reload at a time."""

    def __init__(self, gateway: "Gateway") -> None:
        self.last: LastReload | None = None
        self._gateway = gateway
        self._lock = asyncio.Lock()
        self._lifespans: dict[str, Lifespan] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self._begun: set[asyncio.Task[None]] = set()
        self._ending = asyncio.Event()  # nobody waits for calls any more

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """The plugins' running time; while it lasts, the policy may be reloaded."""
        gateway = self._gateway
        self._lifespans = await begin_lifespans(gateway.hooks.plugins, gateway)
        try:
            async with PolicyWatch(gateway.policy.directory, gateway.settings.watch_seconds,
                                   on_change=lambda: self.attempt("watch")).running(
                                       gateway.policy.digest):  # fmt: skip
                yield
        finally:
            for task in self._begun:
                task.cancel()
            await asyncio.gather(*self._begun, return_exceptions=True)
            async with self._lock:
                await end_lifespans(self._lifespans)
            await self.end_retired()

    def begin(self, by: str) -> None:
        """Reload in a task of its own; how it went is in the log."""
        task = asyncio.create_task(self.attempt(by))
        self._begun.add(task)
        task.add_done_callback(self._begun.discard)

    async def attempt(self, by: str) -> None:
        """Reload for somebody who cannot be answered: a signal, a watch."""
        try:
            await self.reload(DoneBy(principal=by, role="system"))
        except Refusal:
            pass  # logged where it was raised
        except Exception as error:
            # A task of its own, so nobody else would hear of it.
            log.error("policy_reload_broke", by=by, exc_info=error)

    async def check(self) -> Reloaded:
        """What a reload would change. Raises `PolicyRefused`."""
        old = self._gateway.policy
        return _compared(old, await self._read())

    async def reload(self, by: DoneBy) -> Reloaded:
        """Serve the policy directory as it is now. Raises `PolicyRefused`, `LedgerUnavailable`."""
        async with self._lock:
            try:
                reloaded = await self._reload(by)
            except Refusal as error:
                problems = error.problems if isinstance(error, PolicyRefused) else [error.message]
                self.last = LastReload(at=time.time(), by=by.principal, problems=problems)
                log.error("policy_reload_failed", by=by.principal, problems=list(problems))
                raise
            self.last = LastReload(at=time.time(), by=by.principal)
            log.info(
                "policy_reloaded",
                by=by.principal,
                digest=reloaded.digest[:12],
                previous=reloaded.previous_digest[:12],
                changes=list(reloaded.changes),
                notes=list(reloaded.notes),
            )
            return reloaded

    async def end_retired(self) -> None:
        """Close what was replaced, also if calls still use it."""
        self._ending.set()
        await asyncio.gather(*self._retiring)

    async def _read(self) -> Policy:
        gateway = self._gateway
        try:
            return await asyncio.to_thread(gateway.read_policy, gateway.policy.directory)
        except PolicyInvalid as error:
            raise PolicyRefused(error.problems) from error
        except PluginInvalid as error:
            raise PolicyRefused([str(error)]) from error

    async def _reload(self, by: DoneBy) -> Reloaded:
        gateway, old = self._gateway, self._gateway.serving
        policy = await self._read()
        reloaded = _compared(old.policy, policy)
        if policy.digest == old.policy.digest and not reloaded.changes:
            return reloaded
        async with AsyncExitStack() as undo:
            coming = _Coming(gateway, policy)
            view = cast("Gateway", coming)
            keep = _kept_plugins(old, policy)
            hooks = await self._made(policy, view, keep)
            engines = await self._started(old, policy, undo)
            coming.serving = Serving(
                policy=policy, hooks=hooks, engines=engines, targets=gateway.targets
            )
            answer = self._prepared_routes(old.hooks, hooks)
            made = {name: plugin for name, plugin in hooks.plugins.items() if name not in keep}
            begun = await self._lifespans_of(made, view)
            undo.push_async_callback(end_lifespans, begun)
            await gateway.audit.record(_entry(by, reloaded))
            undo.pop_all()
        gateway.serving = coming.serving
        coming.is_here = True
        answer()
        gateway.targets.policy_replaced(old.policy, policy)
        kept = {name: self._lifespans[name] for name in keep if name in self._lifespans}
        gone = {name: self._lifespans[name] for name in self._lifespans if name not in kept}
        both = {**kept, **begun}
        self._lifespans = {name: both[name] for name in hooks.plugins if name in both}
        self._retire(gone, {n: e for n, e in old.engines.items() if engines.get(n) is not e})
        return reloaded

    async def _made(self, policy: Policy, view: "Gateway", keep: Mapping[str, object]) -> Hooks:
        try:
            hooks = build_hooks(policy.plugins, view, keep=keep)
        except PluginInvalid as error:
            raise PolicyRefused([str(error)]) from error
        kinds = EngineRegistry()
        hooks.register_engines(kinds)
        self._gateway.registry.add_new(kinds)
        return hooks

    def _prepared_routes(self, old: Hooks, new: Hooks) -> Callable[[], None]:
        """What lets the routes of the new plugins answer; nothing to do if they are the same."""
        prepare = self._gateway.prepare_routes
        if prepare is None or _with_routes(old) == _with_routes(new):
            return lambda: None
        try:
            return prepare(new)
        except Exception as error:
            # A route that another has already, a handler that is none: plugins are anybody's code.
            log.error("plugin_routes_failed", exc_info=error)
            raise PolicyRefused([f"a plugin's routes cannot be served: {error}"]) from error

    async def _started(
        self, old: Serving, policy: Policy, undo: AsyncExitStack
    ) -> Mapping[str, Engine]:
        """The engines of the new policy: those that stay, and new ones beside those that go."""
        before = old.policy.engines
        new = {
            name: engine for name, engine in policy.engines.items() if before.get(name) != engine
        }
        try:
            # What they begin outlives the call that reloads.
            starting = start_engines(new, self._gateway.registry, self._gateway.settings)
            started = await asyncio.create_task(starting, context=Context())
        except EngineStartFailed as error:
            raise PolicyRefused([str(error)]) from error
        undo.push_async_callback(stop_engines, started)
        return {name: started.get(name) or old.engines[name] for name in policy.engines}

    async def _lifespans_of(
        self, made: Mapping[str, object], view: "Gateway"
    ) -> dict[str, Lifespan]:
        try:
            return await begin_lifespans(made, view)
        except Exception as error:
            # Whatever a plugin raises must not take the policy that works down with it.
            log.error("plugin_start_failed", exc_info=error)
            raise PolicyRefused([f"a plugin did not start: {error}"]) from error

    def _retire(self, lifespans: Mapping[str, Lifespan], engines: Mapping[str, Engine]) -> None:
        if lifespans or engines:
            retired = self._retired(set(self._gateway.calls), lifespans, engines)
            task = asyncio.create_task(retired, context=Context())
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    async def _retired(
        self, calls: set[str], lifespans: Mapping[str, Lifespan], engines: Mapping[str, Engine]
    ) -> None:
        """Wait for the calls that began before, as long as at a shutdown; then close."""
        try:
            async with asyncio.timeout(self._gateway.settings.drain_seconds):
                await self._ended(calls)
        except TimeoutError:
            log.warning("retired_with_calls", engines=sorted(engines))
        await stop_engines(engines)
        await end_lifespans(lifespans)
        log.info("retired", engines=sorted(engines), plugins=sorted(lifespans))

    async def _ended(self, calls: set[str]) -> None:
        gateway = self._gateway
        ending = asyncio.create_task(self._ending.wait())
        try:
            while not ending.done() and not calls.isdisjoint(gateway.calls):
                gateway.call_ended.clear()
                ended = asyncio.create_task(gateway.call_ended.wait())
                await asyncio.wait({ended, ending}, return_when=asyncio.FIRST_COMPLETED)
                ended.cancel()
        finally:
            ending.cancel()


class _Coming:
    """The gateway as a new plugin must see it before the swap: with the policy that is coming.

    Afterwards it is the gateway, whatever is asked of it.
    """

    def __init__(self, gateway: "Gateway", policy: Policy) -> None:
        self.is_here = False
        self.serving = Serving(policy=policy, hooks=Hooks([]), engines={}, targets=gateway.targets)
        self._gateway = gateway

    @property
    def policy(self) -> Policy:
        """The new policy, or later ones."""
        return self._gateway.policy if self.is_here else self.serving.policy

    @property
    def engines(self) -> Mapping[str, Engine]:
        """The new policy's engines, or later ones."""
        return self._gateway.engines if self.is_here else self.serving.engines

    def __getattr__(self, name: str) -> Any:
        return getattr(self._gateway, name)


def _kept_plugins(old: Serving, policy: Policy) -> dict[str, object]:
    """Those whose table, or having none, did not change; and those whose routes tell of them."""
    before = old.policy.tables
    return {
        name: plugin
        for name, plugin in old.hooks.plugins.items()
        if name in policy.plugins
        and (before.get(name) == policy.tables.get(name) or _serves_routes(name))
    }


def _notes(old: Policy, new: Policy) -> list[str]:
    """What of a change may wait for the next start."""
    return [
        f'plugin "{name}" serves routes of its own and stays as it is: what it reads of its '
        "table only when it is made changes at the next start"
        for name in old.plugins
        if name in new.plugins
        and _serves_routes(name)
        and old.tables.get(name) != new.tables.get(name)
    ]


def _with_routes(hooks: Hooks) -> dict[str, int]:
    return {name: id(plugin) for name, plugin in hooks.plugins.items() if _serves_routes(name)}


def _serves_routes(plugin: str) -> bool:
    found = installed_plugins().get(plugin)
    return found is not None and "register_routes" in hooks_of(found)


def _compared(old: Policy, new: Policy) -> Reloaded:
    return Reloaded(
        digest=new.digest,
        previous_digest=old.digest,
        changes=changes_of(old, new),
        notes=_notes(old, new),
    )


def _entry(by: DoneBy, reloaded: Reloaded) -> Any:
    return new_entry(
        by,
        "policy.reload",
        "policy",
        before={"digest": reloaded.previous_digest},
        after={"digest": reloaded.digest, "changes": list(reloaded.changes)},
    )
