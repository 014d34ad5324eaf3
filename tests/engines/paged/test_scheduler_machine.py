"""The scheduler and the block pool together, under anything that may happen to them.

One machine adds, aborts, launches and reads in any order, with prompts that begin alike,
salts, priorities, stop tokens and far too few blocks. After each rule everything is
checked; in the end everybody must have said exactly what the model says to their prompt.
"""

from collections import deque
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from engines.errors import ContextTooLong, Overloaded, RequestRefused
from engines.paged.block_pool import BlockPool
from engines.paged.scheduler import Scheduler
from engines.paged.sequence import Sequence, SequenceState, StepPlan
from tests.engines.paged.fake_runner import VOCABULARY, FakePending, FakeRunner, answer

CONTEXT_TOKENS = 30
MAX_WAITING = 6
MIN_STEPS = 10_000
MAX_IN_FLIGHT = 3  # the step loop never has more than 2
# Prompts that share beginnings of every length.
STORY = [(7 * number) % VOCABULARY for number in range(CONTEXT_TOKENS)]
WISHES: dict[str, st.SearchStrategy[Any]] = {
    "max_tokens": st.integers(1, 20),
    "stop_tokens": st.frozensets(st.integers(0, VOCABULARY - 1), max_size=3),
    "owner": st.sampled_from("ab"),
    "priority": st.integers(0, 1),
    "cache_salt": st.sampled_from(["", "", "salt"]),
    "reads_cache": st.sampled_from([True, True, True, False]),
}


class Scheduling(RuleBasedStateMachine):
    """One engine's scheduler, its pool and a device that remembers."""

    num_steps = 0
    num_preemptions = 0
    num_copies = 0
    num_hits = 0

    @initialize(
        block_size=st.sampled_from([1, 2, 2, 3, 4]),
        num_blocks=st.integers(4, 12),
        max_sequences=st.integers(1, 6),
        more_tokens=st.integers(0, 12),
        caching=st.sampled_from([True, True, True, False]),
    )
    def start(
        self,
        block_size: int,
        num_blocks: int,
        max_sequences: int,
        more_tokens: int,
        caching: bool,
    ) -> None:
        self.now = 0.0
        self.pool = BlockPool(num_blocks, block_size, enable_prefix_caching=caching)
        self.scheduler = Scheduler(
            self.pool,
            max_batch_tokens=max_sequences + more_tokens,
            max_sequences=max_sequences,
            max_waiting=MAX_WAITING,
            max_context_tokens=CONTEXT_TOKENS,
            clock=lambda: self.now,
        )
        self.runner = FakeRunner(block_size)
        self.places: dict[Sequence, int] = {}
        self.in_flight: deque[tuple[StepPlan, FakePending]] = deque()
        self.sequences: list[Sequence] = []
        self.aborted: set[Sequence] = set()
        self.said: dict[Sequence, list[int]] = {}
        self.cache_length = num_blocks * block_size

    @rule(
        num_shared=st.sampled_from([*range(13), *range(13), CONTEXT_TOKENS - 1]),
        own=st.one_of(st.just([]), st.lists(st.integers(0, 5), max_size=3)),
        wishes=st.fixed_dictionaries(WISHES),
    )
    def add(self, num_shared: int, own: list[int], wishes: dict[str, Any]) -> None:
        self.submit(STORY[:num_shared] + own, wishes)

    @precondition(lambda self: self.sequences)
    @rule(data=st.data(), wishes=st.fixed_dictionaries(WISHES))
    def continue_a_conversation(self, data: st.DataObject, wishes: dict[str, Any]) -> None:
        """A prompt that may be in the cache to its last token."""
        earlier = data.draw(st.sampled_from(self.sequences))
        num_blocks = len(earlier.tokens) // self.pool.block_size
        wishes["cache_salt"] = earlier.cache_salt
        self.submit(earlier.tokens[: num_blocks * self.pool.block_size], wishes)

    def submit(self, prompt: list[int], wishes: dict[str, Any]) -> None:
        sequence = Sequence(
            id=str(len(self.sequences)),
            tokens=list(prompt),
            num_prompt_tokens=len(prompt),
            weight=2.0 if wishes["owner"] == "a" else 1.0,
            **wishes,
        )
        try:
            self.scheduler.add(sequence)
        except Overloaded as error:
            assert self.scheduler.num_waiting >= MAX_WAITING
            assert error.retry_after is None or error.retry_after >= 1
        except ContextTooLong:
            assert len(prompt) >= CONTEXT_TOKENS
        except RequestRefused:
            assert not prompt or len(prompt) > self.cache_length
        else:
            self.sequences.append(sequence)
            self.said[sequence] = []

    @precondition(lambda self: self.sequences)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        sequence = data.draw(st.sampled_from(self.sequences))
        if sequence.state is not SequenceState.FINISHED:
            self.aborted.add(sequence)
        self.scheduler.abort(sequence)
        self.scheduler.abort(sequence)
        self.vacate(sequence)

    @precondition(lambda self: len(self.in_flight) < MAX_IN_FLIGHT)
    @rule()
    def launch(self) -> None:
        self.now += 1
        plan = self.scheduler.schedule()
        if plan is None:
            return
        assert plan.rows
        assert plan.num_tokens <= self.scheduler._max_batch_tokens
        for sequence in plan.preempted:
            self.vacate(sequence)
        for sequence in plan.admitted:
            self.runner.begin(sequence)
            self.places[sequence] = sequence.place
            Scheduling.num_hits += sequence.num_computed > 0
        Scheduling.num_preemptions += len(plan.preempted)
        Scheduling.num_copies += len(plan.copies)
        self.in_flight.append((plan, self.runner.sample(self.runner.forward(plan), {})))

    @precondition(lambda self: self.in_flight)
    @rule()
    def read(self) -> None:
        plan, pending = self.in_flight.popleft()
        for sampled in self.scheduler.complete(plan, pending.read().tokens):
            assert sampled.sequence not in self.aborted
            self.said[sampled.sequence].append(sampled.token)
            if sampled.finish is not None:
                assert sampled.sequence.state is SequenceState.FINISHED
                self.vacate(sampled.sequence)

    @rule(times=st.integers(1, 6))
    def run_one_ahead(self, times: int) -> None:
        """As the step loop does it; the rules above also do worse."""
        for _ in range(times):
            if len(self.in_flight) < 2:
                self.launch()
            if self.in_flight:
                self.read()

    @invariant()
    def everything_adds_up(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        Scheduling.num_steps += 1
        self.scheduler.check()
        for sequence, said in self.said.items():
            assert sequence.tokens[sequence.num_prompt_tokens :] == said
        if not self.scheduler.num_running:
            assert self.pool.num_in_use == 0

    def vacate(self, sequence: Sequence) -> None:
        place = self.places.pop(sequence, None)
        if place is not None:
            self.runner.end(sequence, place)

    def teardown(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        # The first in order gains a token with every step, so this is more than enough.
        bound = sum(len(sequence.tokens) + sequence.max_tokens for sequence in self.sequences)
        for _ in range(3 * bound + 10):
            if not (self.in_flight or self.scheduler.num_running or self.scheduler.num_waiting):
                break
            self.run_one_ahead(1)
        self.everything_adds_up()
        assert (self.scheduler.num_running, self.scheduler.num_waiting) == (0, 0), "starved"
        assert not self.runner.seated
        for sequence in self.sequences:
            self.compare(sequence)

    def compare(self, sequence: Sequence) -> None:
        prompt = sequence.tokens[: sequence.num_prompt_tokens]
        room = min(CONTEXT_TOKENS, self.cache_length + 1) - len(prompt)
        expected = answer(prompt, min(sequence.max_tokens, room), sequence.stop_tokens)
        said = self.said[sequence]
        if sequence in self.aborted:
            expected = expected[: len(said)]
        assert said == expected


@pytest.mark.slow
@pytest.mark.timeout(300)  # it takes seconds; a loaded machine may take many times that
def test_whatever_happens_everybody_gets_their_tokens_and_no_block_is_lost() -> None:
    run_state_machine_as_test(
        Scheduling,
        settings=settings(
            max_examples=300,
            stateful_step_count=60,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )

    # So that a change of hypothesis or of the rules cannot make this test easy.
    assert Scheduling.num_steps >= MIN_STEPS
    assert Scheduling.num_preemptions > 100
    assert Scheduling.num_copies > 50
    assert Scheduling.num_hits > 100
