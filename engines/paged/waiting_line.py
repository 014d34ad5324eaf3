"""Who waits for a place: whether they may, whose turn it is, and what owners have been served.

The order between owners is that of engines/fairness.py; this file says what a
sequence costs its owner, when a line is full, and how soon to come back. Used by
scheduler.py alone, on the step thread.
"""

from collections.abc import Callable, Iterator
from collections.abc import Sequence as SequenceOf

from engines.errors import ContextTooLong, EngineOverloaded, RequestRefused
from engines.fairness import OUTPUT_TOKEN_COST, PROMPT_TOKEN_COST, FairQueue
from engines.paged.sequence import Sequence

_SMOOTHING = 0.1


class WaitingLine:
    """The waiting sequences of one engine, and its owners' accounts."""

    def __init__(
        self,
        *,
        max_waiting: int,
        max_context_tokens: int,
        max_length: int,
        clock: Callable[[], float],
    ) -> None:
        self._max_waiting = max_waiting
        self._max_context_tokens = max_context_tokens
        self._max_length = max_length  # of the longest sequence that the cache can hold
        self._clock = clock
        self._queue: FairQueue[Sequence] = FairQueue()
        self._seconds_each = 0.0  # that a sequence ran until it finished, lately

    def __len__(self) -> int:
        return len(self._queue)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._queue)

    def join(self, sequence: Sequence, *, num_places: int, running: SequenceOf[Sequence]) -> None:
        """Let a new sequence wait; `num_places` are free for those that wait.

        Raises `ContextTooLong` or `RequestRefused` for one that could never run, and
        `EngineOverloaded` when too many wait. An answer is cut where the context or the cache
        ends; only a prompt can be too long.
        """
        self._refuse_misfit(sequence)
        if len(self) >= max(self._max_waiting, num_places):
            raise EngineOverloaded(
                f"{len(self)} requests are waiting for this model",
                retry_after=self._retry_after(running),
            )
        sequence.max_length = min(
            sequence.num_prompt_tokens + sequence.max_tokens,
            self._max_context_tokens,
            self._max_length,
        )
        sequence.added_at = self._clock()
        self._queue.push(sequence, owner=sequence.owner, priority=sequence.priority)

    def peek(self) -> Sequence | None:
        """The one whose turn it is."""
        return self._queue.peek(_is_read)

    def pop(self) -> Sequence | None:
        """Take out the one whose turn it is."""
        return self._queue.pop(_is_read)

    def put_back(self, sequence: Sequence) -> None:
        """Let a preempted sequence wait at the head of its owner's line."""
        self._queue.push_back(sequence, owner=sequence.owner, priority=sequence.priority)

    def leave(self, sequence: Sequence) -> None:
        """Forget a sequence; nothing happens if it does not wait here."""
        self._queue.remove(sequence, owner=sequence.owner, priority=sequence.priority)

    def started(self, sequence: Sequence) -> None:
        """Note that it runs, so that its owner is not taken for idle."""
        self._queue.started(sequence.owner)

    def stopped(self, sequence: Sequence) -> None:
        """Note that it no longer runs."""
        self._queue.stopped(sequence.owner)

    def served(self, seconds: float) -> None:
        """Note how long a sequence took from its admission to its end."""
        last = self._seconds_each
        self._seconds_each = last + _SMOOTHING * (seconds - last) if last else seconds

    def charge(self, sequence: Sequence) -> None:
        """Charge the owner for what was computed and read since this was last called.

        What is computed again after a preemption is not charged again.
        """
        num_prompt, charged = sequence.num_prompt_tokens, sequence.num_charged
        computed = sequence.num_computed
        done = len(sequence.tokens) if computed >= num_prompt else computed
        if done <= charged:
            return
        prompt = max(0, min(done, num_prompt) - charged)
        output = done - charged - prompt
        cost = PROMPT_TOKEN_COST * prompt + OUTPUT_TOKEN_COST * output
        self._queue.charge(sequence.owner, cost, weight=sequence.weight)
        sequence.num_charged = done

    def _refuse_misfit(self, sequence: Sequence) -> None:
        num_tokens = sequence.num_prompt_tokens
        if num_tokens < 1:
            raise RequestRefused("the prompt has no tokens: say something", param="messages")
        if sequence.max_tokens < 1:
            raise RequestRefused(
                f"max_tokens is {sequence.max_tokens}: ask for at least 1", param="max_tokens"
            )
        if num_tokens >= self._max_context_tokens:
            raise ContextTooLong(prompt_tokens=num_tokens, context_tokens=self._max_context_tokens)
        if num_tokens >= self._max_length:
            raise RequestRefused(
                f"the prompt has {num_tokens} tokens and this engine's KV cache has room for "
                f"{self._max_length - 1}: shorten the prompt or give the cache more memory",
                param="messages",
            )

    def _retry_after(self, running: SequenceOf[Sequence]) -> float | None:
        """Seconds until the line will be half as long, at the pace of late; None if unknown."""
        if not running:
            return None
        # Before anything has finished, they take at least as long as they have so far.
        so_far = self._clock() - min(sequence.admitted_at for sequence in running)
        seconds_each = self._seconds_each or so_far
        return max(1.0, len(self) / 2 * seconds_each / len(running))


def _is_read(sequence: Sequence) -> bool:
    """A preempted sequence waits for the tokens that launched steps sampled for it."""
    return not sequence.num_pending
