import pytest
from structlog.testing import capture_logs

from engines.errors import (
    ContextTooLong,
    EngineError,
    EngineOverloaded,
    ModelNotFound,
    Overloaded,
    RequestRefused,
    Unavailable,
)
from gateway import Target
from gateway.policy import BreakerPolicy
from gateway.targets import Attempt, Targets
from tests.fakes import FakeClock

GPU0 = Target("gpu0", "a")
RULES = BreakerPolicy(failures=2, open_seconds=5)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def targets(clock: FakeClock) -> Targets:
    return Targets(clock=clock)


def attempt(targets: Targets) -> Attempt:
    return targets.begin(GPU0, RULES)


def fail(targets: Targets, error: EngineError) -> None:
    one = attempt(targets)
    one.failed(error)
    one.end()


def test_a_place_is_held_until_the_end_which_may_come_twice(targets: Targets) -> None:
    first, second = attempt(targets), attempt(targets)
    assert targets.in_flight("gpu0") == 2

    first.answered()
    first.completed()
    first.end()
    first.end()

    assert targets.in_flight("gpu0") == 1
    second.given_up()
    assert targets.in_flight("gpu0") == 0


def test_the_time_to_the_first_output_is_what_counts(targets: Targets, clock: FakeClock) -> None:
    one = attempt(targets)
    clock.advance(0.5)
    one.answered()
    clock.advance(60)
    one.completed()
    one.end()

    clock.advance(-60)
    assert targets.state("gpu0", "a").latency.seconds(clock()) == 0.5


@pytest.mark.parametrize(
    "error",
    [
        RequestRefused("bad schema"),
        ContextTooLong(prompt_tokens=9, context_tokens=8),
        ModelNotFound("a"),
        EngineOverloaded("full"),
    ],
)
def test_what_a_client_did_wrong_and_a_full_queue_open_no_breaker(
    targets: Targets, error: EngineError
) -> None:
    for _ in range(20):
        fail(targets, error)

    assert targets.why_not("gpu0", "a") == ""
    assert targets.state("gpu0", "a").num_refused == 20


@pytest.mark.parametrize("error", [Unavailable("gone"), EngineError("odd")])
def test_a_target_that_does_not_answer_is_left_alone(targets: Targets, error: EngineError) -> None:
    with capture_logs() as logged:
        fail(targets, error)
        assert targets.why_not("gpu0", "a") == ""
        fail(targets, error)

    assert targets.why_not("gpu0", "a") == "breaker_open"
    assert [(entry["event"], entry["engine"], entry["seconds"]) for entry in logged] == [
        ("breaker_opened", "gpu0", 5.0)
    ]


@pytest.mark.parametrize("error", [None, EngineOverloaded("full"), RequestRefused("bad")])
def test_a_probe_that_is_answered_at_all_closes_the_breaker(
    targets: Targets, clock: FakeClock, error: EngineError | None
) -> None:
    for _ in range(2):
        fail(targets, Unavailable("gone"))
    clock.advance(5)

    with capture_logs() as logged:
        probe = attempt(targets)
        assert targets.why_not("gpu0", "a") == "breaker_open"
        probe.answered() if error is None else probe.failed(error)
        probe.end()

    assert targets.why_not("gpu0", "a") == ""
    assert [entry["event"] for entry in logged] == ["breaker_closed"]


def test_a_target_that_breaks_in_mid_stream_each_time_is_left_alone(targets: Targets) -> None:
    for _ in range(2):
        one = attempt(targets)
        one.answered()
        one.failed(Unavailable("died"))
        one.end()

    assert targets.why_not("gpu0", "a") == "breaker_open"


def test_a_target_may_say_itself_how_long_to_leave_it(targets: Targets) -> None:
    for _ in range(2):
        fail(targets, Unavailable("restarting", retry_after=30))

    assert targets.state("gpu0", "a").breaker.seconds_left(targets.clock()) == 30


def test_a_client_that_leaves_is_nobodys_fault(targets: Targets, clock: FakeClock) -> None:
    for _ in range(20):
        attempt(targets).given_up()
    assert targets.why_not("gpu0", "a") == ""

    for _ in range(2):
        fail(targets, Unavailable("gone"))
    clock.advance(5)
    attempt(targets).given_up()
    assert targets.why_not("gpu0", "a") == ""


def test_a_target_that_says_that_it_is_overloaded_rests_and_its_breaker_stays_closed(
    targets: Targets, clock: FakeClock
) -> None:
    with capture_logs() as logged:
        for _ in range(20):
            fail(targets, Overloaded("429", retry_after=30))

    assert targets.why_not("gpu0", "a") == "resting"
    assert targets.state("gpu0", "a").breaker.state(clock()) == "closed"
    assert [(one["event"], one["seconds"]) for one in logged] == [("target_rests", 30.0)]
    clock.advance(30)
    assert targets.why_not("gpu0", "a") == ""


def test_a_full_line_of_the_engines_own_lets_it_not_rest(targets: Targets) -> None:
    fail(targets, EngineOverloaded("64 wait", retry_after=30))

    assert targets.why_not("gpu0", "a") == ""


def test_an_answer_to_a_call_of_after_the_refusal_ends_the_rest_and_to_one_before_does_not(
    targets: Targets,
) -> None:
    before = attempt(targets)
    fail(targets, Overloaded("429", retry_after=30))
    after = attempt(targets)

    before.answered()
    assert targets.why_not("gpu0", "a") == "resting"
    after.answered()
    assert targets.why_not("gpu0", "a") == ""
