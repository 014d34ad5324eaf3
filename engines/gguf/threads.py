"""Finds out how many threads compute a step fastest, while it computes.

llama.cpp's threads meet at a barrier some hundred times a step and wait there
spinning. With a core for each that is fast; when something else wants a core
too, every barrier waits for the thread that was put aside. What is best depends
on the model, the batch and the neighbours, so it is measured: steps begin with
a thread for each core (core_threads.py bounds what that can cost), every smaller
number is tried once as soon as the cores are wanted by others, and now and then
a step is computed with half or twice as many threads. Those later tries may cost a
hundredth of the time, no more. The number changes when several steps in a row were
clearly faster on another one: single steps differ by more than numbers do.

The number of threads does not change what is computed, to the last bit.
"""

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median_low

from engines.gguf.config import GgufConfig
from engines.gguf.cores import usable_cores

TRY_SHARE = 0.01  # of the time, that may be lost by trying
_CLEARLY = 0.9  # of the time of the best: what takes less is faster
_IN_A_ROW = 3  # steps that say something: fewer may be an accident
_RECENT = 5  # steps, whose median is believed: a single slow one says nothing
_GUESS = 1.5  # how much slower another number is, before it was tried or when cores are free
_BUCKETS = (1, 4, 16, 64)  # rows: steps of about one size are compared with each other
_LOAD = Path("/proc/loadavg")


@dataclass
class _Bucket:
    best: int  # index into the choices
    seconds: dict[int, float] = field(default_factory=dict)  # for a row, by index
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))  # of the best
    budget: float = 0.0  # seconds that trying may still cost
    tries_up: bool = False
    winner: int | None = None  # index of what was clearly faster when last tried
    num_won: int = 0  # its steps in a row that were


class ThreadTuner:
    """Chooses the number of threads for each step; owned by the step thread."""

    def __init__(self, max_threads: int, *, idle_cores: Callable[[], int] = lambda: 0) -> None:
        """`idle_cores` are those that others leave free now, for this model's threads."""
        self._idle_cores = idle_cores
        self._choices = _choices(max_threads)
        most = len(self._choices) - 1
        self._buckets = [_Bucket(most) for _ in range(len(_BUCKETS) + 1)]
        # How much slower than the best, when last tried; at first, a guess.
        self._ratios = dict.fromkeys(range(len(self._choices)), _GUESS)
        self._tried: int | None = None

    def choose(self, num_rows: int, *, may_try: bool = True) -> int:
        """Threads for a step of so many rows; one that others wait for is no step to try with."""
        bucket = self._bucket(num_rows)
        self._tried = self._next_try(bucket, num_rows) if may_try else None
        return self._choices[bucket.best if self._tried is None else self._tried]

    def measured(self, num_rows: int, seconds: float) -> None:
        """Note how long the step took that was chosen for last."""
        bucket = self._bucket(num_rows)
        each = seconds / num_rows
        if self._tried is None:
            bucket.recent.append(each)
            bucket.seconds[bucket.best] = median_low(bucket.recent)
            bucket.budget += TRY_SHARE * seconds
            return
        best = bucket.seconds[bucket.best]
        is_known = self._tried in bucket.seconds
        if is_known:  # the first time is not counted: see `_next_try`
            bucket.budget -= max(0.0, each - best) * num_rows
        bucket.seconds[self._tried] = each
        self._ratios[self._tried] = each / best
        if each >= _CLEARLY * best:
            bucket.winner = None
            return
        bucket.num_won = bucket.num_won + 1 if bucket.winner == self._tried else 1
        bucket.winner = self._tried
        if not is_known or bucket.num_won >= _IN_A_ROW:
            bucket.best, bucket.winner = self._tried, None
            bucket.recent.clear()
            bucket.recent.append(each)

    def _next_try(self, bucket: _Bucket, num_rows: int) -> int | None:
        """A number that was clearly faster than the best is now; one never tried, when cores are
        wanted; or half or twice the best, in turns, if the budget has the price; or None."""
        best = bucket.seconds.get(bucket.best)
        if best is None or len(bucket.recent) < _IN_A_ROW:  # the first steps of all are slow
            return None
        fastest = min(bucket.seconds, key=lambda index: bucket.seconds[index])
        if bucket.seconds[fastest] < _CLEARLY * best:
            # In turns with the best, so that both are measured while the machine is the same.
            return fastest if self._tried is None else None
        bucket.winner = None
        untried = [index for index in range(bucket.best) if index not in bucket.seconds]
        # Even a number that seemed as fast costs something to try: it may be so no longer.
        cheapest = (_GUESS - 1.0) * best * num_rows
        if not untried and bucket.budget < cheapest:
            return None
        idle_cores = self._idle_cores()
        if untried and idle_cores < self._choices[bucket.best]:
            return untried[-1]
        step = 1 if bucket.tries_up else -1
        for index in (bucket.best + step, bucket.best - step):
            if not 0 <= index < len(self._choices):
                continue
            expected = bucket.seconds.get(index, best * self._ratios[index])
            if idle_cores >= self._choices[index]:
                expected = min(expected, _GUESS * best)
            if bucket.budget >= max((expected - best) * num_rows, cheapest):
                bucket.tries_up = not bucket.tries_up
                return index
        return None

    def _bucket(self, num_rows: int) -> _Bucket:
        return self._buckets[sum(num_rows > edge for edge in _BUCKETS)]


class FixedThreads:
    """A `ThreadTuner` that was told."""

    def __init__(self, num_threads: int) -> None:
        self._num_threads = num_threads

    def choose(self, num_rows: int, *, may_try: bool = True) -> int:
        """The same number for every step."""
        return self._num_threads

    def measured(self, num_rows: int, seconds: float) -> None:
        """Nothing is learned."""


Threads = ThreadTuner | FixedThreads


def threads_for(config: GgufConfig) -> Threads:
    """What decides how many threads compute a step."""
    if config.num_threads is not None:
        return FixedThreads(config.num_threads)
    return ThreadTuner(len(usable_cores()), idle_cores=idle_cores)


def idle_cores() -> int:
    """Cores of the machine for which no thread but the one that asks has work, now."""
    try:
        runnable = runnable_threads(_LOAD.read_text())
    except OSError:  # no Linux
        runnable = round(os.getloadavg()[0])
    return (os.cpu_count() or 1) - max(0, runnable - 1)


def runnable_threads(text: str) -> int:
    """How many threads compute or could, as /proc/loadavg says it.

    Its averages are no use here: after a busy minute the first says for another that a machine is
    busy whose cores are all free.
    """
    return int(text.split()[3].partition("/")[0])


def _choices(max_threads: int) -> list[int]:
    """The number itself and its halves, rising."""
    choices = [max_threads]
    while choices[-1] > 1:
        choices.append(choices[-1] // 2)
    return choices[::-1]
