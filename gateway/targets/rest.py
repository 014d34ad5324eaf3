"""How long a target that said that it is overloaded is better not asked.

Its `Retry-After` is for everybody who would ask, not only for the call that was refused. A rest
is no breaker: whoever rests is asked last, and is asked all the same when nobody else is
left. Only the words of another server begin one; see `engines.errors.EngineOverloaded`.
"""

MAX_REST_SECONDS = 60.0  # a longer one would outlast what it was said about
UNTOLD_SECONDS = 1.0  # the rest of a target that does not say how long


class Rest:
    """One target's rest. The event loop owns it; times are the caller's clock."""

    __slots__ = ("_number", "_until")

    def __init__(self) -> None:
        self._until = 0.0
        self._number = 0

    @property
    def number(self) -> int:
        """Which of the target's rests is or was the last; for `answered`."""
        return self._number

    def begin(self, now: float, retry_after: float | None) -> bool:
        """The target is overloaded. True if it did not rest before; else it may rest longer."""
        seconds = UNTOLD_SECONDS if retry_after is None else min(retry_after, MAX_REST_SECONDS)
        was_resting = self.seconds_left(now) > 0
        self._until = max(self._until, now + seconds)
        if was_resting or seconds <= 0:
            return False
        self._number += 1
        return True

    def answered(self, number: int, now: float) -> bool:
        """A call has output that began after rest `number` had: True if that ends the rest.

        Calls from before it prove nothing: they were under way when the target was full.
        """
        if number != self._number or not self.seconds_left(now):
            return False
        self._until = now
        return True

    def seconds_left(self, now: float) -> float:
        """How long it still rests; 0 when it does not."""
        return max(0.0, self._until - now)
