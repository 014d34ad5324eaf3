"""A target's breaker, and one for each caller whose own requests may be why the target failed.

A 500, or an answer that cannot be read, is the target's failure or the request's: nobody
here can tell. So such failures of one caller alone close the target to that caller only.
Others go on; once one of them fails there too, with nothing answered in between, it is
the target. docs/decisions/0066 has the reasons.
"""

from collections.abc import Hashable
from typing import NamedTuple

from gateway.policy import BreakerPolicy
from gateway.targets.circuit_breaker import CircuitBreaker

MAX_CALLERS = 256  # whose failures are remembered; the oldest are forgotten first


class Ticket(NamedTuple):
    """A call's place: what both breakers gave it, and whose it is."""

    shared: int
    own: int
    caller: Hashable


class TargetBreaker:
    """The same as a `CircuitBreaker`, for calls that are somebody's. The event loop owns it."""

    __slots__ = ("_num_doubtful", "_own", "_shared", "_suspect")

    def __init__(self) -> None:
        self._shared = CircuitBreaker()
        self._own: dict[Hashable, CircuitBreaker] = {}
        # Doubtful failures since the last answer, not counted while they are one caller's.
        self._suspect: Hashable = None
        self._num_doubtful = 0

    @property
    def failures(self) -> int:
        """How often in a row the target did not answer, whosever fault it was."""
        return self._shared.failures + self._num_doubtful

    def admits(self, now: float, caller: Hashable = None) -> bool:
        """Would `enter` let a call in?"""
        own = self._own.get(caller) if self._own else None
        return self._shared.admits(now) and (own is None or own.admits(now))

    def enter(self, now: float, caller: Hashable = None) -> Ticket | None:
        """Let a call in, or return None."""
        if not self.admits(now, caller):
            return None
        shared = self._shared.enter(now)
        assert shared is not None
        own = self._own[caller].enter(now) if caller in self._own else 0
        assert own is not None
        return Ticket(shared, own, caller)

    def answered(self, ticket: Ticket) -> Ticket:
        """The call has output: it closes what was half open. The ticket to go on with."""
        shared = self._shared.answered(ticket.shared)
        if shared != ticket.shared:
            self._forget_doubts()
        own = self._own.get(ticket.caller)
        if own is None:
            return ticket if shared == ticket.shared else ticket._replace(shared=shared)
        return ticket._replace(shared=shared, own=own.answered(ticket.own))

    def completed(self, ticket: Ticket) -> None:
        """The call's answer is whole, or the target has refused it: it is no failure."""
        self._shared.completed(ticket.shared)
        if not self._shared.failures:
            self._forget_doubts()
        if (own := self._own.get(ticket.caller)) is not None:
            own.completed(ticket.own)
            if not own.failures:
                del self._own[ticket.caller]

    def failed(
        self,
        ticket: Ticket,
        now: float,
        rules: BreakerPolicy,
        retry_after: float | None = None,
        *,
        is_doubtful: bool = False,
    ) -> bool:
        """The target did not answer. True if that opened the breaker, be it to one caller.

        `is_doubtful`: it may have been the request's doing.
        """
        if not is_doubtful or rules.failures == 0:
            return self._shared.failed(ticket.shared, now, rules, retry_after)
        opened = self._own_breaker(ticket.caller).failed(ticket.own, now, rules, retry_after)
        if self._suspect in (None, ticket.caller):
            self._suspect = ticket.caller
            self._num_doubtful = min(self._num_doubtful + 1, rules.failures)
            self._shared.let_go(ticket.shared)  # if it was the probe, another caller's is next
            return opened
        # Whatever of it was held back counts now, and so does this one.
        for _ in range(self._num_doubtful + 1):
            opened |= self._shared.failed(ticket.shared, now, rules, retry_after)
        self._num_doubtful = 0
        return opened

    def let_go(self, ticket: Ticket) -> None:
        """The call ended without a verdict; if it was a probe, the next call is."""
        self._shared.let_go(ticket.shared)
        if (own := self._own.get(ticket.caller)) is not None:
            own.let_go(ticket.own)

    def state(self, now: float) -> str:
        """`closed`, `open` or `half_open`, as it is to everyone."""
        return self._shared.state(now)

    def num_kept_out(self, now: float) -> int:
        """To how many callers alone it is open or half open."""
        return sum(own.state(now) != "closed" for own in self._own.values())

    def seconds_left(self, now: float, caller: Hashable = None) -> float:
        """How long until a call may be let in again, as far as is known."""
        shared = self._shared.seconds_left(now)
        own = self._own.get(caller)
        return shared if own is None else max(shared, own.seconds_left(now))

    def _own_breaker(self, caller: Hashable) -> CircuitBreaker:
        own = self._own.get(caller)
        if own is None:
            if len(self._own) >= MAX_CALLERS:
                del self._own[next(iter(self._own))]
            own = self._own[caller] = CircuitBreaker()
        return own

    def _forget_doubts(self) -> None:
        self._suspect, self._num_doubtful = None, 0
