"""One step of answering: plan, compute, sample, hand out. Runs on the step thread."""

import time
from collections.abc import Sequence
from typing import Any

from engines.chat.answer import Admitted, Ended, Generated
from engines.errors import EngineError, Unavailable
from engines.gguf.image_tokens import position_of
from engines.gguf.layout import Layout
from engines.gguf.runner import Aborted, CacheFull, Row, Runner, Shape
from engines.gguf.sampler import Candidates, Sampler, logprobs
from engines.gguf.scheduler import Scheduler
from engines.gguf.sequence import Sequence as Running
from engines.gguf.sequence import Work
from engines.gguf.slots import Slots
from engines.gguf.time_share import TimeShare
from engines.outbox import Outbox
from engines.protocol import FinishReason

# Interrupting a step throws away what it did for the others, so only a prompt that
# makes up most of a long step is worth it.
MIN_ABORTED_TOKENS = 64
# That idle slots may keep in a shared pool, or an eighth of it; the rest is saved outside of it.
MAX_IDLE_TOKENS = 2048


class Generation:
    """The answers of one model; posts `Item`s to each sequence's mailbox."""

    def __init__(
        self,
        runner: Runner,
        shape: Shape,
        layout: Layout,
        outbox: Outbox[Any],
    ) -> None:
        self._recorder = recorder = layout.recorder.steps
        slots = Slots(
            shape.num_slots,
            pool_tokens=shape.pool_tokens,
            can_cut=runner.has_cuttable_cache,
            keeps_together=shape.exact,
            # A step looks at every cell of a shared pool, whoever wrote it.
            idle_tokens=None if shape.exact else min(MAX_IDLE_TOKENS, shape.pool_tokens // 8),
        )
        self.scheduler = Scheduler(
            slots,
            PositionedCache(runner, slots),
            context_tokens=shape.context_tokens,
            on_preemption=recorder.preempted,
            saved=layout.saved,
            tile_rows=runner.tile_rows,
        )
        self.interruptible: Running | None = None  # whose cancelling may abort the step
        self._runner = runner
        self._shape = shape
        self._outbox = outbox
        self._room = Candidates(runner.num_tokens)
        self._end_ids = frozenset(runner.vocabulary.end_ids)
        self._threads = layout.threads
        self._iteration_tokens = 0  # see StepRecorder.stepped
        self._share = TimeShare()

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self.scheduler.running or self.scheduler.num_waiting)

    def step(self) -> None:
        """Compute one batch and hand out what it brings."""
        for sequence in self.scheduler.admit():
            self._admitted(sequence)
        works = self.scheduler.plan(self._shape.max_batch_tokens, self._share.num_tokens)
        if not works:
            return
        self._note_interruptible(works)
        # Caches of their own are computed together only where their slots follow each other.
        works.sort(key=_slot_of)
        rows = _rows(works)
        num_tokens = sum(work.count for work in works)
        may_try = not _keeps_waiting(self.scheduler.running, works)
        self._runner.set_threads(self._threads.choose(num_tokens, may_try=may_try))
        began = time.monotonic()
        try:
            self._compute(works, rows)
        except Aborted:
            self._runner.resume()
            self.scheduler.roll_back(works)
            return
        except CacheFull:
            self._relieve(works)
            return
        except EngineError as error:
            self._fail_running(error)
            return
        finally:
            self.interruptible = None
        seconds = time.monotonic() - began
        self._threads.measured(num_tokens, seconds)
        self._share.measured(num_tokens, seconds)
        self.scheduler.commit(works)
        self._iteration_tokens = 0
        self._sample(works)
        self._recorder.stepped(
            seconds,
            computed_tokens=num_tokens,
            sequences=len(works),
            iteration_tokens=self._iteration_tokens,
        )

    def _compute(self, works: Sequence[Work], rows: Sequence[Row]) -> None:
        # Images first: what is computed last has its logits kept.
        for work in works:
            if (image := work.image) is not None:
                self._outbox.flush()
                position = work.sequence.position_of(work.start)
                self._runner.decode_image(image, position=position, slot=_slot_of(work))
        if rows:
            self._runner.decode(rows, self._outbox.flush)

    def drop(self, sequence: Running) -> None:
        """Forget a sequence wherever it is; idempotent."""
        if sequence.is_over:
            return
        sequence.is_over = True
        self.scheduler.drop(sequence)
        if sequence.sampler is not None:
            sequence.sampler.close()

    def save_idle(self) -> None:
        """Save what idle slots hold, before the model is freed."""
        self.scheduler.save_idle()

    def end_all(self, reason: BaseException) -> None:
        """End every sequence with `reason`."""
        for sequence in list(self.scheduler):
            self.drop(sequence)
            self._outbox.post(sequence.mailbox, reason)

    def _admitted(self, sequence: Running) -> None:
        if sequence.is_admitted:
            return
        sequence.is_admitted = True
        sequence.admitted_at = time.monotonic()
        sequence.sampler = Sampler(
            sequence.sampling,
            end_ids=self._runner.vocabulary.end_ids,
            room=self._room,
            max_tokens=self._shape.context_tokens,
        )
        self._outbox.post(sequence.mailbox, Admitted(sequence.num_computed))

    def _note_interruptible(self, works: Sequence[Work]) -> None:
        largest = max(works, key=lambda work: work.count)
        total = sum(work.count for work in works)
        if largest.count >= MIN_ABORTED_TOKENS and 2 * largest.count > total:
            self.interruptible = largest.sequence

    def _sample(self, works: Sequence[Work]) -> None:
        row = -1
        for work in works:
            if work.image is not None:
                continue
            row += work.count
            if not work.wants_token:
                continue
            try:
                self._take_token(work.sequence, row)
            # One sequence's constraint or sampler must not end everyone's answer.
            except Exception as error:  # noqa: BLE001
                self.drop(work.sequence)
                failure = (
                    error
                    if isinstance(error, EngineError)
                    else Unavailable(f"sampling failed: {error}")
                )
                self._outbox.post(work.sequence.mailbox, failure)

    def _take_token(self, sequence: Running, row: int) -> None:
        assert sequence.sampler is not None
        token = sequence.sampler.sample(self._runner, row, sequence.constraint)
        now = time.monotonic()
        if not sequence.first_token_at:
            sequence.first_token_at = now
            self._iteration_tokens += sequence.num_prompt_tokens
        self._iteration_tokens += 1
        if token in self._end_ids and not sequence.sampling.ignore_eos:
            self._finish(sequence, FinishReason.STOP, now)
            return
        logprob = None
        if sequence.num_logprobs is not None:
            logits = self._runner.logits(row)
            logprob = logprobs(logits, token, sequence.num_logprobs, self._runner.vocabulary.pieces)
        self._outbox.post(sequence.mailbox, Generated(token, logprob))
        self.scheduler.append(sequence, token)
        if sequence.constraint is not None and sequence.constraint.is_finished:
            self._finish(sequence, FinishReason.STOP, now)
        elif self.scheduler.is_out_of_room(sequence):
            self._finish(sequence, FinishReason.LENGTH, now)

    def _finish(self, sequence: Running, reason: FinishReason, now: float) -> None:
        self.drop(sequence)
        self._outbox.post(sequence.mailbox, Ended(reason, sequence.timing(now)))

    def _relieve(self, works: Sequence[Work]) -> None:
        """Make room in a cache that is full although the budget said otherwise."""
        self.scheduler.roll_back(works)
        if self.scheduler.evict_idle():
            return
        if len(self.scheduler.running) > 1:
            self.scheduler.preempt_youngest()
            return
        self._fail_running(Unavailable("the KV cache is too small for this one request"))

    def _fail_running(self, error: EngineError) -> None:
        """End all that run; what waits goes on with an empty cache."""
        for sequence in list(self.scheduler.running):
            self.drop(sequence)
            self._outbox.post(sequence.mailbox, error)
        self._runner.clear_all()
        self.scheduler.slots.reset()


class PositionedCache:
    """The runner's KV cache, addressed by numbers of tokens instead of by positions."""

    def __init__(self, runner: Runner, slots: Slots) -> None:
        self._runner = runner
        self._slots = slots

    def clear(self, slot: int) -> None:
        """Forget all that a slot holds."""
        self._runner.clear(slot)

    def truncate(self, slot: int, length: int) -> bool:
        """Forget from token `length` on; False, and nothing done, if it cannot be cut there."""
        return self._runner.truncate(slot, position_of(self._slots[slot].tokens, length))

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """Give the empty `target` what `source` holds of the first `length` tokens."""
        position = position_of(self._slots[target].tokens, length)
        self._runner.copy_prefix(source, target, position)

    def save(self, slot: int, max_bytes: int) -> Any:
        """A copy of all that a slot holds, or None if it is larger than that."""
        return self._runner.save(slot, max_bytes)

    def restore(self, slot: int, state: Any, tokens: Sequence[int]) -> bool:
        """Give the empty slot what was saved of these tokens; False if it stays empty."""
        return self._runner.restore(slot, state, position_of(tokens, len(tokens)))


def _keeps_waiting(running: Sequence[Running], works: Sequence[Work]) -> bool:
    """Whether running answers wait for prompts: the step is as long as it may be."""
    return any(work.count > 1 for work in works) and any(one.is_decoding for one in running)


def _slot_of(work: Work) -> int:
    assert work.sequence.slot is not None
    return work.sequence.slot


def _rows(works: Sequence[Work]) -> list[Row]:
    rows: list[Row] = []
    for work in works:
        if work.image is not None:
            continue
        slot = _slot_of(work)
        last = work.count - 1
        start = work.sequence.position_of(work.start)
        rows.extend(
            Row(token, start + place, slot, place == last and work.wants_token)
            for place, token in enumerate(work.tokens)
        )
    return rows
