from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from gateway.policy import BreakerPolicy
from gateway.targets.circuit_breaker import CircuitBreaker

RULES = BreakerPolicy(failures=3, open_seconds=5, max_open_seconds=20)


def fail(breaker: CircuitBreaker, now: float, **changes: float) -> bool:
    ticket = breaker.enter(now)
    assert ticket is not None
    return breaker.failed(ticket, now, RULES, **changes)


def opened(now: float = 0.0) -> CircuitBreaker:
    breaker = CircuitBreaker()
    assert [fail(breaker, now) for _ in range(3)] == [False, False, True]
    return breaker


def test_it_opens_after_failures_in_a_row_and_lets_nobody_in():
    breaker = opened()

    assert breaker.state(4.9) == "open"
    assert not breaker.admits(4.9)
    assert breaker.enter(4.9) is None
    assert breaker.seconds_left(4.0) == 1.0


def test_an_answer_in_between_starts_the_count_anew():
    breaker = CircuitBreaker()
    fail(breaker, 0.0)
    fail(breaker, 0.0)

    ticket = breaker.enter(0.0)
    assert ticket is not None
    breaker.completed(ticket)

    assert not fail(breaker, 0.0)
    assert breaker.state(0.0) == "closed"


def test_an_answer_that_began_and_broke_does_not_hide_the_failures_before_it():
    breaker = CircuitBreaker()
    for _ in range(2):
        ticket = breaker.enter(0.0)
        assert ticket is not None
        breaker.failed(breaker.answered(ticket), 0.0, RULES)

    assert fail(breaker, 0.0)


def test_half_open_it_lets_one_call_in_at_a_time():
    breaker = opened()

    assert breaker.state(5.0) == "half_open"
    probe = breaker.enter(5.0)

    assert probe is not None
    assert breaker.enter(5.0) is None
    assert not breaker.admits(6.0)


def test_a_probe_with_output_closes_it():
    breaker = opened()
    probe = breaker.enter(5.0)
    assert probe is not None

    after = breaker.answered(probe)

    assert after != probe
    assert breaker.state(5.0) == "closed"
    assert breaker.failures == 0
    assert breaker.admits(5.0)


def test_each_failed_probe_doubles_the_time_up_to_the_most():
    breaker = opened()
    now, periods = 5.0, []

    for _ in range(4):
        assert fail(breaker, now)
        periods.append(breaker.seconds_left(now))
        now += periods[-1]

    assert periods == [10.0, 20.0, 20.0, 20.0]


def test_after_closing_the_time_is_short_again():
    breaker = opened()
    fail(breaker, 5.0)
    probe = breaker.enter(15.0)
    assert probe is not None
    breaker.answered(probe)

    assert [fail(breaker, 15.0) for _ in range(3)] == [False, False, True]
    assert breaker.seconds_left(15.0) == 5.0


def test_a_probe_that_ends_without_a_verdict_makes_room_for_the_next():
    breaker = opened()
    probe = breaker.enter(5.0)
    assert probe is not None

    breaker.let_go(probe)

    assert breaker.enter(5.0) is not None


def test_calls_of_before_it_opened_decide_nothing():
    breaker = CircuitBreaker()
    early = [breaker.enter(0.0) for _ in range(3)]
    assert None not in early
    for _ in range(3):
        fail(breaker, 0.0)

    for ticket in early:
        assert ticket is not None
        assert breaker.answered(ticket) == ticket
        breaker.completed(ticket)
        assert not breaker.failed(ticket, 1.0, RULES)
        breaker.let_go(ticket)

    assert breaker.state(1.0) == "open"
    assert breaker.seconds_left(1.0) == 4.0
    assert breaker.enter(5.0) is not None
    assert breaker.enter(5.0) is None


def test_it_stays_open_as_long_as_the_target_asks_within_the_rules():
    for asked, seconds in (2.0, 5.0), (12.0, 12.0), (100.0, 20.0):
        breaker = CircuitBreaker()
        for _ in range(3):
            fail(breaker, 0.0, retry_after=asked)

        assert breaker.seconds_left(0.0) == seconds


def test_with_0_failures_it_never_opens_and_an_open_one_closes():
    never = BreakerPolicy(failures=0)
    breaker = CircuitBreaker()
    for _ in range(100):
        ticket = breaker.enter(0.0)
        assert ticket is not None
        assert not breaker.failed(ticket, 0.0, never)

    breaker = opened()
    probe = breaker.enter(5.0)
    assert probe is not None
    breaker.failed(probe, 5.0, never)
    assert breaker.state(5.0) == "closed"


class AnyCalls(RuleBasedStateMachine):
    """Calls come, end in every way and in any order, and time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = CircuitBreaker()
        self.now = 0.0
        self.held: list[int] = []
        self.probe: int | None = None

    @rule()
    def enter(self) -> None:
        state = self.breaker.state(self.now)
        admits = self.breaker.admits(self.now)
        ticket = self.breaker.enter(self.now)
        assert (ticket is not None) == admits
        if ticket is None:
            assert state != "closed"
            return
        assert state != "open"
        self.held.append(ticket)
        if state == "half_open":
            assert self.probe is None
            self.probe = ticket

    @rule(seconds=st.integers(0, 8))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @precondition(lambda self: self.held)
    @rule(how=st.sampled_from(["whole", "failed", "let go"]), which=st.integers(0))
    def end(self, how: str, which: int) -> None:
        ticket = self.held.pop(which % len(self.held))
        if ticket == self.probe:
            self.probe = None
        if how == "whole":
            ticket = self.breaker.answered(ticket)
            self.breaker.completed(ticket)
        elif how == "failed":
            self.breaker.failed(ticket, self.now, RULES)
        self.breaker.let_go(ticket)

    def teardown(self) -> None:
        for ticket in self.held:
            self.breaker.let_go(ticket)
        assert self.breaker.enter(self.now + RULES.max_open_seconds) is not None


test_there_is_one_probe_at_a_time_and_never_a_dead_end = AnyCalls.TestCase
