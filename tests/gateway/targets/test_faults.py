"""Ten thousand calls over three engines that fail in turn, in every way there is.

The clock is virtual, so that 100 seconds of traffic take a few and come out the same.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from engines.errors import EngineError, Overloaded, Unavailable
from gateway.dispatch import dispatch
from gateway.policy import ModelPolicy, TargetPolicy
from gateway.targets import HealthWatch, TargetsReport
from gateway.targets.retry_budget import RESERVE
from plugins.routing import Routing
from tests.fakes import ScriptedEngine
from tests.gateway.targets.stage import REQUEST, StageOfTargets
from tests.plugins.policies import call_of, policy_of
from tests.traffic import Broke, Traffic, send
from tests.virtual_time import run_in_virtual_time

NUM_CALLS = 10_000
CALLS_PER_SECOND = 100.0
FINE = [0.05, "first", 0.02, " second", 0.02, " third"]
SLOW = [30.0, "late"]
FAILS = [0.01, Unavailable("500 from upstream")]
BUSY = [0.01, Overloaded("429 from upstream", retry_after=5.0)]
ENGINES = ("gpu0", "gpu1", "gpu2")


class Run:
    """Three engines behind one model; `outcome` is there when `run_in_virtual_time` is through."""

    def __init__(self, **fields: Any) -> None:
        self.model = ModelPolicy(
            name="chat-small",
            targets=tuple(TargetPolicy(engine=name, model="a") for name in ENGINES),
            first_output_timeout_seconds=1.0,
            **fields,
        )
        self.policy = policy_of(models=[self.model])
        self.reports: list[TargetsReport] = []

    async def outcome(self) -> Traffic:
        self.engines = {
            name: ScriptedEngine(FINE, name=name, model_names=["a"]) for name in ENGINES
        }
        clock = asyncio.get_running_loop().time
        self.stage = StageOfTargets(self.engines, clock=clock)
        self.stage.targets.sleep = asyncio.sleep
        self.routing = Routing(self.stage)
        gpu0, gpu1, gpu2 = self.engines.values()
        async with HealthWatch(self.stage.targets, lambda: self.engines, 5.0).running():
            traffic = await send(
                self.ask,
                num_calls=NUM_CALLS,
                calls_per_second=CALLS_PER_SECOND,
                events={
                    1500: gpu0.close,
                    3500: gpu0.start,
                    4000: self.playing(gpu1, SLOW),
                    5500: self.playing(gpu1, FINE),
                    7000: self.playing(gpu2, FAILS),
                    8500: self.playing(gpu2, FINE),
                    9000: self.playing(gpu0, BUSY),
                    9500: self.playing(gpu0, FINE),
                },
            )
        self.reports.append(self.stage.targets.snapshot())
        return traffic

    async def ask(self, number: int) -> None:
        if number % 500 == 499:
            self.reports.append(self.stage.targets.snapshot())
        call = call_of(self.policy, key_id=f"k{number % 997}")
        call.route = await self.routing.route(call)
        try:
            stream = await dispatch(call, self.stage, REQUEST)
            try:
                async for _ in stream:
                    pass
            except EngineError as error:
                raise Broke from error
        finally:
            await call.resources.aclose()

    def playing(self, engine: ScriptedEngine, script: list[Any]) -> Callable[[], Awaitable[None]]:
        async def play() -> None:
            engine._script = script

        return play


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [{"choice": "weight"}, {"choice": "least_busy"}, {"choice": "latency"}, {"sticky": "key"}],
    ids=str,
)
def test_no_call_is_lost_and_the_extra_load_stays_in_the_budget(fields: dict[str, Any]) -> None:
    run = Run(**fields)

    with capture_logs() as logged:
        traffic = run_in_virtual_time(run.outcome)

    assert traffic.lost == []
    assert traffic.num_answered + traffic.num_broken == NUM_CALLS
    # Only what gpu0 had begun when it was killed may break: what arrives in 90 ms.
    assert traffic.num_broken <= CALLS_PER_SECOND * 0.09 + 1
    report = run.reports[-1]
    (budget,) = report.models
    asked = sum(target.asked for target in report.targets)
    refused = report.targets[0].refused
    assert asked - NUM_CALLS - refused == budget.extra_attempts <= 0.2 * NUM_CALLS + RESERVE
    # Who says that it is overloaded is asked by what was on its way, and not again.
    assert 0 < refused < 10
    assert ("target_rests", "gpu0") in [(one["event"], one.get("engine")) for one in logged]
    # No call waited for more than two slow targets.
    assert max(traffic.seconds) < 2 * 1.0 + 0.2
    # Nothing is left behind.
    assert all(target.in_flight == 0 for target in report.targets)
    assert [engine.running for engine in run.engines.values()] == [0, 0, 0]
    # Each one's breaker opened while it failed, and closed after it was well again.
    events = [(one["event"], one.get("engine")) for one in logged if "breaker" in one["event"]]
    for name in ("gpu1", "gpu2"):
        assert ("breaker_opened", name) in events
        assert events[::-1].index(("breaker_closed", name)) < events[::-1].index(
            ("breaker_opened", name)
        )
    assert {target.breaker for target in report.targets} == {"closed"}
    assert {target.ready for target in report.targets} == {True}


@pytest.mark.slow
def test_a_sick_target_gets_next_to_nothing_and_its_share_when_it_is_well() -> None:
    run = Run()
    run_in_virtual_time(run.outcome)

    def asked(engine: int, first: int, last: int) -> int:
        """How often an engine was asked between two calls, from the reports every 500."""
        before, after = (
            run.reports[number // 500 - 1].targets[engine].asked for number in (first, last)
        )
        return after - before

    # Killed at 1500, seen by health check or breaker at once: hardly anything from then on.
    assert asked(0, 2000, 3500) < 10
    # Slow from 4000 to 5500: what came before the time-out, then one probe at a time.
    assert asked(1, 4000, 5500) < 100
    assert asked(2, 7500, 8500) < 30
    # Well for long: a third of the calls each, within five standard deviations.
    for engine in range(3):
        assert abs(asked(engine, 500, 1500) - 333) < 75
    # gpu0 rests until its Retry-After is over, just before 9500, and has its share then.
    assert asked(0, 9000, 9500) < 10
    for engine in range(3):
        assert abs(asked(engine, 9500, 10_000) - 167) < 55
