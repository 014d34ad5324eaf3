"""Brings the engine kind `remote`: any server that speaks OpenAI's dialect."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from engines.remote.config import RemoteConfig
from gateway import hookimpl
from gateway.policy.secrets import Secret

if TYPE_CHECKING:
    from engines.protocol import Engine
    from gateway.engine_registry import EngineRegistry, EngineSite


class RemoteEnginePolicy(RemoteConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The same, with secrets that a policy can refer to."""

    api_key: Secret | None = None
    secret_headers: Mapping[str, Secret] = {}


class RemoteEnginePlugin:
    """Registers the kind; the HTTP client is loaded with the first such engine."""

    @hookimpl
    def register_engines(self, registry: "EngineRegistry") -> None:
        """Name the kind, its configuration and how to build it."""
        registry.add("remote", config=RemoteEnginePolicy, build=_build)


def _build(name: str, config: RemoteEnginePolicy, site: "EngineSite") -> "Engine":
    from engines.remote.engine import RemoteEngine

    return RemoteEngine(name, config)
