"""What slots held, kept in ordinary memory after their room was needed or their model unloaded.

A prompt that begins like one of them is not computed again: its state is copied
back into a slot. Nothing is written to disk, because a saved cache is the text
of somebody's conversation and llama.cpp trusts the bytes that it restores (decision 0047).

A cache is found again only by the very model it was computed by: the same
version of the file, loaded in the same way, with its KV cache in the same types.
Within that, prompts share only within one `cache_salt`, as they do among slots.
"""

import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from engines.gguf.image_tokens import whole_images
from engines.gguf.slots import MIN_COPIED_TOKENS, common_prefix


@dataclass(frozen=True, eq=False)
class SavedCache:
    """The state of one slot; `state` is llama.cpp's own bytes, as an object with a length."""

    model: Hashable
    salt: str
    tokens: list[int]  # at least `MIN_COPIED_TOKENS`
    state: Any


class Found(NamedTuple):
    """A saved cache and how many of its first tokens a prompt shares."""

    cache: SavedCache
    num_tokens: int


class SavedCaches:
    """All saved caches of one engine, the least recently wanted going first; any thread may call.

    Always: the states together take at most `max_bytes`.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self._caches: OrderedDict[int, SavedCache] = OrderedDict()  # by identity, oldest first
        self._lock = threading.Lock()

    def of(self, model: Hashable) -> "ModelCaches":
        """Those of one model, for its step thread."""
        return ModelCaches(self, model)

    def find(
        self, model: Hashable, tokens: Sequence[int], salt: str, *, whole: bool
    ) -> Found | None:
        """The one that shares most with a prompt; with `whole`, only one that is all prefix."""
        best: Found | None = None
        with self._lock:
            for cache in self._beginning_alike(model, tokens, salt):
                # The last token is never cached: there would be no logits to sample from.
                length = min(common_prefix(cache.tokens, tokens), len(tokens) - 1)
                length = whole_images(tokens, length)
                if whole and length < len(cache.tokens):
                    continue
                if length and (best is None or length > best.num_tokens):
                    best = Found(cache, length)
        return best

    def holds(self, model: Hashable, tokens: Sequence[int], salt: str) -> bool:
        """Whether one begins with all of these tokens."""
        with self._lock:
            return any(
                common_prefix(cache.tokens, tokens) == len(tokens)
                for cache in self._beginning_alike(model, tokens, salt)
            )

    def add(self, cache: SavedCache) -> None:
        """Keep one, in the place of those that it goes on from; too large a one is not kept."""
        size = len(cache.state)
        with self._lock:
            for other in self._beginning_alike(cache.model, cache.tokens, cache.salt):
                if common_prefix(other.tokens, cache.tokens) == len(other.tokens):
                    self._remove(other)
            if size > self.max_bytes:
                return
            while self.used_bytes + size > self.max_bytes:
                self._remove(next(iter(self._caches.values())))
            self._caches[id(cache)] = cache
            self.used_bytes += size

    def used(self, found: Found) -> None:
        """Note that one was restored: it goes where most of it lives in a slot now."""
        with self._lock:
            if id(found.cache) not in self._caches:
                return
            if 2 * found.num_tokens >= len(found.cache.tokens):
                self._remove(found.cache)
            else:
                self._caches.move_to_end(id(found.cache))

    def discard(self, cache: SavedCache) -> None:
        """Forget one; idempotent."""
        with self._lock:
            if id(cache) in self._caches:
                self._remove(cache)

    def close(self) -> None:
        """Forget all, and keep none from now on."""
        with self._lock:
            self.max_bytes = -1
            self._caches.clear()
            self.used_bytes = 0

    def _beginning_alike(
        self, model: Hashable, tokens: Sequence[int], salt: str
    ) -> list[SavedCache]:
        # Most begin otherwise, and that shows at once.
        head = list(tokens[:MIN_COPIED_TOKENS])
        return [
            cache
            for cache in self._caches.values()
            if cache.salt == salt
            and cache.tokens[:MIN_COPIED_TOKENS] == head
            and cache.model == model
        ]

    def _remove(self, cache: SavedCache) -> None:
        del self._caches[id(cache)]
        self.used_bytes -= len(cache.state)


class ModelCaches:
    """The saved caches of one model as it is loaded now."""

    def __init__(self, saved: SavedCaches, model: Hashable) -> None:
        self._saved = saved
        self._model = model

    def wants(self, tokens: Sequence[int], salt: str) -> bool:
        """Whether it is worth to keep a slot of these: not if all of it is kept already."""
        if len(tokens) < MIN_COPIED_TOKENS or self._saved.max_bytes <= 0:
            return False
        return not self._saved.holds(self._model, tokens, salt)

    @property
    def max_bytes(self) -> int:
        """The largest state that can be kept."""
        return self._saved.max_bytes

    def add(self, tokens: Sequence[int], salt: str, state: Any) -> None:
        """Keep the state of a slot that holds these tokens."""
        self._saved.add(SavedCache(self._model, salt, list(tokens), state))

    def find(self, tokens: Sequence[int], salt: str, *, whole: bool) -> Found | None:
        """See `SavedCaches.find`."""
        return self._saved.find(self._model, tokens, salt, whole=whole)

    def used(self, found: Found) -> None:
        """See `SavedCaches.used`."""
        self._saved.used(found)

    def discard(self, found: Found) -> None:
        """Forget one that could not be restored."""
        self._saved.discard(found.cache)
