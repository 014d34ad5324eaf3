"""Counts what one render of a chat template spends, and ends it when that is too much."""

import time
from typing import Any, cast

MAX_STEPS = 500_000
MAX_SECONDS = 2.0
MAX_ITEMS = 200_000
"""How much one structure may hold, everything in it counted as often as it appears."""


class TemplateTooExpensive(Exception):
    """The template wanted more time or memory than a chat template can need."""


class Meter:
    """What one render has spent: steps, characters made, seconds of its thread's time.

    It counts the processor's seconds, not the clock's: a busy machine makes no
    honest template too expensive.
    """

    __slots__ = ("_deadline", "_max_chars", "_max_steps", "_num_chars", "_num_steps")

    def __init__(self, *, max_chars: int, max_steps: int = MAX_STEPS) -> None:
        self._max_chars = max_chars
        self._max_steps = max_steps
        self._num_chars = 0
        self._num_steps = 0
        self._deadline = time.thread_time() + MAX_SECONDS

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
        num_chars = num_items = 0
        waiting = [value]
        while waiting:
            item = waiting.pop()
            if isinstance(item, str):
                num_chars += len(item)
            elif isinstance(item, dict):
                held = cast("dict[Any, Any]", item)
                num_items += 2 * len(held)
                waiting.extend(held.keys())
                waiting.extend(held.values())
            elif isinstance(item, list | tuple):
                held = cast("list[Any]", item)
                num_items += len(held)
                waiting.extend(held)
            if num_items > MAX_ITEMS or num_chars > self._max_chars:
                raise TemplateTooExpensive("it builds a structure that is too large")
        return num_chars + num_items

    def _check_time(self) -> None:
        if time.thread_time() > self._deadline:
            raise TemplateTooExpensive(f"it runs for more than {MAX_SECONDS:g} seconds")
