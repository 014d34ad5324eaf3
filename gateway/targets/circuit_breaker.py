"""Leaves a failing target alone for a while, then lets one call find out whether it is back.

    closed ──(failures in a row)──► open ──(its time is over)──► half open
       ▲                             ▲                               │
       │                             └────(the probe failed)─────────┤
       └──────────────────────(the probe has output)─────────────────┘

What counts is that the target did not answer: it was unavailable, or had no output
in time. A request that is refused, or a full queue, is an answer.

The event loop owns it. Each call gets a ticket when it is let in and hands it back
with its verdict; one of before the last change of state counts for nothing, so calls
that began before a target failed neither keep it open nor close it.
"""

from gateway.policy import BreakerPolicy


class CircuitBreaker:
    """One target's breaker. Times are the caller's clock; its rules come with each failure."""

    __slots__ = ("_failures", "_is_probed", "_open_until", "_period", "_ticket")

    def __init__(self) -> None:
        self._failures = 0  # in a row
        self._open_until: float | None = None
        self._period = 0.0
        self._is_probed = False
        self._ticket: int = 0

    @property
    def failures(self) -> int:
        """How often in a row the target did not answer."""
        return self._failures

    def admits(self, now: float) -> bool:
        """Would `enter` let a call in?"""
        return self._open_until is None or (now >= self._open_until and not self._is_probed)

    def enter(self, now: float) -> int | None:
        """Let a call in, or return None. When half open, only one is, and it is the probe."""
        if self._open_until is not None:
            if now < self._open_until or self._is_probed:
                return None
            self._is_probed = True
        return self._ticket

    def answered(self, ticket: int) -> int:
        """The call has output: it closes a half-open breaker. The ticket to go on with."""
        if ticket != self._ticket or self._open_until is None:
            return ticket
        self._open_until, self._period, self._is_probed = None, 0.0, False
        self._failures = 0
        self._ticket += 1
        return self._ticket

    def completed(self, ticket: int) -> None:
        """The call's answer is whole, or the target has refused it: it is no failure."""
        if ticket == self._ticket and self._open_until is None:
            self._failures = 0

    def failed(
        self, ticket: int, now: float, rules: BreakerPolicy, retry_after: float | None = None
    ) -> bool:
        """The target did not answer. True if that opened the breaker.

        It stays open for as long as the target itself asked for, within the rules.
        """
        if rules.failures == 0:
            self.answered(ticket)
            return False
        if ticket != self._ticket:
            return False
        self._failures += 1
        if self._open_until is None and self._failures < rules.failures:
            return False
        period = self._period * 2 or rules.open_seconds
        self._period = min(max(period, retry_after or 0.0), rules.max_open_seconds)
        self._open_until = now + self._period
        self._is_probed = False
        self._ticket += 1
        return True

    def let_go(self, ticket: int) -> None:
        """The call ended without a verdict; if it was the probe, the next call is."""
        if ticket == self._ticket:
            self._is_probed = False

    def state(self, now: float) -> str:
        """`closed`, `open` or `half_open`."""
        if self._open_until is None:
            return "closed"
        return "open" if now < self._open_until else "half_open"

    def seconds_left(self, now: float) -> float:
        """How long until a call may be let in again, as far as is known."""
        return 0.0 if self._open_until is None else max(0.0, self._open_until - now)
