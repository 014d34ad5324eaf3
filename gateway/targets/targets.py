"""The one owner of what happens to targets."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Hashable, Iterable
from typing import TypeVar

import structlog

from engines.protocol import Health
from gateway.call import Target
from gateway.policy import BreakerPolicy, Policy
from gateway.targets.attempt import Attempt
from gateway.targets.mirrors import Mirrors
from gateway.targets.report import ModelReport, TargetReport, TargetsReport
from gateway.targets.retry_budget import RetryBudget
from gateway.targets.target_state import TargetState

log = structlog.get_logger()

Key = TypeVar("Key")
Value = TypeVar("Value")

# Behind a glob the names of models come from callers, so there may be any number, of any
# length; those that begin alike for this long share what is known of them.
MAX_REMEMBERED = 4096
MAX_NAME = 256


class Targets:
    """Breakers, latencies, numbers in flight, budgets, drains: one for each gateway.

    The event loop owns it; nothing here awaits, so what is read holds until the next
    `await`. It knows targets by engine and model, not by the policy's line, and so
    outlives a reload; rules come with each call's own policy.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.clock = clock
        self.draw = draw
        self.sleep = sleep
        self.mirrors = Mirrors(draw)
        self._states: dict[tuple[str, str], TargetState] = {}
        self._budgets: dict[str, RetryBudget] = {}
        self._health: dict[str, Health] = {}
        self._drained: set[tuple[str, str | None]] = set()

    def state(self, engine: str, model: str) -> TargetState:
        """What is known about a target; nothing yet, for a new one."""
        key = (engine, model[:MAX_NAME])
        if (state := self._states.get(key)) is None:
            _make_room(self._states, lambda state: state.is_idle(self.clock()))
            state = self._states[key] = TargetState(*key)
        return state

    def budget(self, model: str) -> RetryBudget:
        """The retry budget of a public model."""
        key = model[:MAX_NAME]
        if (budget := self._budgets.get(key)) is None:
            _make_room(self._budgets, lambda _: True)
            budget = self._budgets[key] = RetryBudget()
        return budget

    def why_not(self, engine: str, model: str, caller: Hashable = None) -> str:
        """Why a target takes no call of this caller now: one word, or nothing if it does.

        One that is `resting` takes them, when nobody else does.
        """
        if self._drained and not self._drained.isdisjoint(((engine, None), (engine, model))):
            return "drained"
        state = self._states.get((engine, model[:MAX_NAME]))
        now = self.clock()
        if state is not None and not state.breaker.admits(now, caller):
            return "breaker_open"
        if not self.is_ready(engine):
            return "not_ready"
        return "resting" if state is not None and state.rest.seconds_left(now) else ""

    def rests(self, target: Target) -> bool:
        """Has the target said lately that it is overloaded?"""
        state = self._states.get((target.engine, target.model[:MAX_NAME]))
        return state is not None and state.rest.seconds_left(self.clock()) > 0

    def begin(self, target: Target, rules: BreakerPolicy, caller: Hashable = None) -> Attempt:
        """Take a place at a target of which `why_not` has just said nothing against it."""
        state = self.state(target.engine, target.model)
        return Attempt(target, state, rules, self.clock, caller)

    def is_ready(self, engine: str) -> bool:
        """What the engine last said about itself; ready until it says otherwise."""
        return not self._health or engine not in self._health or self._health[engine].ready

    def detail(self, engine: str) -> str:
        """What the engine last said about how it is, in words; mostly nothing."""
        health = self._health.get(engine)
        return health.detail if health is not None else ""

    def note_health(self, engine: str, health: Health) -> None:
        """Remember what an engine says about itself."""
        was_ready = self.is_ready(engine)
        self._health[engine] = health
        if was_ready and not health.ready:
            log.warning("engine_not_ready", engine=engine, detail=health.detail)
        elif health.ready and not was_ready:
            log.info("engine_ready_again", engine=engine)

    def drain(self, engine: str, model: str | None = None) -> int:
        """Send no new calls to a target, or to none of an engine's; how many still run there."""
        self._drained.add((engine, model))
        running = self.in_flight(engine, model)
        log.info("target_drained", engine=engine, model=model, calls=running)
        return running

    def resume(self, engine: str, model: str | None = None) -> None:
        """Take back a drain; without `model`, all drains of the engine."""
        self._drained -= {
            key for key in self._drained if key[0] == engine and model in (None, key[1])
        }
        log.info("target_resumed", engine=engine, model=model)

    def is_drained(self, engine: str, model: str | None = None) -> bool:
        """Does a drain of this very target, or of this whole engine, hold?"""
        return (engine, model) in self._drained

    def in_flight(self, engine: str, model: str | None = None) -> int:
        """Attempts that run at a target, or at all of an engine's."""
        return sum(
            state.in_flight
            for key, state in self._states.items()
            if key[0] == engine and model in (None, key[1])
        )

    def policy_replaced(self, old: Policy, new: Policy) -> None:
        """Forget targets that the new policy cannot reach, and engines that it made anew."""
        gone = {name for name in old.engines if old.engines[name] != new.engines.get(name)}
        exact, open_engines = _reachable(new)
        for key in [*self._states]:
            is_reachable = key in exact or key[0] in open_engines
            if key[0] in gone or not is_reachable:
                del self._states[key]
        for model in [*self._budgets]:
            if new.resolve(model) is None:
                del self._budgets[model]
        self._drained = {key for key in self._drained if key[0] not in gone}
        for engine in gone:
            self._health.pop(engine, None)

    def seconds_until_probe(
        self, targets: Iterable[Target], caller: Hashable = None
    ) -> float | None:
        """When the first of these whose breaker is open may be asked again; None without one."""
        now = self.clock()
        states = [self._states.get((target.engine, target.model[:MAX_NAME])) for target in targets]
        left = [state.breaker.seconds_left(now, caller) for state in states if state is not None]
        return min((seconds for seconds in left if seconds > 0), default=None)

    def snapshot(self) -> TargetsReport:
        """Everything of this moment, for the admin API and for metrics."""
        now = self.clock()
        return TargetsReport(
            targets=[self._report(self._states[key], now) for key in sorted(self._states)],
            models=[
                ModelReport(
                    model=model,
                    requests=budget.num_requests,
                    extra_attempts=budget.num_extra,
                    budget_left=budget.left,
                )
                for model, budget in sorted(self._budgets.items())
            ],
            mirrors=self.mirrors.report(),
        )

    def _report(self, state: TargetState, now: float) -> TargetReport:
        health = self._health.get(state.engine)
        places = {(state.engine, None), (state.engine, state.model)}
        return TargetReport(
            engine=state.engine,
            model=state.model,
            breaker=state.breaker.state(now),
            failures=state.breaker.failures,
            callers_kept_out=state.breaker.num_kept_out(now),
            probe_in_seconds=state.breaker.seconds_left(now),
            rests_for_seconds=state.rest.seconds_left(now),
            ready=health is None or health.ready,
            detail=health.detail if health is not None else "",
            drained=not self._drained.isdisjoint(places),
            in_flight=state.in_flight,
            first_output_seconds=state.latency.seconds(now),
            asked=state.num_asked,
            answered=state.num_answered,
            refused=state.num_refused,
            failed=state.num_failed,
        )


def _make_room(remembered: dict[Key, Value], is_idle: Callable[[Value], bool]) -> None:
    """Before one more is remembered: forget the oldest that are idle, if there are too many."""
    if len(remembered) < MAX_REMEMBERED:
        return
    idle = [key for key, value in remembered.items() if is_idle(value)]
    for key in idle[: MAX_REMEMBERED // 4]:
        del remembered[key]


def _reachable(policy: Policy) -> tuple[set[tuple[str, str]], set[str]]:
    """The policy's targets, and the engines that can be asked for a model of any name."""
    exact: set[tuple[str, str]] = set()
    open_engines: set[str] = set()
    for model in policy.models.values():
        for entry in (*model.targets, *model.fallbacks):
            if entry.model is None and "*" in model.name:
                open_engines.add(entry.engine)
            else:
                exact.add((entry.engine, entry.model or model.name))
    return exact, open_engines
