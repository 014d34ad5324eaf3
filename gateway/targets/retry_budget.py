"""How much extra load a model's targets may get from second attempts.

Without a bound, retries turn an overload into an outage: when half of the attempts
fail, each call makes two, and the targets that are left get twice the load. So each
request pays in a share of an attempt, and each further attempt takes out a whole one.

Over any number of requests the further attempts are at most `percent` of them, and
`RESERVE`; the reserve lets a model that is asked once a minute retry at all. What
quiet hours save up ends at `MOST`, enough for the queue of an engine that dies.
"""

RESERVE = 10.0
MOST = 500.0


class RetryBudget:
    """One model's budget. The event loop owns it; it outlives reloads of the policy."""

    __slots__ = ("_left", "num_extra", "num_requests")

    def __init__(self) -> None:
        self._left = RESERVE
        self.num_requests = 0
        self.num_extra = 0

    @property
    def left(self) -> float:
        """Further attempts that could be made now."""
        return self._left

    def pay_in(self, percent: float) -> None:
        """A request has come."""
        self.num_requests += 1
        self._left = min(MOST, self._left + percent / 100)

    def has_left(self, percent: float) -> bool:
        """Would `take` succeed?"""
        return percent > 0 and self._left >= 1

    def take(self, percent: float) -> bool:
        """Take out one further attempt, or change nothing and return False."""
        if not self.has_left(percent):
            return False
        self._left -= 1
        self.num_extra += 1
        return True
