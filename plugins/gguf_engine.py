"""Brings the engine kind `gguf`: llama.cpp models on this machine."""

import os
from typing import TYPE_CHECKING

from gateway import hookimpl

if TYPE_CHECKING:
    from engines.gguf.config import GgufConfig
    from engines.protocol import Engine
    from gateway.engine_registry import EngineRegistry, EngineSite


class GgufEnginePlugin:
    """Registers the kind; llama.cpp itself is loaded with the first model."""

    @hookimpl
    def register_engines(self, registry: "EngineRegistry") -> None:
        """Name the kind, its configuration and how to build it."""
        from engines.gguf.config import GgufConfig
        from engines.gguf.environment import ollama_defaults

        registry.add(
            "gguf",
            config=GgufConfig,
            build=_build,
            defaults=lambda table: ollama_defaults(os.environ, table),
        )


def _build(name: str, config: "GgufConfig", site: "EngineSite") -> "Engine":
    if config.isolation == "process":
        from engines.process import EngineSpec, ProcessEngine

        folders = {"models_dir": site.models_dir, "data_dir": site.data_dir}
        return ProcessEngine(
            name, EngineSpec.of("engines.gguf.engine:GgufEngine", config, **folders)
        )
    from engines.gguf.engine import GgufEngine

    return GgufEngine(name, config, models_dir=site.models_dir, data_dir=site.data_dir)
