"""Counts who waits for a slot of one model, and refuses those for whom the wait is too long.

Lives on the event loop, so that a full line answers at once, whatever the step
thread is busy with.
"""

from engines.errors import EngineOverloaded

_SMOOTHING = 0.1


class WaitingLine:
    """Requests handed to the step thread and not admitted yet."""

    def __init__(self, num_slots: int, max_waiting: int) -> None:
        self.num_waiting = 0
        self._num_slots = num_slots
        self._max_waiting = max_waiting
        self._seconds_each = 0.0  # that a request held its slot, lately

    def join(self, *, num_running: int) -> "PlaceInLine":
        """Count one more until its place is left. Raises `EngineOverloaded` for a full line."""
        if self.num_waiting >= self._max_waiting and num_running >= self._num_slots:
            raise EngineOverloaded(
                f"{self.num_waiting} requests are waiting for this model",
                retry_after=self.retry_after(),
            )
        self.num_waiting += 1
        return PlaceInLine(self)

    def served(self, seconds: float) -> None:
        """Note how long a request that ended held its slot."""
        last = self._seconds_each
        self._seconds_each = (1 - _SMOOTHING) * last + _SMOOTHING * seconds if last else seconds

    def retry_after(self) -> float | None:
        """Seconds until the line will be half as long, at the pace of late; None if unknown."""
        if not self._seconds_each:
            return None
        return max(1.0, self.num_waiting / 2 * self._seconds_each / self._num_slots)


class PlaceInLine:
    """One who is counted as waiting."""

    def __init__(self, line: WaitingLine) -> None:
        self._line: WaitingLine | None = line

    def leave(self) -> None:
        """Be admitted, or give up; idempotent."""
        if self._line is not None:
            self._line.num_waiting -= 1
            self._line = None
