"""Turns past targets that have said lately that they are overloaded, and are better not asked."""

from engines.errors import EngineOverloaded, Overloaded, Unavailable
from engines.protocol import Health
from gateway.policy import RetryPolicy
from gateway.targets import Turns
from gateway.targets.rest import UNTOLD_SECONDS
from tests.gateway.targets.stage import StageOfTargets, routed_call, tried
from tests.gateway.targets.test_turns import GONE, model, stage, way

__all__ = ["stage"]

BUSY = Overloaded("429", retry_after=60)


async def test_one_call_finds_out_and_the_others_go_to_who_is_well(stage: StageOfTargets) -> None:
    policy = model("gpu0", "gpu1")

    for number in range(300):
        call, who = await way(stage, policy, gpu0=BUSY)
        assert who == "gpu1"
        first = "overloaded" if number == 0 else "resting"
        assert tried(call) == [f"gpu0:{first}", "gpu1"]

    assert stage.targets.state("gpu0", "a").num_asked == 1
    assert stage.targets.budget("chat-small").num_extra == 0


async def test_calls_that_meet_the_refusal_at_the_same_time_all_go_on(
    stage: StageOfTargets,
) -> None:
    policy = model("gpu0", "gpu1")
    ways = [Turns(routed_call(policy), stage.targets) for _ in range(100)]
    at_gpu0 = [turns.next_target() for turns in ways]

    for turns, attempt in zip(ways, at_gpu0, strict=True):
        assert attempt is not None
        turns.failed(attempt, BUSY, BUSY.code)
        attempt.failed(BUSY)
        attempt.end()

    for turns in ways:
        after = await turns.next()
        assert after is not None
        assert after.target.engine == "gpu1"


async def test_who_alone_could_answer_is_asked_although_it_rests(stage: StageOfTargets) -> None:
    policy = model("gpu0")
    for _ in range(3):
        _, said = await way(stage, policy, gpu0=BUSY)
        assert said == "429"
    assert stage.targets.state("gpu0", "a").num_asked == 3

    call, who = await way(stage, policy)

    assert who == "gpu0"
    assert tried(call) == ["gpu0:resting", "gpu0"]
    assert stage.targets.why_not("gpu0", "a") == "", "it has answered"


async def test_when_all_rest_a_call_asks_one_unless_the_budget_pays_for_more(
    stage: StageOfTargets,
) -> None:
    retry = RetryPolicy(budget_percent=0)
    policy = model("gpu0", "gpu1", "gpu2", retry=retry)
    call, _ = await way(stage, policy, gpu0=BUSY, gpu1=BUSY, gpu2=BUSY)
    assert tried(call) == ["gpu0:overloaded", "gpu1:overloaded", "gpu2:overloaded"]

    call, said = await way(stage, policy, gpu0=BUSY, gpu1=BUSY, gpu2=BUSY)

    assert said == "429"
    assert tried(call)[3:] == ["gpu0:overloaded", "gpu1:no_budget", "gpu2:no_budget"]
    policy = model("gpu0", "gpu1", "gpu2")
    assert (await way(stage, policy, gpu0=BUSY, gpu1=BUSY))[1] == "gpu2"
    assert stage.targets.budget("chat-small").num_extra == 2


async def test_who_rests_is_asked_for_nothing_when_the_one_that_did_not_is_full_too(
    stage: StageOfTargets,
) -> None:
    """Two upstreams that take ten calls at once each: one must not be lost for the other."""
    policy = model("gpu0", "gpu1", retry=RetryPolicy(budget_percent=0))
    await way(stage, policy, gpu0=BUSY)

    call, who = await way(stage, policy, gpu1=BUSY)

    assert who == "gpu0"
    assert tried(call) == ["gpu0:resting", "gpu1:overloaded", "gpu0"]


async def test_a_full_line_here_is_asked_by_each_call_and_the_next_costs_nothing(
    stage: StageOfTargets,
) -> None:
    for _ in range(100):
        call, who = await way(stage, model("gpu0", "gpu1"), gpu0=EngineOverloaded("64 wait"))
        assert who == "gpu1"
        assert tried(call) == ["gpu0:overloaded", "gpu1"]
    assert stage.targets.budget("chat-small").num_extra == 0


async def test_the_fallback_for_overloaded_comes_before_who_rests(stage: StageOfTargets) -> None:
    policy = model(
        "gpu0", fallbacks={"dear": ["unavailable"], "overflow": ["overloaded", "unavailable"]}
    )
    await way(stage, policy, gpu0=BUSY)

    call, who = await way(stage, policy, gpu0=BUSY)
    assert who == "overflow"
    assert tried(call) == ["gpu0:resting", "overflow"]

    call, who = await way(stage, policy, overflow=GONE)
    assert who == "gpu0", "no call fails because of a rest"
    assert tried(call) == ["gpu0:resting", "overflow:unavailable", "gpu0"]

    await way(stage, policy, gpu0=BUSY)
    call, who = await way(stage, policy, overflow=GONE, gpu0=GONE)
    assert tried(call)[2:] == ["gpu0:unavailable", "dear"]


async def test_a_fallback_that_rests_comes_behind_one_that_does_not(stage: StageOfTargets) -> None:
    policy = model("gpu0", fallbacks={"f0": ["unavailable"], "f1": ["unavailable", "overloaded"]})
    await way(stage, policy, gpu0=GONE, f0=BUSY)

    assert tried((await way(stage, policy, gpu0=GONE))[0]) == ["gpu0:unavailable", "f1"]
    call, _ = await way(stage, policy, gpu0=GONE, f1=Unavailable("gone"))
    assert tried(call) == ["gpu0:unavailable", "f1:unavailable", "f0"]


async def test_a_retry_asks_who_rests_when_the_pause_is_over(stage: StageOfTargets) -> None:
    policy = model("gpu0", retry=RetryPolicy(times=1, wait_seconds=0.25))

    _, who = await way(stage, policy, gpu0=[Overloaded("429")])

    assert who == "gpu0"
    assert stage.slept == [0.25]
    assert UNTOLD_SECONDS > 0.25, "it would still rest"


async def test_who_rests_goes_before_who_is_not_ready(stage: StageOfTargets) -> None:
    policy = model("gpu0", "gpu1")
    await way(stage, policy, gpu0=BUSY)
    stage.targets.note_health("gpu1", Health(ready=False))

    call, who = await way(stage, policy)

    assert who == "gpu0"
    assert tried(call) == ["gpu0:resting", "gpu1:not_ready", "gpu0"]
