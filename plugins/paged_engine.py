"""Brings the engine kind `paged`: continuous batching over a paged KV cache, for GPUs."""

from typing import TYPE_CHECKING

from engines.errors import Unavailable
from gateway import hookimpl

if TYPE_CHECKING:
    from engines.paged.config import PagedConfig
    from engines.protocol import Engine
    from gateway.engine_registry import EngineRegistry, EngineSite


class PagedEnginePlugin:
    """Registers the kind; torch is imported when the first engine is built."""

    @hookimpl
    def register_engines(self, registry: "EngineRegistry") -> None:
        """Name the kind, its configuration and how to build it."""
        from engines.paged.config import PagedConfig

        registry.add("paged", config=PagedConfig, build=_build)


def _build(name: str, config: "PagedConfig", site: "EngineSite") -> "Engine":
    if config.isolation == "process":
        from engines.process import EngineSpec, ProcessEngine

        factory = "engines.paged.engine:PagedEngine"
        return ProcessEngine(name, EngineSpec.of(factory, config, models_dir=site.models_dir))
    try:
        from engines.paged.engine import PagedEngine
    except ModuleNotFoundError as error:
        raise Unavailable(
            f'kind "paged" needs {error.name}, which is not installed: '
            "`pip install 'penstock[paged]'` brings it"
        ) from error
    return PagedEngine(name, config, models_dir=site.models_dir)
