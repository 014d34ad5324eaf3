"""Builds the engines that a policy names; starts them, stops them, knows their kinds.

Plugins register kinds (`register_engines`); a policy's engines.toml names
instances. Engines start side by side; one that fails to start keeps the
gateway from starting, with its name in the error.
"""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import structlog
from msgspec import Struct

from engines.errors import EngineError
from engines.protocol import Engine
from gateway.policy import EnginePolicy
from gateway.settings import Settings

log = structlog.get_logger()


class EngineSite(Struct, frozen=True, kw_only=True):
    """What this machine gives an engine, apart from its policy."""

    models_dir: Path
    data_dir: Path


BuildEngine = Callable[[str, Any, EngineSite], Engine]
# Of a table as it is written: what variables of this machine's environment say of keys
# that it leaves out, as key -> (variable, value).
Defaults = Callable[[Mapping[str, object]], Mapping[str, tuple[str, object]]]


class EngineKind(Struct, frozen=True):
    """A kind of engine: its configuration's Struct and how to build one."""

    config: type[Struct]
    build: BuildEngine
    defaults: Defaults | None


class EngineRegistry:
    """The kinds of engines that plugins bring."""

    def __init__(self) -> None:
        self._kinds: dict[str, EngineKind] = {}

    def add(
        self,
        kind: str,
        *,
        config: type[Struct],
        build: BuildEngine,
        defaults: Defaults | None = None,
    ) -> None:
        """Register a kind. `build(name, config, site)` may import what is heavy; this may not."""
        if kind in self._kinds:
            raise ValueError(f"engine kind {kind!r} is registered twice")
        self._kinds[kind] = EngineKind(config, build, defaults)

    def add_new(self, other: "EngineRegistry") -> None:
        """Take over the kinds of another registry that are not known here yet."""
        self._kinds = {**other._kinds, **self._kinds}

    @property
    def configs(self) -> Mapping[str, type[Struct]]:
        """Each kind's configuration Struct."""
        return {kind: entry.config for kind, entry in self._kinds.items()}

    def defaults(self, kind: str, table: Mapping[str, object]) -> Mapping[str, tuple[str, object]]:
        """What this machine says of keys that a table leaves out: key -> (variable, value)."""
        of_kind = self._kinds[kind].defaults
        if of_kind is None:
            return {}
        found = of_kind(table)
        return {key: default for key, default in found.items() if key not in table}

    def build(self, policy: EnginePolicy, site: EngineSite) -> Engine:
        """Make one engine; it is not started."""
        return self._kinds[policy.kind].build(policy.name, policy.config, site)


class EngineStartFailed(Exception):
    """An engine of the policy did not start; names it and says why."""


async def start_engines(
    policies: Mapping[str, EnginePolicy], registry: EngineRegistry, settings: Settings
) -> dict[str, Engine]:
    """Build and start every engine. Raises `EngineStartFailed`, with nothing left running."""
    site = EngineSite(models_dir=settings.models_dir, data_dir=settings.data_dir)
    engines: dict[str, Engine] = {}
    for name, policy in policies.items():
        try:
            engines[name] = registry.build(policy, site)
        except EngineError as error:
            raise EngineStartFailed(f"engine {name!r} did not start: {error.message}") from error
    names = list(engines)
    results = await asyncio.gather(
        *(engines[name].start() for name in names), return_exceptions=True
    )
    for name, result in zip(names, results, strict=True):
        if isinstance(result, BaseException):
            await stop_engines(engines)
            if isinstance(result, EngineError):
                raise EngineStartFailed(f"engine {name!r} did not start: {result.message}")
            raise result
        log.info("engine_started", engine=name, kind=policies[name].kind)
    return engines


async def stop_engines(engines: Mapping[str, Engine]) -> None:
    """Close every engine side by side; a failure is logged and does not keep the others."""
    results = await asyncio.gather(
        *(engine.close() for engine in engines.values()), return_exceptions=True
    )
    for name, result in zip(engines, results, strict=True):
        if isinstance(result, BaseException):
            log.error("engine_close_failed", engine=name, exc_info=result)
