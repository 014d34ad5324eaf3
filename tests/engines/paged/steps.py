"""Sequences and a scheduler with a fake device behind it, stepped by hand."""

from collections.abc import Iterable
from itertools import count
from typing import Any

from engines.paged.block_pool import BlockPool
from engines.paged.scheduler import Scheduler
from engines.paged.sequence import Sequence, StepPlan
from tests.engines.paged.fake_runner import FakePending, FakeRunner

_numbers = count()


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def sequence(prompt: int | Iterable[int], *, max_tokens: int = 8, **fields: Any) -> Sequence:
    """A sequence with so many prompt tokens, unlike any other's, or with these."""
    number = next(_numbers)
    tokens = [1000 * number + at for at in range(prompt)] if isinstance(prompt, int) else [*prompt]
    return Sequence(
        id=fields.pop("id", str(number)),
        tokens=tokens,
        num_prompt_tokens=len(tokens),
        max_tokens=max_tokens,
        **fields,
    )


class Steps:
    """A scheduler, its pool and a fake device; `step` is one turn of the step loop."""

    def __init__(
        self,
        *,
        num_blocks: int = 100,
        block_size: int = 4,
        max_batch_tokens: int = 64,
        max_sequences: int = 8,
        max_waiting: int = 100,
        max_context_tokens: int = 1000,
    ) -> None:
        self.clock = Clock()
        self.pool = BlockPool(num_blocks, block_size)
        self.scheduler = Scheduler(
            self.pool,
            max_batch_tokens=max_batch_tokens,
            max_sequences=max_sequences,
            max_waiting=max_waiting,
            max_context_tokens=max_context_tokens,
            clock=self.clock,
        )
        self.runner = FakeRunner(block_size)
        self.in_flight: tuple[StepPlan, FakePending] | None = None
        self.places: dict[Sequence, int] = {}

    def add(self, *sequences: Sequence) -> None:
        for one in sequences:
            self.scheduler.add(one)

    def abort(self, one: Sequence) -> None:
        self.scheduler.abort(one)
        self._vacate(one)

    def launch(self) -> StepPlan | None:
        """Plan and launch a step behind the one in flight."""
        plan = self.scheduler.schedule()
        before, self.in_flight = self.in_flight, None
        if plan is not None:
            for one in plan.preempted:
                self._vacate(one)
            for one in plan.admitted:
                self.runner.begin(one)
                self.places[one] = one.place
            self.in_flight = (plan, self.runner.sample(self.runner.forward(plan), {}))
        if before is not None:
            self._complete(*before)
        self.scheduler.check()
        return plan

    def step(self) -> StepPlan | None:
        """Launch a step and read it."""
        plan = self.launch()
        self.read()
        return plan

    def read(self) -> None:
        """Read the step in flight."""
        if self.in_flight is not None:
            (plan, pending), self.in_flight = self.in_flight, None
            self._complete(plan, pending)
        self.scheduler.check()

    def run(self, *, ahead: bool = True) -> None:
        """Step until nothing is left to do."""
        scheduler = self.scheduler
        while scheduler.num_running or scheduler.num_waiting or self.in_flight:
            _ = self.launch() if ahead else self.step()

    def _complete(self, plan: StepPlan, pending: FakePending) -> None:
        for sampled in self.scheduler.complete(plan, pending.read().tokens):
            if sampled.finish is not None:
                self._vacate(sampled.sequence)

    def _vacate(self, one: Sequence) -> None:
        place = self.places.pop(one, None)
        if place is not None:
            self.runner.end(one, place)


def generated(one: Sequence) -> list[int]:
    """The answer so far."""
    return one.tokens[one.num_prompt_tokens :]


def prompt_of(one: Sequence) -> list[int]:
    return one.tokens[: one.num_prompt_tokens]


def counts(plan: StepPlan | None) -> list[tuple[Sequence, int]]:
    """How many tokens each row computes."""
    return [] if plan is None else [(row.sequence, row.count) for row in plan.rows]
