"""Decides which sequences run in a step and how many tokens each of them computes.

Every sequence is behind by some tokens: a new prompt by all of them, a running
answer by one, a preempted one by everything again. A step has one budget of
tokens. Whoever runs gets one token of it for certain; what is left goes to
prompts, those that run first, in chunks. Nothing here asks whether that is
prefill or decode.

Steps are planned ahead of their results: a token that a launched step samples
counts as if it were there (`num_pending`), because the device has it. So
`schedule` may be called again before `complete` has read the step before it.

When blocks run short, the sequence that is last in order (by priority, then by
admission) loses its own, waits at the head of its owner's line and is computed
again; the prefix cache makes that cheap while its blocks are not needed. The
first in order can always go on, so all of them end.

Only the step thread calls this, so nothing locks. It imports no torch:
tests/engines/paged/test_scheduler.py runs anywhere.
"""

import time
from bisect import insort
from collections.abc import Callable, Iterator
from collections.abc import Sequence as SequenceOf
from typing import Literal

from engines.paged.block_pool import BlockPool, Room
from engines.paged.sequence import Row, Sampled, Sequence, SequenceState, StepPlan
from engines.paged.waiting_line import WaitingLine

_WAITING, _RUNNING, _FINISHED = SequenceState.WAITING, SequenceState.RUNNING, SequenceState.FINISHED


class Scheduler:
    """The waiting and the running sequences of one engine.

    Always: running sequences hold blocks for all that is computed and a place of
    their own, waiting ones hold neither. `check()` asserts it.
    """

    def __init__(
        self,
        pool: BlockPool,
        *,
        max_batch_tokens: int,
        max_sequences: int,
        max_waiting: int,
        max_context_tokens: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 1 <= max_sequences <= max_batch_tokens:
            raise ValueError(
                f"max_batch_tokens ({max_batch_tokens}) must be at least max_sequences "
                f"({max_sequences}), and that at least 1: every running answer takes a token a step"
            )
        self.pool = pool
        self._max_batch_tokens = max_batch_tokens
        self.clock = clock
        self._running: list[Sequence] = []  # in order: by priority, then by admission
        self._waiting = WaitingLine(
            max_waiting=max_waiting,
            max_context_tokens=max_context_tokens,
            # The last token of an answer is never computed, so it needs no room.
            max_length=pool.num_blocks * pool.block_size + 1,
            clock=clock,
        )
        self._places = list(range(max_sequences - 1, -1, -1))
        self._num_admissions = 0
        self._is_backed_up = False  # the last plan left somebody waiting
        self._blocked: tuple[Sequence, int] | None = None  # who found so few blocks too few

    @property
    def num_running(self) -> int:
        """Sequences with a place and blocks."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """Sequences without, preempted ones among them."""
        return len(self._waiting)

    def __iter__(self) -> Iterator[Sequence]:
        yield from self._running
        yield from self._waiting

    def add(self, sequence: Sequence) -> None:
        """Let a sequence wait for its turn.

        Raises `ContextTooLong` or `RequestRefused` for one that could never run, and
        `Overloaded` when too many wait.
        """
        if _must_turn(sequence):
            _turn(sequence)
        is_blocked = self._is_backed_up and len(self._running) > 0
        num_places = 0 if is_blocked else len(self._places)
        self._waiting.join(sequence, num_places=num_places, running=self._running)

    def abort(self, sequence: Sequence) -> None:
        """End a sequence wherever it is; idempotent.

        Its blocks are free at once: steps that were launched are computed before any
        later one can write to them.
        """
        if sequence.state is _RUNNING:
            self._running.remove(sequence)
            self._take_back(sequence)
        elif sequence.state is _WAITING:
            self._waiting.leave(sequence)
        sequence.state = _FINISHED

    def schedule(self) -> StepPlan | None:
        """Plan the next step; None if nothing can run before a result is read, or at all."""
        self.pool.begin_plan()
        rows: list[Row] = []
        preempted: list[Sequence] = []
        admitted: list[Sequence] = []
        copies: list[tuple[int, int]] = []
        turned = self._turn_long_ones()
        budget = self._plan_running(rows, preempted)
        # Whoever was preempted for want of blocks would be back at once, to no good.
        if not preempted:
            budget = self._admit(rows, admitted, copies, budget)
        self.pool.end_plan()
        self._is_backed_up = len(self._waiting) > 0
        if not rows:
            return None
        num_tokens = self._max_batch_tokens - budget
        left = (*turned, *preempted)
        return StepPlan(tuple(rows), tuple(copies), num_tokens, left, tuple(admitted))

    def complete(self, plan: StepPlan, tokens: SequenceOf[int]) -> list[Sampled]:
        """Take in the tokens of a step, one for each row that samples, in their order.

        What a sequence sampled after its end, or its abort, is dropped. Plans must be
        completed in the order in which they were made.
        """
        sampled: list[Sampled] = []
        has_finished = False
        block_size = self.pool.block_size
        arrived = iter(tokens)
        for row in plan.rows:
            if not row.samples:
                continue
            token = next(arrived)
            sequence = row.sequence
            if sequence.state is _FINISHED:
                continue
            sequence.num_pending -= 1
            known = sequence.tokens
            known.append(token)
            length = len(known)
            finish: Literal["stop", "length"] | None = None
            if token in sequence.stop_tokens:
                finish = "stop"
            elif length >= sequence.max_length:
                finish = "length"
            elif (length - 1) % block_size == 0:
                # Once a block: this token was sampled from the one that filled it.
                self.pool.publish(sequence, length - 1)
                self._waiting.charge(sequence)
            sampled.append(Sampled(sequence, token, finish))
            if finish is not None or length == sequence.num_prompt_tokens + 1:
                has_finished |= self._note(sequence, is_over=finish is not None)
        if has_finished:
            self._running = [one for one in self._running if one.state is _RUNNING]
        return sampled

    def check(self) -> None:
        """Assert what is always true between two calls, in time that grows with the pool."""
        self.pool.check([sequence.blocks for sequence in self._running])
        places = [sequence.place for sequence in self._running]
        assert sorted(places + self._places) == list(range(len(places) + len(self._places)))
        assert self._running == sorted(self._running, key=_order), "running out of order"
        for sequence in self._running:
            assert sequence.state is _RUNNING
            known = len(sequence.tokens) + sequence.num_pending
            assert 0 < sequence.num_computed <= known <= sequence.max_length
            assert sequence.num_computed <= len(sequence.blocks) * self.pool.block_size
        for sequence in self._waiting:
            assert sequence.state is _WAITING
            assert not sequence.blocks
            assert (sequence.place, sequence.num_computed) == (-1, 0)

    def _plan_running(self, rows: list[Row], preempted: list[Sequence]) -> int:
        """Add a row for each running sequence that can go on; returns the budget left."""
        running = self._running
        block_size = self.pool.block_size
        # One token is set aside for each, so an early chunk never stalls a later answer.
        budget = self._max_batch_tokens - len(running)
        for sequence in running:  # which a preemption shortens, at the far end
            known = len(sequence.tokens) + sequence.num_pending
            start = sequence.num_computed
            if known >= sequence.max_length or _must_turn(sequence):
                budget += 1  # its last token is sampled already, or waits to be read
            elif known - start == 1:
                if start >= len(sequence.blocks) * block_size:
                    num_preempted = len(preempted)
                    has_room = self._grow(sequence, preempted)
                    budget += len(preempted) - num_preempted + (not has_room)
                    if not has_room:
                        continue
                rows.append(Row(sequence, start, 1))
                sequence.num_computed = known
                sequence.num_pending += 1
            else:
                budget += 1
                budget -= self._plan_chunk(sequence, rows, budget)
        return budget

    def _plan_chunk(self, sequence: Sequence, rows: list[Row], budget: int) -> int:
        """Add a row for what the sequence is behind, as far as the budget goes."""
        start = sequence.num_computed
        behind = len(sequence.tokens) + sequence.num_pending - start
        count = min(behind, budget)
        rows.append(Row(sequence, start, count, count == behind))
        sequence.num_computed = start + count
        sequence.num_pending += count == behind
        self._waiting.charge(sequence)
        # In a step every layer stores all keys and values before any row attends, so the
        # next row of this very plan may share these blocks already; see Runner.forward.
        self.pool.publish(sequence, min(start + count, len(sequence.tokens)))
        return count

    def _turn_long_ones(self) -> list[Sequence]:
        """Let those wait again, and first of their owners, that must be computed anew."""
        turned = [one for one in self._running if _must_turn(one) and not one.num_pending]
        for sequence in turned:
            self._running.remove(sequence)
            self._preempt(sequence)
            _turn(sequence)
        return turned

    def _preempt(self, sequence: Sequence) -> None:
        self._take_back(sequence)
        sequence.state = _WAITING
        sequence.num_computed = 0
        self._waiting.put_back(sequence)

    def _grow(self, sequence: Sequence, preempted: list[Sequence]) -> bool:
        """Give a running sequence one more block, from the last in order if need be.

        False if it is the last itself: then it pauses, and keeps what it has until
        somebody before it asks for it.
        """
        while (block := self.pool.take_one()) is None:
            if self._running[-1] is sequence:
                return False
            victim = self._running.pop()
            self._preempt(victim)
            preempted.append(victim)
        sequence.blocks.append(block)
        return True

    def _admit(
        self,
        rows: list[Row],
        admitted: list[Sequence],
        copies: list[tuple[int, int]],
        budget: int,
    ) -> int:
        """Let those join whose turn it is, while there is room; returns the budget left."""
        while budget > 0 and self._places:
            sequence = self._waiting.peek()
            room = None if sequence is None else self._find_room(sequence)
            if sequence is None or room is None:
                # Nobody smaller overtakes: the one whose turn it is would wait for ever.
                break
            self._waiting.pop()
            self._seat(sequence, room)
            admitted.append(sequence)
            if room.copy is not None:
                copies.append(room.copy)
            budget -= self._plan_chunk(sequence, rows, budget)
        return budget

    def _find_room(self, sequence: Sequence) -> Room | None:
        """Blocks for the one whose turn it is, or None for now."""
        if self._running and self._blocked is not None:
            who, num_available = self._blocked
            if who is sequence and self.pool.num_available <= num_available:
                return None  # as before, and looking again takes time
        # Each that runs will want a block soon; who joins now must not be in its way.
        room = self.pool.find_room(sequence, spare=len(self._running))
        self._blocked = (sequence, self.pool.num_available) if room is None else None
        return room

    def _seat(self, sequence: Sequence, room: Room) -> None:
        if not sequence.num_admissions:
            sequence.admitted_at = self.clock()
            sequence.num_cached = room.num_cached
        sequence.num_admissions += 1
        sequence.state = _RUNNING
        sequence.place = self._places.pop()
        sequence.blocks = room.blocks
        sequence.num_computed = room.num_cached
        sequence.num_published = room.num_shared
        sequence.num_charged = max(sequence.num_charged, room.num_cached)
        self._num_admissions += 1
        sequence.serial = self._num_admissions
        insort(self._running, sequence, key=_order)
        self._waiting.started(sequence)

    def _take_back(self, sequence: Sequence) -> None:
        """Free the blocks and the place of one that no longer runs."""
        self._waiting.charge(sequence)
        self.pool.release(sequence.blocks)
        sequence.blocks = []  # a new list: a launched step may still look at the old one
        self._places.append(sequence.place)
        sequence.place = -1
        self._waiting.stopped(sequence)

    def _note(self, sequence: Sequence, *, is_over: bool) -> bool:
        """Note a first or a last token; True if the sequence must leave `_running`."""
        now = self.clock()
        sequence.first_token_at = sequence.first_token_at or now
        if not is_over:
            return False
        self._waiting.served(now - sequence.admitted_at)
        was_running = sequence.state is _RUNNING
        if was_running:
            self._take_back(sequence)
        else:  # preempted, and its last token was still to be read
            self._waiting.leave(sequence)
        sequence.state = _FINISHED
        return was_running


def _turn(sequence: Sequence) -> None:
    turning = sequence.turning
    assert turning is not None
    sequence.rope_shift, sequence.turning = turning.rope_shift, None
    sequence.cache_salt += turning.salt
    sequence.digests = []


def _must_turn(sequence: Sequence) -> bool:
    turning = sequence.turning
    return turning is not None and len(sequence.tokens) + sequence.num_pending > turning.length


def _order(sequence: Sequence) -> tuple[int, int]:
    return sequence.priority, sequence.serial
