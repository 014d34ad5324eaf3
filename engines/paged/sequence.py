"""One request inside the engine, one step's plan, and what goes back to the event loop.

A `Sequence` is made on the event loop; from `StepLoop.submit` on only the step
thread touches it. Plain data: who may change what is written beside it, the
rules are in scheduler.py. It imports no torch.
"""

from collections.abc import Mapping
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Literal

from msgspec import Struct

from engines.protocol import Timing


class SequenceState(Enum):
    """Where a sequence is; a preempted one waits again."""

    WAITING = auto()
    RUNNING = auto()
    FINISHED = auto()


class Turning(Struct, frozen=True):
    """Past `length` tokens, all of a sequence is turned otherwise, and computed anew for that.

    Only for models with frequencies of their own for long sequences (layers/rotary.py).
    """

    length: int
    rope_shift: int

    @property
    def salt(self) -> str:
        """Added to the salt of who is past it: blocks of the two kinds are not the same."""
        return f"\0rope {self.rope_shift}"


@dataclass(eq=False, slots=True)
class Sequence:
    """A prompt and the answer so far.

    Always: `num_computed <= len(tokens) + num_pending <= max_length`. It is behind by
    the difference: a new prompt by all of it, a running answer by one token, a
    preempted one by everything again.
    """

    id: str
    # The prompt, then every sampled token that has been read back. What may end up in a log
    # with a traceback says nothing of it.
    tokens: list[int] = field(repr=False)
    num_prompt_tokens: int
    max_tokens: int  # most new tokens
    stop_tokens: frozenset[int] = frozenset()  # ids that end the answer
    owner: str = "-"  # whose share of the engine it spends
    weight: float = 1.0
    priority: int = 0  # lower goes first, across owners
    cache_salt: str = field(default="", repr=False)  # blocks are shared only within one salt
    payload: Any = field(default=None, repr=False)  # the engine's; see `Recipient` in generation.py
    reads_cache: bool = True  # False: compute the whole prompt, whoever computed it before
    rope_shift: int = 0  # added to the positions by which its tokens are turned
    turning: "Turning | None" = None

    # The scheduler's from here on.
    state: SequenceState = SequenceState.WAITING
    blocks: list[int] = field(default_factory=list[int])
    num_computed: int = 0  # tokens whose keys and values are in blocks, or a launched step writes
    num_pending: int = 0  # tokens that launched steps sample and nobody has read yet
    num_cached: int = 0  # prompt tokens found in the prefix cache at first admission
    place: int = -1  # index into the device's per-sequence state, while running
    max_length: int = 0  # of prompt and answer: `max_tokens`, the context and the cache bound it
    # Of the full blocks of `tokens`.
    digests: list[bytes] = field(default_factory=list[bytes], repr=False)
    num_published: int = 0  # leading blocks that others may find by their digest
    num_charged: int = 0  # leading tokens that its owner has been charged for
    serial: int = 0  # its place in the order of admissions, its latest counting
    num_admissions: int = 0  # each after the first follows a preemption
    added_at: float = 0.0
    admitted_at: float = 0.0  # for the first time
    first_token_at: float = 0.0

    @property
    def num_generated(self) -> int:
        """Tokens of the answer that have been read back."""
        return len(self.tokens) - self.num_prompt_tokens

    def timing(self, now: float) -> Timing:
        """Seconds in each phase, as they are at `now` on the scheduler's clock."""
        admitted_at = self.admitted_at or now
        first_token_at = self.first_token_at or now
        return Timing(
            queued=admitted_at - self.added_at,
            prefill=first_token_at - admitted_at,
            decode=now - first_token_at,
        )


# No garbage collector's business: they are made by the hundred in every step, and nothing
# that they point to points back.
class Row(Struct, frozen=True, gc=False):
    """A step computes the tokens `start` to `start + count` of a sequence.

    It samples where that brings the sequence up to date, pending tokens included.
    """

    sequence: Sequence
    start: int
    count: int
    samples: bool = True


class StepPlan(Struct, frozen=True):
    """What one step computes. `copies` (from block, to block) come before the forward pass."""

    rows: tuple[Row, ...]
    copies: tuple[tuple[int, int], ...] = ()
    num_tokens: int = 0
    preempted: tuple[Sequence, ...] = ()  # they lost their blocks and their place
    admitted: tuple[Sequence, ...] = ()  # they got a place, some of them again


class StepResult(Struct, frozen=True):
    """What a step brought, read back from the device.

    `tokens` has one for each row that samples, in the order of the rows, and so has
    `logprobs` if any row asked for some. `prompt_logprobs` is by row of the plan.
    """

    tokens: SequenceOf[int]
    logprobs: SequenceOf[Any] | None = None
    prompt_logprobs: Mapping[int, Any] = {}


class Sampled(Struct, frozen=True, gc=False):
    """A token that was read back; `finish` says that it was the last, and why."""

    sequence: Sequence
    token: int
    finish: Literal["stop", "length"] | None
