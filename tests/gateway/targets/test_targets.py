import msgspec
import pytest
from structlog.testing import capture_logs

from engines.errors import Overloaded, Unavailable
from engines.protocol import Health
from gateway import Target
from gateway.policy import (
    BreakerPolicy,
    EnginePolicy,
    FallbackPolicy,
    ModelPolicy,
    Policy,
    TargetPolicy,
)
from gateway.targets import Targets
from gateway.targets.targets import MAX_NAME, MAX_REMEMBERED
from tests.fakes import FakeClock
from tests.plugins.policies import policy_of

RULES = BreakerPolicy(failures=1, open_seconds=5)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def targets(clock: FakeClock) -> Targets:
    return Targets(clock=clock)


def break_down(targets: Targets, engine: str, model: str) -> None:
    attempt = targets.begin(Target(engine, model), RULES)
    attempt.failed(Unavailable("gone"))
    attempt.end()


def policy(*models: ModelPolicy, **engines: object) -> Policy:
    built = {
        name: EnginePolicy(name=name, kind="gguf", config=config)
        for name, config in engines.items()
    }
    return msgspec.structs.replace(policy_of(models=models), engines=built)


def model(name: str, *engines: str, own: str | None = "a") -> ModelPolicy:
    return ModelPolicy(
        name=name, targets=tuple(TargetPolicy(engine=engine, model=own) for engine in engines)
    )


def test_a_breaker_is_of_one_target_and_not_of_its_engine(targets: Targets) -> None:
    break_down(targets, "gpu0", "a")

    assert targets.why_not("gpu0", "a") == "breaker_open"
    assert targets.why_not("gpu0", "b") == ""
    assert targets.why_not("gpu1", "a") == ""


def test_an_engine_that_is_not_ready_takes_no_calls_until_it_is(targets: Targets) -> None:
    with capture_logs() as logged:
        targets.note_health("gpu0", Health(ready=True))
        targets.note_health("gpu0", Health(ready=False, detail="restarting"))
        assert targets.why_not("gpu0", "a") == "not_ready"
        targets.note_health("gpu0", Health(ready=False, detail="restarting"))
        targets.note_health("gpu0", Health(ready=True))

    assert targets.why_not("gpu0", "a") == ""
    assert [entry["event"] for entry in logged] == ["engine_not_ready", "engine_ready_again"]


def test_a_drained_target_takes_no_calls_and_the_others_of_its_engine_do(targets: Targets) -> None:
    running = targets.begin(Target("gpu0", "a"), RULES)

    assert targets.drain("gpu0", "a") == 1
    assert targets.why_not("gpu0", "a") == "drained"
    assert targets.why_not("gpu0", "b") == ""

    running.end()
    assert targets.in_flight("gpu0", "a") == 0
    targets.resume("gpu0", "a")
    assert targets.why_not("gpu0", "a") == ""


def test_a_drained_engine_takes_no_calls_at_all_until_it_is_resumed(targets: Targets) -> None:
    targets.drain("gpu0", "a")
    targets.drain("gpu0")
    assert targets.why_not("gpu0", "b") == "drained"

    targets.resume("gpu0", "b")
    assert targets.why_not("gpu0", "b") == "drained"

    targets.resume("gpu0")
    assert targets.why_not("gpu0", "a") == ""


def test_what_is_known_of_a_target_survives_a_reload_that_keeps_it(targets: Targets) -> None:
    old = policy(model("chat", "gpu0", "gpu1"), gpu0=1, gpu1=1)
    running = targets.begin(Target("gpu1", "a"), RULES)
    break_down(targets, "gpu0", "a")
    targets.state("gpu1", "a").latency.observe(0.5, targets.clock())
    targets.drain("gpu1", "a")
    targets.budget("chat").pay_in(20)

    targets.policy_replaced(old, policy(model("chat", "gpu1", "gpu0"), gpu0=1, gpu1=1))

    report = {one.engine: one for one in targets.snapshot().targets}
    assert report["gpu0"].breaker == "open"
    assert report["gpu1"].in_flight == 1
    assert report["gpu1"].first_output_seconds == 0.5
    assert report["gpu1"].drained
    assert targets.snapshot().models[0].requests == 1
    running.end()


def test_a_target_that_left_the_policy_is_forgotten(targets: Targets) -> None:
    old = policy(model("chat", "gpu0", "gpu1"), model("code", "gpu0"), gpu0=1, gpu1=1)
    break_down(targets, "gpu0", "a")
    break_down(targets, "gpu1", "a")
    targets.budget("code")

    targets.policy_replaced(old, policy(model("chat", "gpu0"), gpu0=1, gpu1=1))

    assert [one.engine for one in targets.snapshot().targets] == ["gpu0"]
    assert targets.snapshot().models == []


def test_an_engine_that_was_made_anew_is_given_a_new_chance(targets: Targets) -> None:
    old = policy(model("chat", "gpu0", "gpu1"), gpu0=1, gpu1=1)
    for engine in ("gpu0", "gpu1"):
        break_down(targets, engine, "a")
        targets.drain(engine)
        targets.note_health(engine, Health(ready=False))

    targets.policy_replaced(old, policy(model("chat", "gpu0", "gpu1"), gpu0=2, gpu1=1))

    assert targets.why_not("gpu0", "a") == ""
    assert targets.why_not("gpu1", "a") == "drained"


def test_behind_a_glob_and_as_a_fallback_a_target_stays(targets: Targets) -> None:
    glob = model("*", "gpu0", own=None)
    other = ModelPolicy(
        name="chat",
        targets=(TargetPolicy(engine="gpu1"),),
        fallbacks=(FallbackPolicy(engine="gpu2", model="b"),),
    )
    for place in (("gpu0", "anything"), ("gpu1", "chat"), ("gpu2", "b"), ("gpu2", "c")):
        break_down(targets, *place)

    targets.policy_replaced(policy(glob, other), policy(glob, other))

    assert [(one.engine, one.model) for one in targets.snapshot().targets] == [
        ("gpu0", "anything"),
        ("gpu1", "chat"),
        ("gpu2", "b"),
    ]


def test_names_that_callers_make_up_do_not_fill_the_memory(targets: Targets) -> None:
    break_down(targets, "gpu0", "broken")
    running = targets.begin(Target("gpu0", "running"), RULES)

    for number in range(MAX_REMEMBERED * 2):
        targets.state("gpu0", f"name-{number}")
        targets.budget(f"name-{number}")
    targets.state("gpu0", "x" * 1_000_000)

    report = targets.snapshot()
    assert len(report.targets) <= MAX_REMEMBERED
    assert len(report.models) <= MAX_REMEMBERED
    assert targets.why_not("gpu0", "broken") == "breaker_open"
    assert targets.in_flight("gpu0") == 1
    assert max(len(one.model) for one in report.targets) == MAX_NAME
    running.end()


def test_a_snapshot_says_everything(targets: Targets, clock: FakeClock) -> None:
    attempt = targets.begin(Target("gpu0", "a"), RULES)
    clock.advance(0.25)
    attempt.answered()
    targets.note_health("gpu0", Health(ready=False, detail="restarting"))
    break_down(targets, "gpu1", "b")
    clock.advance(2)
    targets.budget("chat").pay_in(20)

    report = targets.snapshot()

    first, second = report.targets
    assert (first.engine, first.model, first.breaker, first.in_flight) == ("gpu0", "a", "closed", 1)
    assert (first.asked, first.answered, first.ready, first.detail) == (1, 1, False, "restarting")
    assert (second.breaker, second.probe_in_seconds, second.failed) == ("open", 3.0, 1)
    assert second.first_output_seconds is None
    assert (report.models[0].model, report.models[0].budget_left) == ("chat", 10.2)
    assert report.mirrors.running == 0


def test_a_rest_is_reported_and_not_forgotten(targets: Targets, clock: FakeClock) -> None:
    attempt = targets.begin(Target("gpu0", "a"), RULES)
    attempt.failed(Overloaded("429", retry_after=8))
    attempt.end()

    clock.advance(3)
    (report,) = targets.snapshot().targets
    assert report.rests_for_seconds == 5
    assert not targets.state("gpu0", "a").is_idle(clock())
    clock.advance(5)
    assert targets.state("gpu0", "a").is_idle(clock())
