"""What the scheduler does when blocks run short."""

from engines.paged.sequence import Sampled, Sequence, SequenceState, StepPlan
from tests.engines.paged.fake_runner import answer
from tests.engines.paged.steps import Steps, counts, generated, prompt_of, sequence


def test_when_blocks_run_out_the_last_admitted_waits_and_says_the_same() -> None:
    steps = Steps(num_blocks=6, block_size=4)
    old, young = sequence(8, max_tokens=12), sequence(8, max_tokens=12)
    steps.add(old, young)

    preempted = []
    while steps.scheduler.num_running or steps.scheduler.num_waiting:
        plan = steps.launch()
        preempted += plan.preempted if plan else ()

    assert set(preempted) == {young}
    assert generated(old) == answer(prompt_of(old), 12)
    assert generated(young) == answer(prompt_of(young), 12)
    assert young.num_admissions == 2


def test_the_least_urgent_is_preempted_whoever_came_last() -> None:
    steps = Steps(num_blocks=6, block_size=4)
    lowly, urgent = sequence(8, max_tokens=12, priority=1), sequence(8, max_tokens=12)
    steps.add(lowly)
    steps.step()
    steps.add(urgent)

    steps.run()

    assert (lowly.num_admissions, urgent.num_admissions) == (2, 1)


def preempted_with_a_token_unread(*, max_tokens: int) -> tuple[Steps, StepPlan, Sequence]:
    """Steps, the plan that is unread, and the sequence that was preempted behind it."""
    steps = Steps(num_blocks=9, block_size=4)
    first, second, victim = sequence(8), sequence(8), sequence(6, max_tokens=max_tokens)
    steps.add(first, second, victim)
    for _ in range(5):
        steps.launch()
    assert steps.in_flight is not None
    unread, _ = steps.in_flight
    plan = steps.scheduler.schedule()
    assert plan is not None
    assert plan.preempted == (victim,)
    assert victim.num_pending == 1
    for one in (first, second):
        steps.abort(one)
    return steps, unread, victim


def test_a_step_that_preempts_admits_nobody() -> None:
    steps = Steps(num_blocks=13, block_size=4)
    first, second, victim = sequence(8), sequence(8), sequence(22)
    steps.add(first, second, victim)
    for _ in range(5):
        steps.launch()
    steps.add(sequence(4, owner="another"))

    plan = steps.launch()
    after = steps.launch()

    assert plan is not None
    assert after is not None
    assert (plan.preempted, plan.admitted) == ((victim,), ())
    assert len(after.admitted) == 1


def test_one_that_was_preempted_waits_until_its_token_was_read() -> None:
    steps, unread, victim = preempted_with_a_token_unread(max_tokens=20)

    assert steps.scheduler.schedule() is None
    sampled = steps.scheduler.complete(unread, [1, 2, 3])
    again = steps.scheduler.schedule()

    assert sampled == [Sampled(victim, 3, None)]
    assert again is not None
    assert again.admitted == (victim,)
    assert again.rows[0].start + again.rows[0].count == len(victim.tokens) == 11


def test_a_preempted_one_whose_last_token_was_still_to_be_read_is_over() -> None:
    steps, unread, victim = preempted_with_a_token_unread(max_tokens=5)

    sampled = steps.scheduler.complete(unread, [1, 2, 3])

    assert sampled == [Sampled(victim, 3, "length")]
    assert victim.state is SequenceState.FINISHED
    assert (steps.scheduler.num_waiting, steps.pool.num_in_use) == (0, 0)
    steps.scheduler.check()


def test_the_last_in_order_pauses_rather_than_lose_its_blocks_to_itself() -> None:
    steps = Steps(num_blocks=5, block_size=4)
    old, young = sequence(10, max_tokens=4), sequence(7, max_tokens=6)
    steps.add(old, young)
    steps.step()
    steps.step()

    paused = steps.step()

    assert counts(paused) == [(old, 1)]
    assert paused is not None
    assert paused.preempted == ()
    steps.run()
    assert generated(young) == answer(prompt_of(young), 6)
    assert young.num_admissions == 1


def test_who_joins_leaves_a_block_for_each_that_runs() -> None:
    steps = Steps(num_blocks=4, block_size=4)
    running, joining = sequence(6, max_tokens=2), sequence(8, max_tokens=2)
    steps.add(running)
    steps.step()
    steps.add(joining)

    assert counts(steps.step()) == [(running, 1)]
    assert counts(steps.step()) == [(joining, 8)]


def test_nobody_smaller_overtakes_one_that_waits_for_blocks() -> None:
    steps = Steps(num_blocks=10, block_size=4, max_batch_tokens=64)
    running, large = sequence(20, max_tokens=8), sequence(32, max_tokens=2, owner="large")
    steps.add(running)
    steps.step()
    steps.add(large)
    steps.step()

    order = []
    for _ in range(40):
        steps.add(sequence(4, max_tokens=2, owner="large"))
        plan = steps.step()
        order += plan.admitted if plan else ()

    assert order[0] is large
