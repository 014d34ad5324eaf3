"""Who may wait, for how long, and whose turn it is, seen through the scheduler."""

import pytest

from engines.errors import ContextTooLong, Overloaded, RequestRefused
from engines.paged.sequence import Sequence
from tests.engines.paged.steps import Steps, sequence


def test_a_prompt_as_long_as_the_context_is_refused_before_it_waits() -> None:
    steps = Steps(max_context_tokens=10)

    with pytest.raises(ContextTooLong, match="context is 10 tokens; the prompt has 10"):
        steps.add(sequence(10))

    steps.add(sequence(9))
    assert steps.scheduler.num_waiting == 1


def test_a_prompt_that_the_cache_can_never_hold_is_refused_before_it_waits() -> None:
    steps = Steps(num_blocks=3, block_size=4)

    with pytest.raises(RequestRefused, match=r"13 tokens .* room for 12"):
        steps.add(sequence(13))

    one = sequence(12)
    steps.add(one)
    steps.run()
    assert one.num_generated == 1


@pytest.mark.parametrize(("num_tokens", "max_tokens"), [(0, 5), (5, 0), (5, -1)])
def test_nothing_to_read_or_nothing_to_say_is_refused(num_tokens: int, max_tokens: int) -> None:
    with pytest.raises(RequestRefused):
        Steps().add(sequence(num_tokens, max_tokens=max_tokens))


def test_a_burst_is_taken_in_as_long_as_there_are_places() -> None:
    steps = Steps(max_sequences=4, max_waiting=1)

    steps.add(*(sequence(3) for _ in range(4)))

    with pytest.raises(Overloaded, match="4 requests are waiting"):
        steps.add(sequence(3))


def test_a_line_that_waits_for_blocks_is_full_at_its_bound() -> None:
    steps = Steps(num_blocks=4, block_size=4, max_sequences=8, max_waiting=1)
    steps.add(sequence(12, max_tokens=4))
    steps.step()
    steps.add(sequence(12))
    steps.step()

    with pytest.raises(Overloaded):
        steps.add(sequence(3))


def test_an_engine_that_has_nothing_to_do_is_never_full() -> None:
    steps = Steps(max_sequences=1, max_waiting=0)
    running = sequence(3)
    steps.add(running)
    with pytest.raises(Overloaded):
        steps.add(sequence(3))
    steps.step()
    with pytest.raises(Overloaded):
        steps.add(sequence(3))

    steps.abort(running)

    steps.add(sequence(3))


def test_retry_after_follows_the_pace_at_which_sequences_end() -> None:
    steps = Steps(max_sequences=2, max_waiting=8)
    steps.add(*(sequence(3, max_tokens=2) for _ in range(8)))
    steps.step()
    steps.clock.now += 30
    steps.step()
    steps.step()
    steps.add(*(sequence(3) for _ in range(4)))

    with pytest.raises(Overloaded) as refused:
        steps.add(sequence(3))

    # Half of 8 that wait, 30 seconds each, two at a time.
    assert refused.value.retry_after == 60


def test_before_anything_has_ended_retry_after_goes_by_who_runs_longest() -> None:
    steps = Steps(max_sequences=1, max_waiting=2)
    steps.add(sequence(3))
    steps.step()
    steps.clock.now += 12
    steps.add(sequence(3), sequence(3))

    with pytest.raises(Overloaded) as refused:
        steps.add(sequence(3))

    assert refused.value.retry_after == 12


def test_retry_after_is_unknown_when_nothing_has_run() -> None:
    steps = Steps(max_sequences=1, max_waiting=0)
    steps.add(sequence(3))

    with pytest.raises(Overloaded) as refused:
        steps.add(sequence(3))

    assert refused.value.retry_after is None


def shares(steps: Steps, weights: dict[str, float], *, num_steps: int, num_prompt: int) -> float:
    """The part of all computed tokens that went to "b" while both owners flood the engine."""
    tokens = dict.fromkeys(weights, 0)
    waiting: dict[str, list[Sequence]] = {owner: [] for owner in weights}
    for _ in range(num_steps):
        for owner, line in waiting.items():
            line[:] = [one for one in line if not one.num_admissions]
            while len(line) < 20:
                line.append(sequence(num_prompt, owner=owner, weight=weights[owner]))
                steps.add(line[-1])
        plan = steps.launch()
        for row in plan.rows if plan else ():
            tokens[row.sequence.owner] += row.count
    return tokens["b"] / sum(tokens.values())


@pytest.mark.parametrize("num_prompt", [3, 30])
def test_a_flood_of_two_owners_is_served_by_their_weights(num_prompt: int) -> None:
    steps = Steps(num_blocks=200, max_sequences=16, max_batch_tokens=64)

    share = shares(steps, {"a": 1.0, "b": 3.0}, num_steps=600, num_prompt=num_prompt)

    assert share == pytest.approx(0.75, rel=0.1)


def test_weights_hold_when_blocks_are_what_is_short() -> None:
    steps = Steps(num_blocks=40, max_sequences=16, max_batch_tokens=64)

    share = shares(steps, {"a": 1.0, "b": 3.0}, num_steps=600, num_prompt=20)

    assert share == pytest.approx(0.75, rel=0.1)


def test_an_owner_that_was_idle_has_saved_nothing_up() -> None:
    steps = Steps(max_sequences=2)
    steps.add(sequence(20, owner="a", max_tokens=1))
    steps.add(*(sequence(20, owner="b", max_tokens=1) for _ in range(20)))
    for _ in range(8):
        steps.step()
    steps.add(*(sequence(20, owner="a", max_tokens=1) for _ in range(20)))

    admitted: list[str] = []
    for _ in range(6):
        plan = steps.step()
        admitted += [one.owner for one in plan.admitted] if plan else []

    assert abs(admitted.count("a") - admitted.count("b")) <= 2


def test_a_large_request_is_reached_although_small_ones_keep_coming() -> None:
    steps = Steps(num_blocks=20, block_size=4, max_sequences=4, max_batch_tokens=32)
    large = sequence(60, max_tokens=10, owner="large")
    steps.add(*(sequence(8, max_tokens=10, owner="small") for _ in range(8)))
    steps.step()
    steps.add(large)

    num_steps = 0
    while large.num_generated < 10:
        if steps.scheduler.num_waiting < 8:
            steps.add(sequence(8, max_tokens=10, owner="small"))
        steps.launch()
        num_steps += 1
        assert num_steps < 200, "starved"


def test_what_is_computed_again_after_a_preemption_is_not_charged_again() -> None:
    steps = Steps(num_blocks=6, block_size=4)
    one, other = sequence(8, max_tokens=12), sequence(8, max_tokens=12, owner="other")
    steps.add(one, other)
    steps.add(sequence(3, owner="keeps the accounts open", priority=9))

    while other.num_generated < 12:
        steps.step()

    assert other.num_admissions > 1
    # 8 tokens of prompt, and 12 of answer at twice the price.
    counters = steps.scheduler._waiting._queue._counters
    assert counters["other"] - counters["-"] <= 8 + 2 * 12
    assert counters["-"] == 8 + 2 * 12
