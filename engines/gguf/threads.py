"""Finds out how many threads compute a step fastest, while it computes.

llama.cpp's threads meet at a barrier some hundred times a step and wait there
spinning. With a core for each that is fast; when something else wants a core
too, every barrier waits for the thread that was put aside, and two threads can
be twenty times slower than one (measured on a loaded 2-core machine). What is
best depends on the model, the batch and the neighbours, so it is measured:
now and then a step is computed with half or twice as many threads, and the
faster number is kept. Trying may cost a fiftieth of the time, no more.

The number of threads does not change what is computed, to the last bit.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from engines.gguf.config import GgufConfig

TRY_SHARE = 0.02  # of the time, that may be lost by trying
_FORGET = 0.3  # the share of a new measurement in what is believed
# Guesses of how much slower another number is, before it was tried: as others left the
# cores free at the start, or took them.
_FREE, _CROWDED = 1.5, 100.0
_BUCKETS = (1, 4, 16, 64)  # rows: steps of about one size are compared with each other


@dataclass
class _Bucket:
    best: int  # index into the choices
    seconds: dict[int, float] = field(default_factory=dict)  # for a row, by index
    budget: float = 0.0  # seconds that trying may still cost
    tries_up: bool = False


class ThreadTuner:
    """Chooses the number of threads for each step; owned by the step thread."""

    def __init__(
        self,
        max_threads: int,
        *,
        start: int | None = None,
        load: Callable[[], float] = lambda: 1000.0,
    ) -> None:
        """Begin with `start` threads, or the nearest number below it that is a choice.

        `load` is the system's now, this model's own threads included: when others have left,
        what was slow in their company is worth another try.
        """
        self._load = load
        self._choices = _choices(max_threads)
        below = [index for index, number in enumerate(self._choices) if number <= (start or 1)]
        first = below[-1] if start is not None else len(self._choices) - 1
        self._buckets = [_Bucket(first) for _ in range(len(_BUCKETS) + 1)]
        # How much slower than the best, when last tried; at first, a guess.
        self._ratios = {
            index: _CROWDED if number > (start or max_threads) else _FREE
            for index, number in enumerate(self._choices)
        }
        self._tried: int | None = None

    def choose(self, num_rows: int) -> int:
        """Threads for a step of so many rows."""
        bucket = self._bucket(num_rows)
        self._tried = self._next_try(bucket, num_rows)
        return self._choices[bucket.best if self._tried is None else self._tried]

    def measured(self, num_rows: int, seconds: float) -> None:
        """Note how long the step took that was chosen for last."""
        bucket = self._bucket(num_rows)
        each = seconds / num_rows
        if self._tried is None:
            last = bucket.seconds.get(bucket.best, each)
            bucket.seconds[bucket.best] = last + _FORGET * (each - last)
            bucket.budget += TRY_SHARE * seconds
        else:
            best = bucket.seconds[bucket.best]
            bucket.seconds[self._tried] = each
            bucket.budget -= max(0.0, each - best) * num_rows
            self._ratios[self._tried] = each / best
        bucket.best = min(bucket.seconds, key=lambda index: bucket.seconds[index])

    def _next_try(self, bucket: _Bucket, num_rows: int) -> int | None:
        """Half or twice the best number, in turns, if the budget has the price; or None."""
        if bucket.best not in bucket.seconds:
            return None
        step = 1 if bucket.tries_up else -1
        for index in (bucket.best + step, bucket.best - step):
            if not 0 <= index < len(self._choices):
                continue
            best = bucket.seconds[bucket.best]
            expected = bucket.seconds.get(index, best * self._ratios[index])
            others = max(0.0, self._load() - self._choices[bucket.best])
            if idle_cores(self._choices[-1], others) >= self._choices[index]:
                expected = min(expected, best * _FREE)
            # Even a number that seemed as fast costs something to try: it may be so no longer.
            price = max(expected - best, 0.5 * best) * num_rows
            if bucket.budget >= price:
                bucket.tries_up = not bucket.tries_up
                return index
        return None

    def _bucket(self, num_rows: int) -> _Bucket:
        return self._buckets[sum(num_rows > edge for edge in _BUCKETS)]


class FixedThreads:
    """A `ThreadTuner` that was told."""

    def __init__(self, num_threads: int) -> None:
        self._num_threads = num_threads

    def choose(self, num_rows: int) -> int:
        """The same number for every step."""
        return self._num_threads

    def measured(self, num_rows: int, seconds: float) -> None:
        """Nothing is learned."""


Threads = ThreadTuner | FixedThreads


def threads_for(config: GgufConfig) -> Threads:
    """What decides how many threads compute a step."""
    if config.num_threads is not None:
        return FixedThreads(config.num_threads)
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    return ThreadTuner(cores, start=idle_cores(cores, load), load=lambda: os.getloadavg()[0])


def idle_cores(num_cores: int, load: float) -> int:
    """Cores that others leave free, at least one; `load` is the system's load average."""
    return max(1, num_cores - round(load))


def _choices(max_threads: int) -> list[int]:
    """The number itself and its halves, rising."""
    choices = [max_threads]
    while choices[-1] > 1:
        choices.append(choices[-1] // 2)
    return choices[::-1]
