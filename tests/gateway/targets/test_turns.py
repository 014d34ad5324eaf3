import pytest

from engines.errors import ContextTooLong, EngineError, ModelNotFound, Overloaded, Unavailable
from engines.protocol import Health
from gateway import Call, Target
from gateway.errors import ModelUnknown
from gateway.policy import BreakerPolicy, FallbackPolicy, ModelPolicy, RetryPolicy, TargetPolicy
from gateway.targets import Turns
from gateway.targets.rest import UNTOLD_SECONDS
from gateway.targets.retry_budget import RESERVE
from tests.gateway.targets.stage import StageOfTargets, routed_call, tried

FULL = Overloaded("64 wait")
GONE = Unavailable("gone")
LONG = ContextTooLong(prompt_tokens=9, context_tokens=8)


def model(
    *engines: str, fallbacks: dict[str, list[str]] | None = None, **fields: object
) -> ModelPolicy:
    return ModelPolicy(
        name="chat-small",
        targets=tuple(TargetPolicy(engine=engine, model="a") for engine in engines),
        fallbacks=tuple(
            FallbackPolicy(engine=engine, model="b", on=on)
            for engine, on in (fallbacks or {}).items()
        ),
        **fields,  # type: ignore[arg-type]
    )


@pytest.fixture
def stage() -> StageOfTargets:
    return StageOfTargets({}, draw=lambda: 1.0)


async def way(
    stage: StageOfTargets, policy: ModelPolicy, **errors: EngineError | list[EngineError]
) -> tuple[Call, str]:
    """Take one request to its end; an engine without an error answers. Who did, if anyone."""
    call = routed_call(policy)
    turns = Turns(call, stage.targets)
    left = {name: list(one) if isinstance(one, list) else one for name, one in errors.items()}
    while (attempt := await turns.next()) is not None:
        error = left.get(attempt.target.engine)
        if isinstance(error, list):
            error = error.pop(0) if error else None
        if error is None:
            attempt.answered()
            attempt.end()
            turns.left(attempt)
            return call, attempt.target.engine
        attempt.failed(error)
        attempt.end()
        turns.failed(attempt, error, error.code)
    return call, str(turns.refusal())


async def test_the_next_target_is_asked_at_once(stage: StageOfTargets) -> None:
    call, who = await way(stage, model("gpu0", "gpu1"), gpu0=GONE)

    assert who == "gpu1"
    assert tried(call) == ["gpu0:unavailable", "gpu1"]
    assert stage.slept == []


async def test_a_request_that_is_wrong_is_asked_of_no_other_target(stage: StageOfTargets) -> None:
    call, said = await way(stage, model("gpu0", "gpu1", retry=RetryPolicy(times=3)), gpu0=LONG)

    assert tried(call) == ["gpu0:context_too_long"]
    assert "context" in said


async def test_a_fallback_for_the_error_comes_after_a_refusal(stage: StageOfTargets) -> None:
    longer = {"overflow": ["overloaded"], "longer": ["context_too_long"]}

    call, who = await way(stage, model("gpu0", "gpu1", fallbacks=longer), gpu0=LONG)

    assert who == "longer"
    assert tried(call) == ["gpu0:context_too_long", "longer"]


async def test_targets_that_take_no_calls_are_passed_over_and_named(stage: StageOfTargets) -> None:
    stage.targets.drain("gpu0")
    stage.targets.note_health("gpu1", Health(ready=False))
    policy = model("gpu0", "gpu1", "gpu2", "gpu3", breaker=BreakerPolicy(failures=1))
    await way(stage, model("gpu2", breaker=BreakerPolicy(failures=1)), gpu2=GONE)

    call, who = await way(stage, policy)

    assert who == "gpu3"
    assert tried(call) == ["gpu0:drained", "gpu1:not_ready", "gpu2:breaker_open", "gpu3"]


async def test_when_nobody_could_be_asked_the_fallbacks_for_unavailable_are(
    stage: StageOfTargets,
) -> None:
    stage.targets.drain("gpu0")
    longer = {"longer": ["context_too_long"], "overflow": ["unavailable"]}

    call, who = await way(stage, model("gpu0", fallbacks=longer))

    assert who == "overflow"
    assert stage.targets.budget("chat-small").num_extra == 0
    assert tried(call) == ["gpu0:drained", "overflow"]


async def test_an_engine_that_is_not_ready_is_better_than_nobody(stage: StageOfTargets) -> None:
    stage.targets.note_health("gpu0", Health(ready=False))

    call, who = await way(stage, model("gpu0"))

    assert who == "gpu0"
    assert tried(call) == ["gpu0:not_ready", "gpu0"]


async def test_a_drained_target_or_an_open_breaker_is_not_asked_even_then(
    stage: StageOfTargets,
) -> None:
    policy = model("gpu0", "gpu1", breaker=BreakerPolicy(failures=1, open_seconds=7))
    stage.targets.drain("gpu1")
    await way(stage, policy, gpu0=GONE)

    call = routed_call(policy)
    turns = Turns(call, stage.targets)

    assert await turns.next() is None
    refusal = turns.refusal()
    assert isinstance(refusal, Unavailable)
    assert refusal.message == "no target of this model can take the request at the moment"
    assert refusal.retry_after == 7


async def test_a_model_that_the_engine_lacks_is_unknown_by_its_public_name(
    stage: StageOfTargets,
) -> None:
    call = routed_call(model("gpu0"))
    turns = Turns(call, stage.targets)
    attempt = await turns.next()
    assert attempt is not None
    turns.failed(attempt, ModelNotFound("a"), "model_not_found")

    assert await turns.next() is None
    refusal = turns.refusal()
    assert isinstance(refusal, ModelUnknown)
    assert refusal.model == "chat-small"


async def test_retries_back_off_twice_as_long_each_time_and_up_to_the_most(
    stage: StageOfTargets,
) -> None:
    retry = RetryPolicy(times=4, wait_seconds=0.5, max_wait_seconds=1.5)

    call, who = await way(stage, model("gpu0", retry=retry), gpu0=[GONE, GONE, GONE])
    assert who == "gpu0"
    assert stage.slept == [0.5, 1.0, 1.5]
    assert tried(call) == ["gpu0:unavailable"] * 3 + ["gpu0"]

    call, said = await way(stage, model("gpu0", retry=retry), gpu0=FULL)
    assert said == "64 wait"
    assert len(call.tried) == 5


async def test_half_of_a_pause_is_left_to_chance(stage: StageOfTargets) -> None:
    retry = RetryPolicy(times=1, wait_seconds=1.0)
    for drawn, pause in (0.0, 0.5), (0.5, 0.75):
        stage.targets.draw = lambda drawn=drawn: drawn
        stage.slept.clear()

        await way(stage, model("gpu0", retry=retry), gpu0=[FULL])

        assert stage.slept == [pause]


async def test_a_retry_waits_as_long_as_the_target_asks(stage: StageOfTargets) -> None:
    retry = RetryPolicy(times=1, wait_seconds=0.1, max_wait_seconds=5)
    full = Overloaded("full", retry_after=3.0)

    _, who = await way(stage, model("gpu0", retry=retry), gpu0=[full])

    assert who == "gpu0"
    assert stage.slept == [3.0]


async def test_a_target_that_asks_for_too_long_is_not_waited_for(stage: StageOfTargets) -> None:
    retry = RetryPolicy(times=3, max_wait_seconds=5)
    full = Overloaded("full", retry_after=60)
    policy = model("gpu0", fallbacks={"overflow": ["overloaded"]}, retry=retry)

    call, who = await way(stage, policy, gpu0=full)

    assert who == "overflow"
    assert stage.slept == []
    assert tried(call) == ["gpu0:overloaded", "gpu0:retry_after", "overflow"]


async def test_retries_go_round_and_prefer_who_may_be_asked_first(stage: StageOfTargets) -> None:
    retry = RetryPolicy(times=3, wait_seconds=0.1)
    full = Overloaded("full", retry_after=2.0)

    call, _ = await way(stage, model("gpu0", "gpu1", retry=retry), gpu0=full, gpu1=GONE)

    assert tried(call) == [
        "gpu0:overloaded",
        "gpu1:unavailable",
        "gpu1:unavailable",
        "gpu1:unavailable",
        "gpu1:unavailable",
    ]

    call, _ = await way(stage, model("gpu2", "gpu3", retry=retry), gpu2=FULL, gpu3=FULL)
    assert [one.engine for one in call.tried] == ["gpu2", "gpu3", "gpu2", "gpu3", "gpu2"]


async def test_a_breaker_that_opens_ends_the_retries(stage: StageOfTargets) -> None:
    policy = model("gpu0", retry=RetryPolicy(times=9), breaker=BreakerPolicy(failures=3))

    call, said = await way(stage, policy, gpu0=GONE)

    assert said == "gone"
    assert tried(call) == ["gpu0:unavailable"] * 3 + ["gpu0:breaker_open"]


async def test_without_a_budget_there_is_no_second_attempt(stage: StageOfTargets) -> None:
    policy = model("gpu0", "gpu1", retry=RetryPolicy(times=1, budget_percent=0))

    call, said = await way(stage, policy, gpu0=GONE)

    assert said == "gone"
    assert tried(call) == ["gpu0:unavailable", "gpu1:no_budget", "gpu0:no_budget"]


async def test_the_budget_of_a_model_bounds_its_second_attempts(stage: StageOfTargets) -> None:
    policy = model(
        "gpu0", "gpu1", "gpu2", retry=RetryPolicy(times=2), breaker=BreakerPolicy(failures=0)
    )

    for _ in range(1000):
        await way(stage, policy, gpu0=GONE, gpu1=GONE, gpu2=GONE)

    budget = stage.targets.budget("chat-small")
    assert budget.num_requests == 1000
    assert 200 <= budget.num_extra <= 200 + RESERVE
    asked = sum(one.asked for one in stage.targets.snapshot().targets)
    assert asked == 1000 + budget.num_extra


async def test_a_fallback_after_a_full_queue_costs_nothing_and_after_a_failure_it_does(
    stage: StageOfTargets,
) -> None:
    policy = model("gpu0", fallbacks={"overflow": ["overloaded", "unavailable"]})
    budget = stage.targets.budget("chat-small")

    for _ in range(100):
        assert (await way(stage, policy, gpu0=FULL))[1] == "overflow"
    assert budget.num_extra == 0

    stage.clock.advance(UNTOLD_SECONDS)
    await way(stage, policy, gpu0=GONE)
    assert budget.num_extra == 1


NO_MODEL = ModelNotFound("a")


async def test_a_model_that_one_engine_lacks_is_asked_of_the_next_and_that_costs_nothing(
    stage: StageOfTargets,
) -> None:
    policy = model("gpu0", "gpu1", "gpu2", retry=RetryPolicy(times=2, budget_percent=0))

    for _ in range(100):
        call, who = await way(stage, policy, gpu0=NO_MODEL, gpu1=NO_MODEL)
        assert who == "gpu2"
    assert tried(call) == ["gpu0:model_not_found", "gpu1:model_not_found", "gpu2"]

    call, said = await way(stage, policy, gpu0=NO_MODEL, gpu1=NO_MODEL, gpu2=NO_MODEL)
    assert len(call.tried) == 3, "it is not asked again of who lacks it"
    assert "does not exist" in said


async def test_that_the_model_is_elsewhere_and_cannot_be_asked_for_is_no_absence(
    stage: StageOfTargets,
) -> None:
    policy = model("gpu0", "gpu1")
    for errors in {"gpu0": NO_MODEL, "gpu1": GONE}, {"gpu0": GONE, "gpu1": NO_MODEL}:
        assert (await way(stage, policy, **errors))[1] == "gone"

    stage.targets.drain("gpu1")
    assert "at the moment" in (await way(stage, policy, gpu0=NO_MODEL))[1]


async def test_who_lists_no_such_model_is_asked_only_when_nobody_else_has_it(
    stage: StageOfTargets,
) -> None:
    async def tries(error: EngineError) -> list[str]:
        call = routed_call(
            model("gpu0", "gpu1"), Target("gpu0", "a"), Target("gpu1", "a", is_unlisted=True)
        )
        turns = Turns(call, stage.targets)
        while (attempt := await turns.next()) is not None:
            turns.failed(attempt, error, error.code)
            attempt.end()
        return [*tried(call)]

    assert await tries(NO_MODEL) == ["gpu0:model_not_found", "gpu1:model_not_found"]
    assert await tries(GONE) == ["gpu0:unavailable"]
