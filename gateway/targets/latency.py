"""How long a target takes to its first output, as far as matters for the next call.

A peak-sensitive exponentially weighted moving average, as in Finagle's peak EWMA
balancer: a slower answer than expected counts at once and in full, a faster one
with the weight of the time since the last. So a target that becomes slow is left at
once, and one that is fast again is believed slowly. With no answers at all the
average fades, which is how a target that nobody asks gets its next chance.
"""

import math

DECAY_SECONDS = 10.0
# What a running call costs at a target whose time is not known yet: it is asked once,
# and then not again until that is known.
UNKNOWN_SECONDS = 1_000.0


class PeakLatency:
    """One target's average, in seconds. Times are the caller's clock."""

    __slots__ = ("_seconds", "_updated_at")

    def __init__(self) -> None:
        self._seconds: float | None = None
        self._updated_at = 0.0

    def observe(self, seconds: float, now: float) -> None:
        """An answer's first output took this long."""
        known = self._seconds
        if known is None or seconds >= known:
            self._seconds = seconds
        else:
            kept = math.exp(-max(0.0, now - self._updated_at) / DECAY_SECONDS)
            self._seconds = known * kept + seconds * (1 - kept)
        self._updated_at = now

    def observe_at_least(self, seconds: float, now: float) -> None:
        """A call was given up after this long; only bad news is news."""
        if self._seconds is not None and seconds > self._seconds:
            self.observe(seconds, now)

    def seconds(self, now: float) -> float | None:
        """The average of this moment; None before the first answer."""
        if self._seconds is None:
            return None
        return self._seconds * math.exp(-max(0.0, now - self._updated_at) / DECAY_SECONDS)

    def cost(self, in_flight: int, now: float) -> float:
        """What one more call would wait, were all that run now in front of it."""
        seconds = self.seconds(now)
        if seconds is None:
            return UNKNOWN_SECONDS * in_flight
        return seconds * (in_flight + 1)
