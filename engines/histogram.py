"""Values by size, counted. Nothing is locked: one thread counts, anybody may look."""

from bisect import bisect_left
from collections.abc import Sequence

from msgspec import Struct


class Buckets(Struct, frozen=True):
    """A histogram as it was at one moment; `counts` has one more than `bounds`, for the rest."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]  # of this bucket alone, not of those below it
    sum: float

    @property
    def count(self) -> int:
        """How many values were seen."""
        return sum(self.counts)


class Histogram:
    """Counts values by size; see `Buckets`."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(map(float, bounds))
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count a value that was seen so many times."""
        self._counts[bisect_left(self._bounds, value)] += times
        self._sum += value * times

    def snapshot(self) -> Buckets:
        """How it is now."""
        return Buckets(self._bounds, tuple(self._counts), self._sum)


def length_bounds(longest: int) -> tuple[float, ...]:
    """1, 2, 5, 10, 20, 50, … up to `longest`, as vLLM divides lengths."""
    steps = (digit * 10**power for power in range(10) for digit in (1, 2, 5))
    return tuple(float(step) for step in steps if step <= longest)
