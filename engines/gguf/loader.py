"""Loads models for the pool: says what each takes, has it probed, and opens it.

Lives on the event loop; what blocks runs beside it.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from engines.errors import Unavailable
from engines.gguf import native
from engines.gguf.byte_reader import MalformedGguf
from engines.gguf.catalog import Catalog, Known
from engines.gguf.config import GgufConfig
from engines.gguf.loaded_model import HowToLoad, LoadedModel
from engines.gguf.machine_memory import available_bytes, total_bytes
from engines.gguf.needs import Needs
from engines.gguf.probe import Companions, Probe
from engines.gguf.runner import POOLINGS
from engines.gguf.saved_caches import SavedCaches
from engines.metrics import ModelRecorder
from engines.pool import ENDLESS, Budget, Need, Room

_SHARE = 0.8  # of the machine's memory, for models; the rest is for everything else
# A driver wants some for itself, and what is estimated is not exact.
_GPU_SHARE = 0.92


class Loader:
    """Opens the models of one engine and keeps what outlives a loaded model."""

    def __init__(self, catalog: Catalog, config: GgufConfig, folder: Path | None) -> None:
        """`folder` is where is remembered what was learned of files."""
        self._catalog = catalog
        self._config = config
        self._probe = Probe(folder / "probes.json" if folder else None)
        self._needs = Needs(folder / "memory.json" if folder else None)
        self.recorders: dict[str, ModelRecorder] = {}  # of every model that was ever loaded
        self._saved = SavedCaches(config.max_saved_bytes)
        self.loading: dict[str, float] = {}  # how far each load under way is, 0 to 1
        self.num_loads = 0  # models opened so far, for tests

    def close(self) -> None:
        """Forget what unloaded models had computed; those that close from now on save nothing."""
        self._saved.close()

    def budget(self) -> Budget:
        """How much all models may take together."""
        config = self._config
        return Budget(
            total=Room(
                config.max_memory_bytes or int(total_bytes() * _SHARE),
                config.max_gpu_memory_bytes or ENDLESS.gpu_bytes,
                config.max_loaded_models or ENDLESS.num_models,
            ),
            free=_free,
        )

    def config_of(self, name: str) -> GgufConfig:
        """What the policy says of one model."""
        return self._config.for_model(name)

    async def needs(self, name: str) -> Sequence[Need]:
        """The ways to load a model, the best first. Raises why it can be loaded in none."""
        return await asyncio.to_thread(self._needs_of, name)

    def _needs_of(self, name: str) -> Sequence[Need]:
        known = self._catalog.look_up(name)
        _, gpu_bytes = native.gpu_memory()
        most = self._config.max_gpu_memory_bytes or int(gpu_bytes * _GPU_SHARE)
        try:
            return self._needs.of(known, self._configured(known), gpu_bytes=min(gpu_bytes, most))
        except (MalformedGguf, OSError) as error:  # it has changed since it was looked up
            raise Unavailable(f"model {name!r} cannot be loaded: {error}") from error

    def _configured(self, known: Known) -> GgufConfig:
        return known.recipe.configured(self.config_of(known.version.name))

    async def open(self, name: str, need: Need) -> LoadedModel:
        """Load a model: what `Pool` calls when one is wanted."""
        self.loading[name] = 0.0
        try:
            return await self._probed_and_loaded(name, need)
        finally:
            del self.loading[name]

    async def _probed_and_loaded(self, name: str, need: Need) -> LoadedModel:
        def progressed(done: float) -> None:  # on the model's thread
            if name in self.loading:  # a load that was given up goes on for a moment
                self.loading[name] = done

        known = await asyncio.to_thread(self._catalog.look_up, name)
        recorder = self._recorder(name)  # what fails is counted, too
        version, header, recipe = known.version, known.header, known.recipe
        pooling = header.pooling_type if header.pooling_type in POOLINGS else "mean"
        use_extra_buffers = self._config.use_extra_buffers
        if self._config.probe:
            use_extra_buffers = await self._probe(
                version.path,
                use_extra_buffers=use_extra_buffers,
                pooling=pooling if header.is_embedding_model else None,
                companions=Companions(
                    adapters=tuple(str(adapter.path) for adapter in known.adapters),
                    projector=str(known.projector) if known.projector else None,
                ),
            )
        how = HowToLoad(
            use_extra_buffers=use_extra_buffers is not False,
            is_embedding_model=header.is_embedding_model,
            pooling=pooling,
            on_progress=progressed,
            recipe=recipe,
            adapters=known.adapters,
            projector=known.projector,
            template=known.template,
            gpu_layers=need.gpu_layers,
            version=version,
            saved=self._saved,
        )
        config = self._configured(known)
        model = await LoadedModel.open(name, version.path, config, how, recorder)
        self._needs.measured(known, config, need, model.room)
        self.num_loads += 1
        return model

    def _recorder(self, name: str) -> ModelRecorder:
        if name not in self.recorders:
            context_tokens = self._catalog.look_up(name).info.context_tokens
            self.recorders[name] = ModelRecorder(context_tokens=context_tokens)
        return self.recorders[name]


def _free() -> Room:
    gpu_bytes, _ = native.gpu_memory()
    return Room(available_bytes(), gpu_bytes, ENDLESS.num_models)
