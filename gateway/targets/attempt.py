"""One request at one target, from the asking to the end of its answer."""

from collections.abc import Callable, Hashable

import structlog

from engines.errors import (
    DoubtfullyUnavailable,
    EngineError,
    EngineOverloaded,
    ModelNotFound,
    Overloaded,
    RequestRefused,
    Unavailable,
)
from gateway.call import Target
from gateway.policy import BreakerPolicy
from gateway.targets.target_state import TargetState

log = structlog.get_logger()


def is_answer(error: EngineError) -> bool:
    """Does the error show that the target works? A full queue does, and so does a refusal."""
    return isinstance(error, Overloaded | RequestRefused | ModelNotFound)


class Attempt:
    """Holds a place in its target's `in_flight` until `end`, and tells the target how it went.

    The order is `answered`, then `completed` or `failed`; or `failed` at once. `end`
    comes last and may come twice. Without a verdict the target is not judged.
    """

    __slots__ = (
        "_clock", "_has_ended", "_rest_number", "_rules", "_started_at", "_state", "_ticket",
        "target", "was_resting",
    )  # fmt: skip

    def __init__(
        self,
        target: Target,
        state: TargetState,
        rules: BreakerPolicy,
        clock: Callable[[], float],
        caller: Hashable = None,
    ) -> None:
        now = clock()
        ticket = state.breaker.enter(now, caller)
        assert ticket is not None, "ask Targets.why_not before"
        state.in_flight += 1
        state.num_asked += 1
        self.target = target
        self.was_resting = state.rest.seconds_left(now) > 0  # when it was asked
        self._rest_number = state.rest.number
        self._state = state
        self._rules = rules
        self._clock = clock
        self._ticket = ticket
        self._started_at = now
        self._has_ended = False

    def answered(self) -> None:
        """The first output is there."""
        now = self._clock()
        state = self._state
        state.num_answered += 1
        state.latency.observe(now - self._started_at, now)
        if state.rest.answered(self._rest_number, now):
            log.info("target_rest_ended", engine=state.engine, model=state.model)
        self._works()

    def completed(self) -> None:
        """The answer is whole."""
        self._state.breaker.completed(self._ticket)

    def failed(self, error: EngineError) -> None:
        """The target raised this, before its first output or after."""
        now = self._clock()
        state = self._state
        if is_answer(error):
            state.num_refused += 1
            self._rests_after(error, now)
            self._works()
            state.breaker.completed(self._ticket)
            return
        state.num_failed += 1
        state.latency.observe_at_least(now - self._started_at, now)
        retry_after = error.retry_after if isinstance(error, Unavailable) else None
        breaker, is_doubtful = state.breaker, isinstance(error, DoubtfullyUnavailable)
        if breaker.failed(self._ticket, now, self._rules, retry_after, is_doubtful=is_doubtful):
            log.warning(
                "breaker_opened", engine=state.engine, model=state.model, error=error.code,
                seconds=breaker.seconds_left(now, self._ticket.caller),
                to="everyone" if breaker.state(now) != "closed" else "one_caller",
            )  # fmt: skip

    def given_up(self) -> None:
        """Nobody waits for the first output any more: another was faster, or the client left."""
        now = self._clock()
        self._state.latency.observe_at_least(now - self._started_at, now)
        self.end()

    def end(self) -> None:
        """Give the place back."""
        if not self._has_ended:
            self._has_ended = True
            self._state.in_flight -= 1
            self._state.breaker.let_go(self._ticket)

    def _rests_after(self, error: EngineError, now: float) -> None:
        state = self._state
        if not isinstance(error, Overloaded) or isinstance(error, EngineOverloaded):
            return
        if state.rest.begin(now, error.retry_after):
            log.info(
                "target_rests", engine=state.engine, model=state.model,
                seconds=state.rest.seconds_left(now),
            )  # fmt: skip

    def _works(self) -> None:
        state = self._state
        ticket = state.breaker.answered(self._ticket)
        if ticket != self._ticket:
            self._ticket = ticket
            log.info("breaker_closed", engine=state.engine, model=state.model)
