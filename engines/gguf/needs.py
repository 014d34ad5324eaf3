"""What loading a model will take: estimated from its file, then as it was measured last time.

What was measured is remembered by file, llama.cpp and configuration, on disk, so
that the second load of a file is planned with true numbers.
"""

import hashlib
import os
from pathlib import Path

import msgspec
import structlog

from engines.gguf import native
from engines.gguf.catalog import Known
from engines.gguf.config import GgufConfig
from engines.gguf.estimate import needs_of, sizes_of
from engines.gguf.file_format import read_file
from engines.gguf.probe import identity
from engines.pool import Need, Room

log = structlog.get_logger()

_MAX_REMEMBERED = 1000


class Needs:
    """Asked before every load. `of` may be called from any thread, the rest from the loop's."""

    def __init__(self, memory: Path | None) -> None:
        self._memory = memory
        self._measured: dict[str, Room] = _remembered(memory) if memory is not None else {}

    def of(self, known: Known, config: GgufConfig, *, gpu_bytes: int) -> list[Need]:
        """The ways to load a model, the best first. Raises `MalformedGguf`, `OSError`."""
        sizes = sizes_of(read_file(known.version.path), known.header, config)
        needs = needs_of(
            sizes,
            config,
            is_embedding_model=known.header.is_embedding_model,
            gpu_bytes=gpu_bytes,
        )
        key = _key(known, config)
        others = sum(path.stat().st_size for path in known.companions)
        return [self._corrected(_with(need, others), key) for need in needs]

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
        self._measured[key] = counted
        while len(self._measured) > _MAX_REMEMBERED:
            del self._measured[next(iter(self._measured))]
        if self._memory is None:
            return
        try:
            self._memory.parent.mkdir(parents=True, exist_ok=True)
            written = self._memory.with_name(f"{self._memory.name}.{os.getpid()}")
            written.write_bytes(msgspec.json.encode(self._measured))
            written.replace(self._memory)
        except OSError as error:
            log.warning("memory_not_remembered", path=str(self._memory), error=str(error))


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


def _remembered(memory: Path) -> dict[str, Room]:
    try:
        return msgspec.json.decode(memory.read_bytes(), type=dict[str, Room])
    except (OSError, msgspec.MsgspecError):
        return {}
