"""Loads plugins by entry point and runs their hooks.

pluggy stays synchronous: calling an `async def` hook through it only makes the
coroutines, in plugin order and with pluggy's matching of arguments. The three
combinators here run them: `first`, `every`, `nested`. What kind a hook is
(sync, async, context) is read off its spec, and an implementation of another
kind is refused when it is registered.
"""

import inspect
from collections.abc import AsyncGenerator, Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    nullcontext,
)
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pluggy
from msgspec import Struct

from gateway.call import Call, Principal, Route
from gateway.engine_registry import EngineRegistry
from gateway.hookspecs import HookSpecs
from gateway.policy import Policy
from gateway.policy.load import listed_plugins, load_policy

if TYPE_CHECKING:
    from gateway.gateway import Gateway

Answer = TypeVar("Answer")

ENTRY_POINT_GROUP = "penstock.plugins"


class PluginInvalid(Exception):
    """A plugin is not installed, does not load, or implements a hook the wrong way."""


class Hooks:
    """The plugins of one gateway, in policy order; one typed method for each hook."""

    def __init__(
        self, plugins: Sequence[tuple[str, object]], *, only: Collection[str] | None = None
    ) -> None:
        """With `only`, the hooks of these names run and every other does nothing."""
        self._manager = pluggy.PluginManager("penstock")
        self._manager.add_hookspecs(HookSpecs)
        # pluggy calls what was registered last first.
        for name, plugin in reversed(plugins):
            _check_kinds(name, plugin)
            self._manager.register(plugin, name=name)
        self._manager.check_pending()
        self.plugins: Mapping[str, object] = dict(plugins)  # in policy order
        self._call: Any = self._manager.hook if only is None else _Some(self._manager.hook, only)

    def only(self, *names: str) -> "Hooks":
        """The same plugins with these hooks alone, for calls that nobody makes.

        A plugin that has none of them is left out whole; the `lifespan` of the others runs.
        """
        wanted = frozenset(names)
        kept = [
            (name, plugin)
            for name, plugin in self.plugins.items()
            if hooks_of(type(plugin)) & wanted
        ]
        return Hooks(kept, only=wanted | {"lifespan"})

    def register_engines(self, registry: EngineRegistry) -> None:
        """Let every engine plugin name its kind."""
        self._call.register_engines(registry=registry)

    def register_routes(self) -> list[Any]:
        """Every plugin's own Litestar handlers."""
        return [handler for handlers in self._call.register_routes() for handler in handlers]

    def lifespan(self, gateway: "Gateway") -> AbstractAsyncContextManager[None]:
        """Around the gateway's running time."""
        return joined(self._call.lifespan(gateway=gateway))

    def observe(self, call: Call) -> AbstractAsyncContextManager[None]:
        """Around the whole call."""
        return joined(self._call.observe(call=call))

    async def identify(self, call: Call, headers: Mapping[str, str]) -> Principal | None:
        """The first plugin's answer to who is calling."""
        return await first(self._call.identify(call=call, headers=headers))

    async def authorize(self, call: Call) -> None:
        """Let every plugin refuse."""
        await every(self._call.authorize(call=call))

    async def fetch_image(self, call: Call, url: str) -> bytes | None:
        """The first plugin's image of this address."""
        return await first(self._call.fetch_image(call=call, url=url))

    async def prepare(self, call: Call) -> None:
        """Let every plugin change the requests."""
        await every(self._call.prepare(call=call))

    async def route(self, call: Call) -> Route | None:
        """The first plugin's route."""
        return await first(self._call.route(call=call))

    def admit(self, call: Call) -> AbstractAsyncContextManager[None]:
        """Every plugin's slot for the call."""
        return joined(self._call.admit(call=call))


class _Some:
    """pluggy's hooks, of which all but some have no implementations."""

    def __init__(self, hooks: Any, names: Collection[str]) -> None:
        self._hooks = hooks
        self._names = names

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hooks, name) if name in self._names else _nobody


def _nobody(**_: object) -> list[Any]:
    return []


async def first(answers: Iterable[Coroutine[Any, Any, Answer | None]]) -> Answer | None:
    """Await each in turn; return the first answer that is not None."""
    remaining = list(answers)
    try:
        while remaining:
            if (answer := await remaining.pop(0)) is not None:
                return answer
        return None
    finally:
        for coroutine in remaining:
            coroutine.close()  # never awaited, so never warn


async def every(steps: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Await each in turn; the first that raises ends it."""
    remaining = list(steps)
    try:
        while remaining:
            await remaining.pop(0)
    finally:
        for coroutine in remaining:
            coroutine.close()


def joined(
    contexts: Sequence[AbstractAsyncContextManager[None]],
) -> AbstractAsyncContextManager[None]:
    """What enters all of them: `nested`, without its price where it is one or none."""
    if not contexts:
        return nullcontext()
    return contexts[0] if len(contexts) == 1 else nested(contexts)


@asynccontextmanager
async def nested(
    contexts: Iterable[AbstractAsyncContextManager[None]],
) -> AsyncGenerator[None, None]:
    """Enter each in turn and leave them in reverse."""
    async with AsyncExitStack() as stack:
        for context in contexts:
            await stack.enter_async_context(context)
        yield


def kind_of(function: Any) -> str:
    """`sync`, `async` or `context`: how a hook's implementation must be written."""
    wrapped = getattr(function, "__wrapped__", None)
    if wrapped is not None and inspect.isasyncgenfunction(wrapped):
        return "context"
    return "async" if inspect.iscoroutinefunction(function) else "sync"


@lru_cache(maxsize=1)
def installed_plugins() -> Mapping[str, type]:
    """Every installed plugin's class by its entry point's name. Raises `PluginInvalid`."""
    found: dict[str, type] = {}
    for point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            found[point.name] = point.load()
        except (ImportError, AttributeError) as error:
            raise PluginInvalid(
                f"plugin {point.name!r} ({point.value}) does not load: {error}"
            ) from error
    return found


def hooks_of(plugin: type) -> frozenset[str]:
    """The names of the hooks that a plugin's class implements."""
    return frozenset(
        name
        for name in vars(HookSpecs)
        if not name.startswith("_") and hasattr(getattr(plugin, name, None), "penstock_impl")
    )


def read_policy(directory: Path) -> Policy:
    """Load and check a policy directory against the installed plugins and engine kinds.

    Raises `gateway.policy.load.PolicyInvalid` with every problem found.
    """
    plugins = installed_plugins()
    hooks = {name: hooks_of(plugin) for name, plugin in plugins.items()}
    listed = set(listed_plugins(directory))
    registry = EngineRegistry()
    for name, plugin in plugins.items():
        if name in listed and "register_engines" in hooks[name]:
            # Engine plugins are built without a gateway: a policy names their
            # kinds before there is one.
            plugin().register_engines(registry=registry)
    return load_policy(
        directory,
        plugin_tables={name: table_of(plugin) for name, plugin in plugins.items()},
        engine_configs=registry.configs,
        hooks_of=hooks,
    )


def table_of(plugin: type) -> type[Struct] | None:
    """The Struct of a plugin's own table in gateway.toml, or None if it takes none."""
    return cast("type[Struct] | None", getattr(plugin, "table", None))


def build_hooks(
    names: Sequence[str], gateway: "Gateway", *, keep: Mapping[str, object] | None = None
) -> Hooks:
    """Make the named plugins, in this order, but take those in `keep` as they are.

    Raises `PluginInvalid`.
    """
    installed = installed_plugins()
    plugins: list[tuple[str, object]] = []
    for name in names:
        if keep is not None and name in keep:
            plugins.append((name, keep[name]))
            continue
        if name not in installed:
            raise PluginInvalid(
                f"plugin {name!r} is not installed (there are: {', '.join(sorted(installed))})"
            )
        plugins.append((name, _built(installed[name], gateway)))
    return Hooks(plugins)


def _built(plugin: type, gateway: "Gateway") -> object:
    takes_gateway = "gateway" in inspect.signature(plugin).parameters
    return plugin(gateway) if takes_gateway else plugin()


def _check_kinds(name: str, plugin: object) -> None:
    for hook, spec in vars(HookSpecs).items():
        implementation = getattr(plugin, hook, None)
        if hook.startswith("_") or not hasattr(implementation, "penstock_impl"):
            continue
        expected, found = kind_of(spec), kind_of(implementation)
        if expected != found:
            raise PluginInvalid(f"{name}.{hook} is {found}; the hook is {expected}")
