"""What loading a model will take: estimated from its file, then as it was measured last time.

What was measured is remembered by file, llama.cpp and configuration, on disk, so
that the second load of a file is planned with true numbers.
"""

import hashlib
from pathlib import Path

import structlog

from engines.gguf import native
from engines.gguf.catalog import Known
from engines.gguf.config import GgufConfig
from engines.gguf.estimate import needs_of, sizes_of
from engines.gguf.file_format import read_file
from engines.gguf.probe import identity
from engines.gguf.remembered import Remembered
from engines.pool import Need, Room

log = structlog.get_logger()


class Needs:
    """Asked before every load. `of` may be called from any thread, `measured` from the loop's."""

    def __init__(self, memory: Path | None) -> None:
        self._measured = Remembered(memory, Room, event="memory_not_remembered")
        # What was said last of each file, and on what grounds: all who wait for a load ask.
        self._said: dict[Path, tuple[object, list[Need]]] = {}

    def of(self, known: Known, config: GgufConfig, *, gpu_bytes: int) -> list[Need]:
        """The ways to load a model, the best first. Raises `MalformedGguf`, `OSError`."""
        path, grounds = known.version.path, (known.version, config, gpu_bytes)
        said = self._said.get(path)
        if said is not None and said[0] == grounds:
            return said[1]
        sizes = sizes_of(read_file(path), known.header, config)
        needs = needs_of(
            sizes,
            config,
            is_embedding_model=known.header.is_embedding_model,
            gpu_bytes=gpu_bytes,
        )
        key = _key(known, config)
        others = sum(other.stat().st_size for other in known.companions)
        needs = [self._corrected(_with(need, others), key) for need in needs]
        self._said[path] = (grounds, needs)
        return needs

    def _corrected(self, need: Need, key: str) -> Need:
        room = self._measured.get(f"{key}-{need.gpu_layers}")
        return need if room is None else Need(room, need.gpu_layers)

    def measured(self, known: Known, config: GgufConfig, need: Need, room: Room) -> None:
        """Remember what a model took that was loaded in this way."""
        key = f"{_key(known, config)}-{need.gpu_layers}"
        counted = Room(room.main_bytes, room.gpu_bytes, 1)
        if self._measured.get(key) == counted:
            return
        log.debug("model_measured", model=known.version.name, expected=need.room, measured=counted)
        self._measured.put(key, counted)
        self._said.pop(known.version.path, None)


def _with(need: Need, size_bytes: int) -> Need:
    """The same with what is loaded beside the weights."""
    room = need.room
    more = Room(room.main_bytes + size_bytes, room.gpu_bytes, room.num_models)
    return Need(more, need.gpu_layers)


def _key(known: Known, config: GgufConfig) -> str:
    told = (
        identity(known.version.path, *known.companions, use_extra_buffers=config.use_extra_buffers),
        config.num_slots,
        config.context_tokens,
        config.cache,
        config.max_exact_cache_bytes,
        config.pool_tokens,
        config.max_batch_tokens,
        config.max_embed_tokens,
        config.cache_type_k,
        config.cache_type_v,
        config.flash_attention,
        config.mmap,
        native.version(),
    )
    return hashlib.sha256(repr(told).encode()).hexdigest()
