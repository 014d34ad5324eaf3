import asyncio
from typing import Any

import pytest

from engines.chat.answer import Admitted, Ended, Generated, PromptScored
from engines.errors import ContextTooLong, RequestRefused, Unavailable
from engines.outbox import Outbox
from engines.paged.generation import Generation
from engines.paged.sequence import Sequence, SequenceState
from engines.protocol import FinishReason
from tests.engines.paged.fake_runner import answer
from tests.engines.paged.recipients import Spelled, received, request
from tests.engines.paged.steps import Steps, prompt_of


class Turns:
    """A generation on the test's own thread, turned by hand."""

    def __init__(self, **shape: int) -> None:
        steps = Steps(**shape)
        self.scheduler, self.pool, self.runner = steps.scheduler, steps.pool, steps.runner
        self.outbox: Outbox[Any] = Outbox(asyncio.get_running_loop())
        self.generation = Generation(self.runner, self.scheduler, self.outbox)

    def add(self, *sequences: Sequence) -> None:
        for one in sequences:
            self.generation.add(one)

    async def turn(self, times: int = 1) -> None:
        for _ in range(times):
            self.generation.turn()
            self.scheduler.check()
        await self.deliver()

    async def deliver(self) -> None:
        self.outbox.flush()
        await asyncio.sleep(0)

    async def run(self) -> None:
        while self.generation.has_work:
            await self.turn()


def said(items: list[Any]) -> list[int]:
    return [item.token for item in items if isinstance(item, Generated)]


async def test_a_step_is_launched_before_the_last_is_read_and_sampled_after() -> None:
    turns = Turns()
    turns.add(request(4, max_tokens=3))

    await turns.run()

    assert turns.runner.events == [
        "forward 0",
        "sample 0",
        "forward 1",
        "read 0",
        "sample 1",
        "forward 2",
        "read 1",
        "sample 2",
        "read 2",
    ]


async def test_a_reader_gets_its_admission_each_token_and_the_end() -> None:
    turns = Turns()
    one = request(4, max_tokens=3)
    expected = answer(one.tokens, 3)
    turns.add(one)

    await turns.run()

    items = received(one)
    assert items[0] == Admitted(cached_tokens=0)
    assert items[1:4] == [Generated(token, -float(token)) for token in expected]
    assert isinstance(items[4], Ended)
    assert (items[4].reason, items[4].stop_token) == (FinishReason.LENGTH, None)
    assert items[5:] == []
    assert turns.runner.seated == {}


async def test_a_stop_token_comes_with_the_end_and_not_as_text() -> None:
    turns = Turns()
    one = request(4)
    expected = answer(one.tokens, 8)
    one.stop_tokens = frozenset({expected[1]})
    turns.add(one)

    await turns.run()

    items = received(one)
    assert said(items) == expected[:1]
    ended = items[-1]
    assert isinstance(ended, Ended)
    assert (ended.reason, ended.stop_token) == (FinishReason.STOP, expected[1])


async def test_what_can_never_run_is_told_to_its_reader() -> None:
    turns = Turns(max_context_tokens=10)
    one = request(10)

    turns.add(one)
    await turns.deliver()

    [error] = received(one)
    assert isinstance(error, ContextTooLong)
    assert not turns.generation.has_work


async def test_what_nobody_could_foresee_about_a_request_is_told_to_its_reader_only() -> None:
    turns = Turns()
    strange, other = request(4, owner=[]), request(4)  # a list is no key
    expected = answer(other.tokens, 8)

    turns.add(strange, other)
    await turns.run()

    [error] = received(strange)
    assert isinstance(error, Unavailable)
    assert said(received(other)) == expected


async def test_a_grammar_masks_each_token_after_it_has_taken_in_the_one_before() -> None:
    turns = Turns()
    constrained, free = request(4, constraint=Spelled([5, 6, 7, 8])), request(4)
    expected = answer(free.tokens, 8)
    turns.add(constrained, free)

    await turns.run()

    items = received(constrained)
    assert said(items) == [5, 6, 7, 8]
    assert isinstance(items[-1], Ended)
    assert items[-1].reason is FinishReason.STOP
    assert said(received(free)) == expected
    assert turns.pool.num_in_use == 0


@pytest.mark.parametrize("fails", ["mask", "accept"])
@pytest.mark.parametrize("error", [RuntimeError("boom"), RequestRefused("too expensive")])
async def test_a_grammar_that_fails_ends_its_own_answer_only(fails: str, error: Exception) -> None:
    turns = Turns()
    broken = request(4, constraint=Spelled([5, 6, 7, 8], fails, error))
    other = request(4)
    expected = answer(other.tokens, 8)
    turns.add(broken, other)

    await turns.run()

    last = received(broken)[-1]
    assert isinstance(last, RequestRefused if isinstance(error, RequestRefused) else Unavailable)
    assert str(error) in str(last)
    assert said(received(other)) == expected
    assert turns.runner.seated == {}


async def test_parameters_that_the_runner_refuses_end_their_own_answer_only() -> None:
    turns = Turns()
    prompt = list(range(18))
    refused, sharing = request(prompt, id="refused"), request(prompt)
    turns.runner.refused["refused"] = RequestRefused("logit_bias names token 900")
    turns.add(refused, sharing)

    await turns.run()

    [error] = received(refused)
    assert isinstance(error, RequestRefused)
    # It shares the blocks of the one that was refused, so their rows were still computed.
    assert sharing.num_cached == 16
    assert said(received(sharing)) == answer(prompt, 8)


async def test_each_reader_gets_its_own_logprobs_when_another_is_gone() -> None:
    turns = Turns()
    gone, one = request(4), request(4)
    turns.add(gone, one)
    await turns.turn(2)

    turns.generation.drop(gone)
    await turns.run()

    generated = [item for item in received(one) if isinstance(item, Generated)]
    assert [item.logprob for item in generated] == [-float(item.token) for item in generated]
    assert len(generated) == 8


async def test_a_prompt_is_scored_in_the_chunks_in_which_it_was_computed() -> None:
    turns = Turns(max_batch_tokens=8)
    one = request([3, 1, 4, 1, 5, 9, 2, 6, 5, 3], id="scored", max_tokens=1, reads_cache=False)
    turns.runner.scored.add("scored")
    turns.add(one)

    await turns.run()

    scores = [item for item in received(one) if isinstance(item, PromptScored)]
    assert [score.start for score in scores] == [0, 8]
    assert [-value for score in scores for value in score.logprobs] == prompt_of(one)


async def test_one_that_was_preempted_says_that_it_was_admitted_once() -> None:
    turns = Turns(num_blocks=6, block_size=4)
    old, young = request(8, max_tokens=12), request(8, max_tokens=12)
    expected = answer(young.tokens, 12)
    turns.add(old, young)

    await turns.run()

    items = received(young)
    assert young.num_admissions > 1
    assert sum(isinstance(item, Admitted) for item in items) == 1
    assert said(items) == expected
    assert turns.runner.seated == {}


async def test_dropping_a_sequence_tells_its_reader_nothing_and_frees_its_place() -> None:
    turns = Turns()
    one = request(4)
    turns.add(one)
    await turns.turn(2)
    received(one)

    turns.generation.drop(one)
    turns.generation.drop(one)
    await turns.run()

    assert received(one) == []
    assert one.state is SequenceState.FINISHED
    assert (turns.runner.seated, turns.pool.num_in_use) == ({}, 0)


async def test_when_all_fail_all_are_told_and_the_cache_is_forgotten() -> None:
    turns = Turns(max_sequences=1)
    running, waiting = request(8), request(4)
    turns.add(running, waiting)
    await turns.turn(2)

    turns.generation.fail_all(Unavailable("the device is gone"))
    await turns.deliver()

    for one in (running, waiting):
        assert isinstance(received(one)[-1], Unavailable)
    assert (turns.pool.num_in_use, turns.pool.num_idle) == (0, 0)
    assert not turns.generation.has_work
