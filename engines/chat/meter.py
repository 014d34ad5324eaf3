"""Counts what one render of a chat template spends, and ends it when that is too much."""

import time
from typing import Any, cast

from msgspec import Struct

MAX_STEPS = 500_000
MAX_SECONDS = 2.0
MAX_ITEMS = 200_000
"""How much one structure may hold, everything in it counted as often as it appears."""
MAX_DEPTH = 250
"""How deep structures may be nested; the JSON of a request has at most 200 levels."""
_ITEMS_PER_LOOK = 10_000  # measured between two looks at the time


class TemplateTooExpensive(Exception):
    """The template wanted more time or memory than a chat template can need."""


class Size(Struct, frozen=True):
    """How large a structure is; `indents` says by how many levels its items are indented in sum."""

    chars: int
    items: int
    indents: int


class Meter:
    """What one render has spent: steps, characters made, seconds of its thread's time.

    It counts the processor's seconds, not the clock's: a busy machine makes no
    honest template too expensive.
    """

    __slots__ = (
        "_deadline", "_max_chars", "_max_seconds", "_max_steps", "_num_chars", "_num_measured",
        "_num_steps",
    )  # fmt: skip

    def __init__(
        self, *, max_chars: int, max_steps: int = MAX_STEPS, max_seconds: float = MAX_SECONDS
    ) -> None:
        self._max_chars = max_chars
        self._max_steps = max_steps
        self._max_seconds = max_seconds
        self._num_chars = 0
        self._num_steps = 0
        self._num_measured = 0
        self._deadline = time.thread_time() + max_seconds

    def step(self) -> None:
        """Count one thing done: a loop turn, a call, a filter, an operator."""
        self._num_steps += 1
        if self._num_steps > self._max_steps:
            raise TemplateTooExpensive(f"it takes more than {self._max_steps} steps")
        if not self._num_steps & 63:
            self._check_time()

    def make(self, num_chars: int) -> None:
        """Count characters that are about to be made."""
        self._num_chars += num_chars
        if self._num_chars > self._max_chars:
            raise TemplateTooExpensive(f"it makes more than {self._max_chars} characters of text")
        if num_chars > 10_000:
            self._check_time()

    def measure(self, value: object) -> int:
        """Count the characters in `value`, in everything that it holds."""
        if isinstance(value, str):
            return len(value)
        size = self.size(value)
        return size.chars + size.items

    def size(self, value: object) -> Size:
        """Walk through all of `value`. Raises `RecursionError` if that is nested too deeply."""
        num_chars = num_items = indents = depth = 0
        level = [value]
        while level:
            below: list[object] = []
            for item in level:
                if isinstance(item, str):
                    num_chars += len(item)
                    continue
                if isinstance(item, dict):
                    held = cast("dict[Any, Any]", item)
                    below.extend(held.keys())
                    below.extend(held.values())
                elif isinstance(item, list | tuple):
                    below.extend(cast("list[Any]", item))
                if num_items + len(below) > MAX_ITEMS or num_chars > self._max_chars:
                    raise TemplateTooExpensive("it builds a structure that is too large")
            depth += 1
            num_items += len(below)
            indents += depth * len(below)
            if below and depth > MAX_DEPTH:
                raise RecursionError(f"more than {MAX_DEPTH} levels")
            level = below
        self._num_measured += num_items
        if self._num_measured > _ITEMS_PER_LOOK:
            self._num_measured = 0
            self._check_time()
        return Size(num_chars, num_items, indents)

    def _check_time(self) -> None:
        if time.thread_time() > self._deadline:
            raise TemplateTooExpensive(f"it runs for more than {self._max_seconds:g} seconds")
