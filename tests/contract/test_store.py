"""Every store, against one model: nothing over a limit, nothing lost, nothing left behind.

The model replays the whole history with what calls really used. A store may be
stricter than that (it cannot take back what a reservation has already drained),
never more generous.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from gateway.store import Bucket, Decision, Demand, MemoryStore, RedisStore
from gateway.store.redis import LEASE_MS
from gateway.store.redis_address import parse_redis_url
from tests.redis_server import RedisServer, redis_server

START = 1_763_700_000_000  # 2025-11-21 04:40 UTC
DAY = 86_400_000

REQUESTS = Bucket(kind="rate", key="requests", limit=7, burst=7)
TOKENS = Bucket(kind="rate", key="tokens", limit=1000, burst=250)
BUDGET = Bucket(kind="window", key="budget", limit=2000, period="day")
MONEY = Bucket(kind="window", key="money", limit=900, period="month", scale=1000)
CALLS = Bucket(kind="leases", key="calls", limit=3)
SHADOW = Bucket(kind="rate", key="shadow", limit=300, burst=60, enforced=False)
CLAMPED = Bucket(kind="rate", key="clamped", limit=600, burst=200, clamps=True)
BUCKETS = (REQUESTS, TOKENS, BUDGET, MONEY, CALLS, SHADOW, CLAMPED)
RATES = (REQUESTS, TOKENS, SHADOW, CLAMPED)


def demands_of(prompt: int) -> list[Demand]:
    return [
        Demand(bucket=REQUESTS),
        Demand(bucket=TOKENS, fixed=prompt, per_output=1),
        Demand(bucket=BUDGET, fixed=prompt, per_output=1),
        Demand(bucket=MONEY, fixed=prompt * 300, per_output=1200),
        Demand(bucket=CALLS),
        Demand(bucket=SHADOW, fixed=prompt, per_output=1),
        Demand(bucket=CLAMPED, fixed=0, per_output=1),
    ]


@dataclass
class Taken:
    """A call that was let in, as the model sees it; `used` is known when it is settled."""

    at: int  # by a clock that nobody sets
    day: int  # by the store's clock
    prompt: int
    output: int
    gateway: int
    fits: list[bool]
    demands: list[Demand] = field(default_factory=list)
    used: list[int] | None = None
    settled_at: int = 0
    is_alone: bool = False  # its gateway died: nobody will settle it

    def reserved(self, index: int) -> int:
        return self.demands[index].cost(self.output)


class Model:
    """The history, and what follows from it."""

    def __init__(self) -> None:
        self.calls: dict[str, Taken] = {}

    def level(self, index: int, now: int, *, with_refunds: bool) -> float:
        """Units in a rate bucket now, by a leaky bucket over the whole history."""
        bucket = BUCKETS[index]
        events: list[tuple[int, int]] = []
        for call in self.calls.values():
            if not call.fits[index]:
                continue
            reserved = call.reserved(index)
            used = reserved if call.used is None else call.used[index]
            events.append((call.at, min(used, reserved) if with_refunds else reserved))
            events.append((call.settled_at, max(0, used - reserved)))
        level, at = 0.0, 0
        for moment, units in sorted(events):
            level = max(0.0, level - (moment - at) * bucket.limit / 60_000) + units
            at = moment
        return max(0.0, level - (now - at) * bucket.limit / 60_000)

    def window(self, index: int, now: int) -> int:
        is_month = BUCKETS[index].period == "month"
        return sum(
            call.reserved(index) if call.used is None else call.used[index]
            for call in self.calls.values()
            if call.fits[index] and (is_month or call.day == now // DAY)
        )

    def held(self, now: int, renewed_at: dict[str, int]) -> int:
        return sum(
            call.used is None and renewed_at[call_id] + LEASE_MS > now
            for call_id, call in self.calls.items()
        )


class Subject:
    """Two gateways' stores that must act as one, and a clock that both go by."""

    can_lose_a_gateway = False
    # Does what drained until the clock was set back count, though nobody wrote it down?
    notes_time = True

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.now = START

    async def open(self, stack: AsyncExitStack) -> None:
        self.stores = [MemoryStore(clock=lambda: self.now)] * 2

    async def lose_gateway(self) -> None: ...

    async def renew(self) -> None: ...

    async def arrived(self, gateway: int) -> None:
        """Until what this gateway has sent has been done."""


class RedisSubject(Subject):
    can_lose_a_gateway = True
    notes_time = False

    async def open(self, stack: AsyncExitStack) -> None:
        self.server.ask("FLUSHALL")
        self.stack = stack
        self.stores = [await self._store(), await self._store()]

    async def _store(self) -> RedisStore:
        store = RedisStore(parse_redis_url(self.server.url + "?timeout_seconds=10"),
                           clock=lambda: self.now)  # fmt: skip
        await self.stack.enter_async_context(store.running())
        return store

    async def lose_gateway(self) -> None:
        self.stores[1] = await self._store()

    async def renew(self) -> None:
        for store in self.stores:
            await store.renew_now()

    async def arrived(self, gateway: int) -> None:
        await self.stores[gateway].peek([])


SUBJECTS: dict[str, type[Subject]] = {"memory": Subject, "redis": RedisSubject}


class StoreMachine(RuleBasedStateMachine):
    """Calls come, end, vanish, come late; time passes."""

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self.subject = subject
        self.model = Model()
        self.renewed_at: dict[str, int] = {}
        self.num_calls = 0
        self.set_back = 0  # by how much the clock was, in all
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.runner.run(subject.open(self.stack))

    def teardown(self) -> None:
        for call_id in self._running():
            self._settle(call_id, [0] * len(BUCKETS))
        self.subject.now += LEASE_MS + self.set_back
        assert self._fills()[4].used == 0, "leases are left when all calls are gone"
        self.runner.run(self.stack.aclose())
        self.runner.close()

    @rule(
        gateway=st.integers(0, 1),
        prompt=st.integers(0, 120),
        output=st.integers(0, 300),
        is_clamped=st.booleans(),
    )
    def reserve(self, gateway: int, prompt: int, output: int, is_clamped: bool) -> None:
        now, call_id = self.subject.now, f"call-{self.num_calls}"
        self.num_calls += 1
        demands, before = demands_of(prompt), self._fills()

        decision = self._reserve(gateway, call_id, demands, output, 1 if is_clamped else output)

        assert decision == self._expected(decision, before, demands, output)
        if not decision.granted:
            assert self._fills() == before, "a refused call took something"
            return
        fits = [fill.fits for fill in decision.fills]
        self.model.calls[call_id] = Taken(
            now + self.set_back, now // DAY, prompt, decision.output, gateway, fits, demands
        )
        self.renewed_at[call_id] = now

    def _expected(
        self, decision: Decision, before: list, demands: list[Demand], output: int
    ) -> Decision:
        """The decision that follows from how full the buckets were."""
        costs = [demand.cost(decision.output) for demand in demands]
        fits = [
            fill.used + cost <= bucket.capacity or (cost == 0 and fill.used <= bucket.capacity)
            for fill, cost, bucket in zip(before, costs, BUCKETS, strict=True)
        ]
        # A rate's `used` is rounded up, so the last unit may or may not be there yet.
        fits = [
            found.fits if bucket.kind == "rate" and abs(fill.remaining - cost) <= 1 else fit
            for fit, found, fill, cost, bucket in zip(
                fits, decision.fills, before, costs, BUCKETS, strict=True
            )
        ]
        assert [fill.fits for fill in decision.fills] == fits
        granted = all(fit or not b.enforced for fit, b in zip(fits, BUCKETS, strict=True))
        assert decision.output <= output
        return Decision(granted, decision.output, decision.fills)

    @rule(data=st.data(), share=st.floats(0, 1.6))
    def settle(self, data: st.DataObject, share: float) -> None:
        running = self._running()
        if running:
            call_id = data.draw(st.sampled_from(running))
            call = self.model.calls[call_id]
            used = [int(call.reserved(i) * share) for i in range(len(BUCKETS))]
            self._settle(call_id, used)

    @rule(data=st.data())
    def ask_again(self, data: st.DataObject) -> None:
        """A reservation or a settlement that arrives twice, or after its end, does nothing."""
        known = sorted(call_id for call_id, call in self.model.calls.items() if not call.is_alone)
        if not known:
            return
        call_id = data.draw(st.sampled_from(known))
        call, before = self.model.calls[call_id], self._fills()

        decision = self._reserve(call.gateway, call_id, call.demands, 17, 17)
        if call.used is not None:
            self._send_settlement(call.gateway, call_id, call.demands, [5] * len(BUCKETS))

        assert decision.granted == (call.used is None)
        assert self._fills() == before

    @rule(prompt=st.integers(0, 100))
    def settle_before_reserving(self, prompt: int) -> None:
        """A slow store hears of a call's end first, and then of its beginning."""
        call_id, demands, before = f"late-{self.num_calls}", demands_of(prompt), self._fills()
        self.num_calls += 1

        self._send_settlement(0, call_id, demands, [0] * len(demands))
        decision = self._reserve(0, call_id, demands, 10, 10)

        assert not decision.granted
        assert self._fills() == before

    @rule()
    def lose_a_gateway(self) -> None:
        if self.subject.can_lose_a_gateway:
            self.runner.run(self.subject.lose_gateway())
            for call in self.model.calls.values():
                call.is_alone = call.is_alone or call.gateway == 1

    @rule(milliseconds=st.one_of(st.integers(0, 3000), st.sampled_from([LEASE_MS, 70_000, DAY])))
    def time_passes(self, milliseconds: int) -> None:
        while milliseconds > 0:
            step = min(milliseconds, LEASE_MS - 1)
            milliseconds -= step
            self.subject.now += step
            self.runner.run(self.subject.renew())
            for call_id, call in self.model.calls.items():
                if call.used is None and not call.is_alone:
                    self.renewed_at[call_id] = self.subject.now

    @rule(milliseconds=st.sampled_from([1, 2000, 3_600_000]))
    def the_clock_is_set_back(self, milliseconds: int) -> None:
        """Buckets drain on by the time that passes; a day that it comes back to is another."""
        if (self.subject.now - milliseconds) // DAY == self.subject.now // DAY:
            self.subject.now -= milliseconds
            self.set_back += milliseconds

    @invariant()
    def the_store_agrees_with_the_history(self) -> None:
        now, fills = self.subject.now, self._fills()
        for index, bucket in enumerate(BUCKETS):
            used = fills[index].used
            if bucket.kind == "rate":
                least = self.model.level(index, now + self.set_back, with_refunds=True)
                most = self.model.level(index, now + self.set_back, with_refunds=False)
                assert least - 1e-6 <= used, bucket.key
                if self.subject.notes_time or not self.set_back:
                    assert used <= most + 1 + 1e-6, bucket.key
            elif bucket.kind == "window":
                assert used == self.model.window(index, now), bucket.key
            else:
                assert used == self.model.held(now, self.renewed_at)
                assert used <= bucket.limit

    def _running(self) -> list[str]:
        return [
            call_id
            for call_id, call in self.model.calls.items()
            if call.used is None and not call.is_alone
        ]

    def _reserve(self, gateway: int, call_id: str, demands: list[Demand], output: int, least: int):
        store = self.subject.stores[gateway]
        return self.runner.run(store.reserve(call_id, demands, output=output, least_output=least))

    def _settle(self, call_id: str, used: list[int]) -> None:
        call = self.model.calls[call_id]
        self._send_settlement(call.gateway, call_id, call.demands, used)
        call.used, call.settled_at = used, self.subject.now + self.set_back

    def _send_settlement(
        self, gateway: int, call_id: str, demands: list[Demand], used: list[int]
    ) -> None:
        async def settled() -> None:
            self.subject.stores[gateway].settle(call_id, demands, used)
            await self.subject.arrived(gateway)

        self.runner.run(settled())

    def _fills(self) -> list:
        looks = [Demand(bucket=bucket, fixed=0) for bucket in BUCKETS]
        return list(self.runner.run(self.subject.stores[0].peek(looks)))


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_store_agrees_with_the_model_whatever_happens(name: str, server: RedisServer) -> None:
    make: Callable[[], StoreMachine] = lambda: StoreMachine(SUBJECTS[name](server))  # noqa: E731

    run_state_machine_as_test(
        make,
        settings=settings(
            max_examples=40,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
