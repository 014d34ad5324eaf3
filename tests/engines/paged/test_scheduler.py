import pytest

from engines.paged.block_pool import BlockPool
from engines.paged.scheduler import Scheduler
from engines.paged.sequence import Row, Sampled, SequenceState
from tests.engines.paged.fake_runner import answer
from tests.engines.paged.steps import Steps, counts, generated, prompt_of, sequence


def test_a_prompt_is_computed_and_sampled_in_one_step_then_token_by_token() -> None:
    steps = Steps()
    one = sequence(5, max_tokens=3)
    steps.add(one)

    plans = [steps.step() for _ in range(4)]

    assert [plan.rows if plan else None for plan in plans] == [
        (Row(one, 0, 5, samples=True),),
        (Row(one, 5, 1, samples=True),),
        (Row(one, 6, 1, samples=True),),
        None,
    ]
    assert generated(one) == answer(prompt_of(one), 3)


def test_a_step_is_planned_before_the_one_before_it_is_read() -> None:
    steps = Steps()
    one = sequence(5, max_tokens=3)
    steps.add(one)

    plans = [steps.launch() for _ in range(4)]

    assert [counts(plan) for plan in plans] == [[(one, 5)], [(one, 1)], [(one, 1)], []]
    assert generated(one) == answer(prompt_of(one), 3)
    assert one.state is SequenceState.FINISHED


def test_no_step_is_planned_beyond_the_last_token() -> None:
    steps = Steps()
    one = sequence(5, max_tokens=2)
    steps.add(one)
    steps.launch()
    steps.launch()

    assert one.num_pending == 1
    assert steps.launch() is None
    assert len(generated(one)) == 2


def test_long_prompts_are_chunked_behind_running_answers() -> None:
    steps = Steps(max_batch_tokens=16)
    answering, long = sequence(3), sequence(40)
    steps.add(answering)
    steps.step()
    steps.add(long)

    plans = [steps.step() for _ in range(4)]

    assert [counts(plan) for plan in plans] == [
        [(answering, 1), (long, 15)],
        [(answering, 1), (long, 15)],
        [(answering, 1), (long, 10)],
        [(answering, 1), (long, 1)],
    ]
    assert [row.samples for plan in plans if plan for row in plan.rows if row.sequence is long] == [
        False,
        False,
        True,
        True,
    ]


def test_what_a_chunk_leaves_goes_to_the_next_prompt() -> None:
    steps = Steps(max_batch_tokens=16)
    first, second = sequence(20), sequence(30)
    steps.add(first, second)

    plans = [steps.step() for _ in range(2)]

    assert [counts(plan) for plan in plans] == [[(first, 16)], [(first, 4), (second, 12)]]


def test_a_prompt_that_is_more_urgent_does_not_stall_an_answer_that_is_less() -> None:
    steps = Steps(max_batch_tokens=16)
    answering, urgent = sequence(3, priority=5), sequence(60)
    steps.add(answering)
    steps.step()
    steps.add(urgent)
    steps.step()

    plan = steps.step()

    assert counts(plan) == [(urgent, 15), (answering, 1)]


def test_a_lower_priority_number_is_admitted_first() -> None:
    steps = Steps(max_sequences=1)
    later, sooner = sequence(4, priority=1, max_tokens=1), sequence(4, priority=0, max_tokens=1)
    steps.add(later, sooner)

    assert counts(steps.step()) == [(sooner, 4)]
    assert counts(steps.step()) == [(later, 4)]


def test_a_stop_token_ends_the_answer_and_is_reported() -> None:
    steps = Steps()
    one = sequence(5)
    said = answer(one.tokens, 8)
    one.stop_tokens = frozenset({said[3]})
    steps.add(one)

    steps.run()

    assert generated(one) == said[: said.index(said[3]) + 1]
    assert steps.pool.num_in_use == 0


def test_a_step_that_was_launched_before_the_stop_was_read_says_nothing() -> None:
    steps = Steps()
    one = sequence(5)
    one.stop_tokens = frozenset(answer(one.tokens, 1))
    steps.add(one)
    first, second = steps.launch(), None
    assert first is not None

    second = steps.scheduler.schedule()
    assert second is not None
    sampled = steps.scheduler.complete(first, answer(one.tokens, 1))

    assert sampled == [Sampled(one, one.tokens[-1], "stop")]
    assert steps.scheduler.complete(second, [17]) == []
    assert one.num_generated == 1


def test_the_context_ends_an_answer() -> None:
    steps = Steps(max_context_tokens=10)
    one = sequence(6, max_tokens=100)
    steps.add(one)

    steps.run()

    assert generated(one) == answer(prompt_of(one), 4)


def test_a_sequence_alone_may_fill_the_cache_and_then_ends() -> None:
    steps = Steps(num_blocks=3, block_size=4)
    one = sequence(6, max_tokens=100)
    steps.add(one)

    steps.run()

    # The 13th token is said, and needs no room because nothing follows it.
    assert generated(one) == answer(prompt_of(one), 7)


def test_two_that_ask_the_same_at_once_compute_it_once() -> None:
    steps = Steps()
    prompt = list(range(18))
    first, second = sequence(prompt), sequence(prompt)
    steps.add(first, second)

    plan = steps.step()

    assert counts(plan) == [(first, 18), (second, 2)]
    assert (first.num_cached, second.num_cached) == (0, 16)
    steps.run()
    assert generated(first) == generated(second) == answer(prompt, 8)


def test_a_prompt_cached_to_its_last_token_copies_a_block_and_computes_one_token() -> None:
    steps = Steps()
    prompt = list(range(16))
    first, second = sequence(prompt), sequence(prompt)
    steps.add(first)
    steps.run()
    steps.add(second)

    plan = steps.step()

    assert plan is not None
    assert plan.rows == (Row(second, 15, 1, samples=True),)
    assert [target for _, target in plan.copies] == [second.blocks[3]]
    assert second.num_cached == 15
    steps.run()
    assert generated(second) == answer(prompt, 8)


def test_an_answer_is_found_again_as_the_beginning_of_the_next_prompt() -> None:
    steps = Steps()
    first = sequence(10, max_tokens=12)
    steps.add(first)
    steps.run()
    second = sequence([*first.tokens, 7, 7, 7])
    steps.add(second)

    steps.run()

    # 21 tokens of the first were computed: the last was only said.
    assert second.num_cached == 20
    assert generated(second) == answer(prompt_of(second), 8)


def test_what_an_aborted_prompt_had_not_computed_is_not_found() -> None:
    steps = Steps(max_batch_tokens=8)
    prompt = list(range(20))
    first, second = sequence(prompt), sequence(prompt)
    steps.add(first)
    steps.step()
    steps.abort(first)
    steps.add(second)

    steps.run()

    assert second.num_cached == 8
    assert generated(second) == answer(prompt, 8)


def test_an_abort_frees_at_once_and_twice_is_once() -> None:
    steps = Steps(max_sequences=1)
    running, waiting = sequence(6), sequence(6)
    steps.add(running, waiting)
    steps.launch()

    for one in (running, running, waiting, waiting):
        steps.abort(one)

    assert (steps.pool.num_in_use, steps.scheduler.num_running) == (0, 0)
    assert (steps.scheduler.num_waiting, steps.launch()) == (0, None)
    assert generated(running) == []


def test_the_blocks_of_an_aborted_one_may_be_used_in_the_very_next_step() -> None:
    steps = Steps(num_blocks=4)
    gone, next_one = sequence(12, max_tokens=4), sequence(12, max_tokens=4)
    steps.add(gone)
    steps.launch()
    steps.abort(gone)
    steps.add(next_one)

    steps.run()

    assert generated(next_one) == answer(prompt_of(next_one), 4)


def test_the_check_finds_what_is_wrong() -> None:
    steps = Steps()
    one = sequence(6)
    steps.add(one)
    steps.step()

    one.place = 5

    with pytest.raises(AssertionError):
        steps.scheduler.check()


def test_a_budget_that_cannot_serve_all_that_run_is_refused() -> None:
    with pytest.raises(ValueError, match=r"max_batch_tokens \(4\)"):
        Scheduler(
            BlockPool(4, 4),
            max_batch_tokens=4,
            max_sequences=5,
            max_waiting=1,
            max_context_tokens=10,
        )


def test_the_times_of_a_sequence_are_those_of_its_phases() -> None:
    steps = Steps(max_sequences=1)
    before, one = sequence(4, max_tokens=1), sequence(4, max_tokens=2)
    steps.add(before, one)
    steps.clock.now = 101.0
    steps.step()
    steps.clock.now = 103.0
    plan = steps.scheduler.schedule()
    assert plan is not None
    steps.clock.now = 106.0
    steps.scheduler.complete(plan, [1])

    timing = one.timing(110.0)

    assert (timing.queued, timing.prefill, timing.decode) == (3.0, 3.0, 4.0)


def test_what_a_log_may_show_of_a_sequence_says_nothing_of_its_prompt() -> None:
    one = sequence([271828, 314159], cache_salt="secret")

    assert not {"271828", "314159", "secret"} & set(repr(one).replace("'", " ").split())
    assert "271828" not in repr(Row(one, 0, 2))
    assert "secret" not in repr(one)
