"""What dispatch asks of a gateway, and calls to send through it."""

from collections.abc import Callable, Mapping, Sequence

from engines.protocol import Engine, GenerateRequest
from gateway import Call, Principal, Route, Target
from gateway.policy import FallbackPolicy, ModelPolicy, Policy, TeamPolicy
from gateway.targets import Targets
from tests.fakes import FakeClock
from tests.plugins.policies import policy_of

REQUEST = GenerateRequest(id="r", model="chat-small", prompt="hi")


class StageOfTargets:
    """Engines, and what is known of their targets. `slept` has every pause that was made."""

    def __init__(
        self,
        engines: Mapping[str, Engine],
        *,
        clock: Callable[[], float] | None = None,
        draw: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.engines = engines
        self.slept: list[float] = []
        self.clock = clock or FakeClock()
        self.targets = Targets(clock=self.clock, draw=draw, sleep=self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if isinstance(self.clock, FakeClock):
            self.clock.advance(seconds)


def routed_call(
    model: ModelPolicy,
    *targets: Target,
    policy: Policy | None = None,
    team: TeamPolicy = TeamPolicy(name="search"),  # noqa: B008 - frozen
) -> Call:
    """A call of `model` with a route: these targets, or the model's own in their order."""
    entries = [*model.targets, *model.fallbacks]
    own = tuple(
        Target(
            entry.engine,
            entry.model or model.name,
            on=frozenset(entry.on) if isinstance(entry, FallbackPolicy) else frozenset(),
        )
        for entry in entries
    )
    call = Call(
        id="req_1",
        endpoint="openai.chat",
        policy=policy or policy_of(models=[model], teams=[team]),
        principal=Principal(name="laptop", team=team.name),
        model=model,
    )
    call.route = Route(targets or own)
    return call


def tried(call: Call) -> Sequence[str]:
    """The call's way: `gpu0:overloaded`, and the bare name of the engine that answered."""
    return [f"{one.engine}:{one.left}" if one.left else one.engine for one in call.tried]
