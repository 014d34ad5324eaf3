"""Loads plugins by entry point and runs their hooks.

pluggy registers plugins, checks their hooks against the specs and knows the order.
It is synchronous, and it would match arguments anew at each call; so what it has
registered is asked for once, and awaited here one after the other, in plugin order.
What kind a hook is (sync, async, context) is read off its spec, and an implementation
of another kind is refused when it is registered.
"""

import inspect
from collections.abc import (
    AsyncGenerator,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
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
        self._only = only
        self._authorize = self._implementations("authorize")
        self._prepare = self._implementations("prepare")
        self._identify = self._implementations("identify")
        self._fetch_image = self._implementations("fetch_image")
        self._route = self._implementations("route")
        self._observe = self._implementations("observe")
        self._admit = self._implementations("admit")

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
        for implementation in self._implementations("register_engines"):
            implementation(registry)

    def register_routes(self) -> list[Any]:
        """Every plugin's own Litestar handlers."""
        lists = [implementation() for implementation in self._implementations("register_routes")]
        return [handler for handlers in lists for handler in handlers]

    def lifespan(self, gateway: "Gateway") -> AbstractAsyncContextManager[None]:
        """Around the gateway's running time."""
        return joined([context(gateway) for context in self._implementations("lifespan")])

    def observe(self, call: Call) -> AbstractAsyncContextManager[None]:
        """Around the whole call."""
        return joined([context(call) for context in self._observe])

    def identify(
        self, call: Call, headers: Mapping[str, str]
    ) -> Coroutine[Any, Any, Principal | None]:
        """The first plugin's answer to who is calling."""
        return first(self._identify, call, headers)

    def authorize(self, call: Call) -> Coroutine[Any, Any, None]:
        """Let every plugin refuse."""
        return every(self._authorize, call)

    def fetch_image(self, call: Call, url: str) -> Coroutine[Any, Any, bytes | None]:
        """The first plugin's image of this address."""
        return first(self._fetch_image, call, url)

    def prepare(self, call: Call) -> Coroutine[Any, Any, None]:
        """Let every plugin change the requests."""
        return every(self._prepare, call)

    def route(self, call: Call) -> Coroutine[Any, Any, Route | None]:
        """The first plugin's route."""
        return first(self._route, call)

    def admit(self, call: Call) -> AbstractAsyncContextManager[None]:
        """Every plugin's slot for the call."""
        return joined([context(call) for context in self._admit])

    def _implementations(self, hook: str) -> Sequence[Callable[..., Any]]:
        """The plugins' functions for a hook, in policy order; each takes all its arguments."""
        if self._only is not None and hook not in self._only:
            return ()
        caller: Any = getattr(self._manager.hook, hook)
        arguments = caller.spec.argnames
        # pluggy calls what was registered last first.
        return [_taking(arguments, found) for found in reversed(caller.get_hookimpls())]


def _taking(arguments: Sequence[str], found: Any) -> Callable[..., Any]:
    """An implementation that may be given every argument of its hook, in the spec's order."""
    function: Callable[..., Any] = found.function
    wanted = [arguments.index(name) for name in found.argnames]
    if wanted == list(range(len(arguments))):
        return function
    return lambda *given: function(*[given[index] for index in wanted])


async def first(
    implementations: Iterable[Callable[..., Coroutine[Any, Any, Answer | None]]], *given: object
) -> Answer | None:
    """Ask one after the other; return the first answer that is not None."""
    for implementation in implementations:
        if (answer := await implementation(*given)) is not None:
            return answer
    return None


async def every(
    implementations: Iterable[Callable[..., Coroutine[Any, Any, None]]], *given: object
) -> None:
    """Run one after the other; the first that raises ends it."""
    for implementation in implementations:
        await implementation(*given)


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
        engine_defaults=lambda kind, table: {
            key: value for key, (_, value) in registry.defaults(kind, table).items()
        },
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
        options: dict[str, Any] | None = getattr(implementation, "penstock_impl", None)
        if hook.startswith("_") or options is None:
            continue
        if options.get("wrapper") or options.get("hookwrapper"):
            raise PluginInvalid(f"{name}.{hook} is a wrapper, which no hook here may be")
        expected, found = kind_of(spec), kind_of(implementation)
        if expected != found:
            raise PluginInvalid(f"{name}.{hook} is {found}; the hook is {expected}")
