"""Decides which target a request asks next, and remembers why each was left.

First the targets, in the order of the route, at once; those that rest (rest.py) come
last, behind fallbacks for `overloaded`, too. Then, after a pause, those that failed
once more, as often as the policy's `retry` says. Then the fallbacks that are for the
last failure. A refusal goes straight to the fallbacks: what is wrong with a request
is wrong at every target. That a model is not there is true of one engine only.

Second attempts need the model's retry budget. Free are a fallback after an answer (a full
queue, a refusal) and the next target after a full queue or an engine without the model,
as nobody worked for those; but not from one that rests to another that does: each of a
model's targets is asked in vain when its rest begins, and then not by every call again.
"""

from engines.errors import EngineError, ModelNotFound, Overloaded, RequestRefused, Unavailable
from gateway.call import Call, Target, Tried
from gateway.errors import ModelUnknown
from gateway.policy import BreakerPolicy, RetryPolicy
from gateway.targets.attempt import Attempt, is_answer
from gateway.targets.targets import Targets

# For a call without a model's policy, which only a plugin of one's own can route.
_NO_RETRY = RetryPolicy()
_NO_BREAKER = BreakerPolicy()


class Turns:
    """One request's way through its route. Used by one task at a time, but for a hedge."""

    __slots__ = (
        "_again", "_at", "_breaker", "_budget", "_call", "_caller", "_failure", "_fallbacks",
        "_is_one_unasked", "_last", "_not_ready", "_num_asked", "_num_retries", "_refuser_rested",
        "_resting", "_retry", "_route", "_targets",
    )  # fmt: skip

    def __init__(self, call: Call, targets: Targets) -> None:
        model = call.model
        self._call = call
        self._caller = call.principal.key_id or (call.principal.team, call.principal.name)
        self._targets = targets
        if model is not None:
            name, self._retry, self._breaker = model.name, model.retry, model.breaker
        else:
            name, self._retry, self._breaker = "-", _NO_RETRY, _NO_BREAKER
        self._budget = targets.budget(name)
        self._budget.pay_in(self._retry.budget_percent)
        self._route = call.route.targets if call.route is not None else ()
        self._at = 0  # whose turn it is next among the route's targets
        self._fallbacks: list[Target] | None = None  # not asked yet; None: nobody has looked
        self._not_ready: tuple[Target, ...] = ()
        self._resting: list[Target] = []  # passed over, for those that do not rest
        self._is_one_unasked = False  # because it took no calls; it may have the model
        self._refuser_rested = False  # when it was asked
        self._again: dict[Target, float] = {}  # failed, and when it may be asked again
        self._num_asked = 0
        self._num_retries = 0
        self._failure: EngineError | None = None  # what the call would end with
        self._last: EngineError | None = None  # what was said last

    async def next(self) -> Attempt | None:
        """A place at the next target; None when nobody is left. Waits before a retry."""
        if not isinstance(self._failure, RequestRefused):
            attempt = self.next_target() or (self._resting_target() if self._resting else None)
            if attempt is not None:
                return attempt
            if (attempt := await self._retried()) is not None:
                return attempt
        code = Unavailable.code if self._failure is None else self._failure.code
        return self._fallback(code) or self._fallback(code, rests=True) or self._last_resort()

    def next_target(self) -> Attempt | None:
        """A place at the next target that has not been asked and does not rest; None without one.

        It is there at once.
        """
        while self._at < len(self._route):
            target = self._route[self._at]
            if target.is_unlisted and not isinstance(self._failure, ModelNotFound):
                return None  # a failure of those that have the model is not its absence
            self._at += 1
            if target.on:
                continue
            why_not = self._targets.why_not(target.engine, target.model, self._caller)
            if why_not == "resting":
                self._resting.append(target)
            elif why_not:
                self._is_one_unasked = True
                if why_not == "not_ready":
                    self._not_ready += (target,)
            if why_not:
                self._note(target, why_not)
            elif self._may_ask(target):
                return self._begin(target)
        return None

    def failed(self, attempt: Attempt, error: EngineError, left: str) -> None:
        """An attempt ended before its first output."""
        self._last = error
        if self._failure is None or not isinstance(error, ModelNotFound):
            self._failure = error
        self._refuser_rested = attempt.was_resting
        self._note(attempt.target, left)
        if not isinstance(error, RequestRefused | ModelNotFound) and not attempt.target.on:
            retry_after = error.retry_after if isinstance(error, Overloaded | Unavailable) else None
            # Last in line, so that retries go round.
            self._again.pop(attempt.target, None)
            self._again[attempt.target] = self._targets.clock() + (retry_after or 0.0)

    def left(self, attempt: Attempt, why: str = "") -> None:
        """Note an attempt that nothing is wrong with: the one that answers, or a slower one."""
        self._note(attempt.target, why)

    def refusal(self) -> Exception:
        """Why nobody answered, as the caller may know it."""
        failure = self._failure
        if isinstance(failure, ModelNotFound) and not self._is_one_unasked:
            # The engine's own name for the model is not the caller's business.
            return ModelUnknown(self._call.model.name if self._call.model else failure.model)
        if failure is not None and not isinstance(failure, ModelNotFound):
            return failure
        return Unavailable(
            "no target of this model can take the request at the moment",
            retry_after=self._targets.seconds_until_probe(self._route, self._caller),
        )

    async def _retried(self) -> Attempt | None:
        """A place at a target that failed before, after a pause; None if there is none to be."""
        while self._num_retries < self._retry.times and self._again:
            target = min(self._again, key=self._again.__getitem__)
            pause = self._pause(self._again[target] - self._targets.clock())
            why_not = self._why_not(target)
            if pause is None or why_not:
                self._note(target, why_not or "retry_after")
                del self._again[target]
                continue
            if not self._budget.has_left(self._retry.budget_percent):
                self._note(target, "no_budget")
                return None
            self._num_retries += 1
            await self._targets.sleep(pause)
            # All this may have changed meanwhile.
            if not self._why_not(target) and self._may_ask(target):
                return self._begin(target)
        return None

    def _pause(self, retry_after: float) -> float | None:
        """How long to wait before the next retry; None if the target asks for too long.

        Half of the exponential back-off is left to chance, so that calls that failed
        together do not come back together.
        """
        longest = self._retry.max_wait_seconds
        if retry_after > longest:
            return None
        backed_off = min(longest, self._retry.wait_seconds * 2.0**self._num_retries)
        return max(retry_after, backed_off * (0.5 + 0.5 * self._targets.draw()))

    def _resting_target(self) -> Attempt | None:
        """A place at a target that rests, or at a fallback for that: what it would say is known."""
        is_full = self._failure is None or isinstance(self._failure, Overloaded)
        if is_full and (attempt := self._fallback(Overloaded.code)) is not None:
            return attempt
        while self._resting:
            target = self._resting.pop(0)
            if why_not := self._why_not(target):
                self._note(target, why_not)
            elif self._may_ask(target):
                return self._begin(target)
        return None

    def _fallback(self, code: str, *, rests: bool = False) -> Attempt | None:
        """A place at the next fallback for this failure, of those that rest or of the others."""
        if self._fallbacks is None:
            self._fallbacks = [target for target in self._route if target.on]
        for target in [one for one in self._fallbacks if code in one.on]:
            why_not = self._targets.why_not(target.engine, target.model, self._caller)
            if why_not == "resting" and not rests:
                continue
            self._fallbacks.remove(target)
            if why_not and why_not != "resting":
                self._note(target, why_not)
            elif self._may_ask(target):
                return self._begin(target)
        return None

    def _last_resort(self) -> Attempt | None:
        """A place at a target whose engine was not ready when it last said: better than nobody."""
        for target in self._not_ready if not self._num_asked else ():
            if self._why_not(target) in ("", "not_ready"):
                return self._begin(target)
        return None

    def _may_ask(self, target: Target) -> bool:
        """Take what the attempt costs out of the budget, or note that it could not be paid."""
        if self._is_free(target) or self._budget.take(self._retry.budget_percent):
            return True
        self._note(target, "no_budget")
        return False

    def _is_free(self, target: Target) -> bool:
        if self._num_asked == 0:
            return True
        last = self._last
        if last is None or target in self._again:
            return False
        if target.on:
            return is_answer(last)
        if isinstance(last, Overloaded):
            return not self._refuser_rested or not self._targets.rests(target)
        return isinstance(last, ModelNotFound)

    def _why_not(self, target: Target) -> str:
        """Why a target takes no call, not even if nobody else does."""
        why_not = self._targets.why_not(target.engine, target.model, self._caller)
        return "" if why_not == "resting" else why_not

    def _begin(self, target: Target) -> Attempt:
        self._num_asked += 1
        return self._targets.begin(target, self._breaker, self._caller)

    def _note(self, target: Target, left: str) -> None:
        self._call.tried.append(Tried(target.engine, target.model, left))
