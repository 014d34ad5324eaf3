"""A stage for the plugin `rate_limits`: a policy, an engine, a store whose clock is ours."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from engines.protocol import GenerateRequest, Message, Text, Usage
from gateway import Call, Refusal, Route, Target
from gateway.errors import Problem
from gateway.model_infos import ModelInfos
from gateway.policy import LimitPolicy, ModelPolicy, Policy, PricePolicy, TargetPolicy, TeamPolicy
from gateway.store import Decision, Demand, Fill, MemoryStore, StoreUnavailable
from plugins.rate_limits import RateLimits, RateLimitsTable
from tests.fakes import FakeClock, ScriptedEngine

MODEL = ModelPolicy(name="chat-small", targets=[TargetPolicy(engine="gpu0", model="a")])


class FailingStore(MemoryStore):
    """A memory store that is away when told; remembers what it was told to settle."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock=lambda: int(clock() * 1000))
        self.is_away = False
        self.does_it_all_the_same = False  # slow: it acts, and nobody hears of it
        self.num_reserved = 0
        self.settled: list[tuple[str, list[int], bool]] = []

    async def reserve(
        self, call_id: str, demands: Any, *, output: int = 0, least_output: int = 0
    ) -> Decision:
        self.num_reserved += 1
        if self.is_away and not self.does_it_all_the_same:
            raise StoreUnavailable("away")
        decision = await super().reserve(call_id, demands, output=output, least_output=least_output)
        if self.is_away:
            raise StoreUnavailable("slow", asked=True)
        return decision

    def settle(
        self, call_id: str, demands: Any, used: Any, *, charge_unreserved: bool = False
    ) -> None:
        self.settled.append((call_id, list(used), charge_unreserved))
        super().settle(call_id, demands, used, charge_unreserved=charge_unreserved)


def policy_with(
    *limits: LimitPolicy,
    prices: Mapping[str, PricePolicy] | None = None,
    team_limits: str | None = "standard",
    **table: Any,
) -> Policy:
    return Policy(
        directory="policies/test",  # type: ignore[arg-type]
        digest="0" * 64,
        plugins=(),
        tables={"rate_limits": RateLimitsTable(**table)},
        engines={},
        models={
            "chat-small": MODEL,
            "chat-big": ModelPolicy(name="chat-big", targets=MODEL.targets),
        },
        teams={
            name: TeamPolicy(name=name, models=["*"], endpoints=["*"], limits=team_limits)
            for name in ("search", "batch")
        },
        limits={limit.name: limit for limit in limits},
        aliases={},
        prices=prices or {},
    )


@dataclass
class Stage:
    """What the plugin sees of a gateway."""

    policy: Policy
    clock: FakeClock = field(default_factory=FakeClock)
    engine: ScriptedEngine = field(default_factory=lambda: ScriptedEngine(model_names=["a"]))
    num_calls: int = 0

    def __post_init__(self) -> None:
        self.store = FailingStore(self.clock)
        self.engines = {"gpu0": self.engine}
        self.model_infos = ModelInfos()
        self.plugin = RateLimits(self)  # type: ignore[arg-type]

    def call(
        self,
        *,
        words: int = 3,
        max_tokens: int | None = None,
        n: int = 1,
        team: str = "search",
        key: str = "k1",
        model: str = "chat-small",
        endpoint: str = "openai.chat",
    ) -> Call:
        from gateway import Principal

        self.num_calls += 1
        request = GenerateRequest(
            id=f"r{self.num_calls}",
            model=model,
            messages=[Message(role="user", parts=[Text("word " * words)])],
            max_tokens=max_tokens,
        )
        return Call(
            id=f"req_{self.num_calls}",
            endpoint=endpoint,
            policy=self.policy,
            principal=Principal(name="laptop", team=team, key_id=key),
            model=self.policy.resolve(model),
            requests=[request] * n,
            choices_per_prompt=n,
            asked_max_tokens=max_tokens,
            route=Route((Target("gpu0", "a"),)),
        )

    @asynccontextmanager
    async def admitted(self, call: Call) -> AsyncGenerator[Call, None]:
        async with self.plugin.admit(call=call):
            yield call

    async def run(
        self,
        call: Call,
        *,
        output: int = 1,
        prompt: int | None = None,
        error: Problem | None = None,
    ) -> Call:
        """A call that is let in and ends at once."""
        async with self.plugin.admit(call=call):
            if output:
                end_well(call, prompt=3 if prompt is None else prompt, output=output)
            call.error = error
        return call

    async def refused(self, call: Call) -> Refusal:
        """Why a call is not let in."""
        refusal = await self.refused_or_run(call)
        assert refusal is not None, "the call was let in"
        return refusal

    async def refused_or_run(self, call: Call) -> Refusal | None:
        """Why a call is not let in; None if it is, and then it ends at once."""
        try:
            await self.run(call)
        except Refusal as refusal:
            return refusal
        return None

    async def fills(self, call: Call) -> dict[str, Fill]:
        """How full the limits of a call are, by field."""
        rules = self.plugin._rules_of(call)
        fills = await self.store.peek([Demand(bucket=rule.bucket, fixed=0) for rule in rules])
        return {rule.field: fill for rule, fill in zip(rules, fills, strict=True)}

    async def used(self, **asked: Any) -> dict[str, int]:
        """Units taken of the limits of such a call, by field."""
        fills = await self.fills(self.call(**asked))
        return {name: fill.used for name, fill in fills.items()}

    async def until_waiting(self, count: int) -> None:
        """Let others go on until so many calls wait."""
        while self.plugin._lines.num_waiting < count:  # noqa: ASYNC110
            await asyncio.sleep(0)


def end_well(call: Call, *, prompt: int, output: int, cached: int = 0) -> None:
    """As if the engine had answered."""
    for sequence in range(max(1, len(call.requests))):
        call.tally(sequence).set(
            Usage(prompt_tokens=prompt, completion_tokens=output, cached_tokens=cached)
        )
    call.first_output_at = call.started_at


def problem(code: str, status: int) -> Problem:
    return Problem(code=code, status=status, message="", source="gateway")


def stage_of(*limits: LimitPolicy, **options: object) -> Stage:
    return Stage(policy_with(*limits, **options))  # type: ignore[arg-type]


def standard(**fields: object) -> LimitPolicy:
    return LimitPolicy(name="standard", **fields)  # type: ignore[arg-type]
