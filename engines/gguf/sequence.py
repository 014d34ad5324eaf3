"""One request while an engine's step thread works on it, and what it sends back.

Made on the event loop; from `StepLoop.submit` on it belongs to the step thread.
"""

import time
from collections.abc import Mapping
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field

from engines.chat.answer import Item
from engines.gguf.image_tokens import images_in, num_tokens_of, position_of
from engines.gguf.projector import ImageChunk
from engines.gguf.sampler import ConstraintState, Sampler
from engines.outbox import Mailbox
from engines.protocol import Sampling, Timing


@dataclass(eq=False, kw_only=True)
class Sequence:
    """A prompt and the answer so far.

    Always: the slot holds exactly the first `num_computed` of `tokens`. A sequence
    is behind by the rest: a new prompt by all of it, a running answer by one token,
    a preempted one by everything again.
    """

    tokens: list[int]  # prompt, then answer
    max_tokens: int
    mailbox: Mailbox[Item]
    sampling: Sampling = field(default_factory=Sampling)
    constraint: ConstraintState | None = None
    num_logprobs: int | None = None
    owner: str = "-"
    weight: float = 1.0
    priority: int = 0
    cache_salt: str = ""
    images: Mapping[int, ImageChunk] = field(default_factory=dict[int, ImageChunk])

    slot: int | None = None
    num_computed: int = 0
    sampler: Sampler | None = None
    is_admitted: bool = False  # for the first time; a preempted one stays admitted
    is_over: bool = False
    submitted_at: float = field(default_factory=time.monotonic)
    admitted_at: float = 0.0
    first_token_at: float = 0.0
    num_prompt_tokens: int = field(init=False)

    def __post_init__(self) -> None:
        self.num_prompt_tokens = len(self.tokens)
        self._image_starts = [start for start, _ in images_in(self.tokens)] if self.images else []

    def position_of(self, index: int) -> int:
        """The position of a token; an image may take fewer of them than it has tokens."""
        return position_of(self.tokens, index) if self.images else index

    def run_from(self, start: int, budget: int) -> int:
        """How many tokens from `start` may be computed together: texts in part, an image whole."""
        if self.images and self.tokens[start] < 0:
            return num_tokens_of(self.tokens[start])
        ends = (image - start for image in self._image_starts if image > start)
        return min(len(self.tokens) - start, budget, next(ends, budget))

    @property
    def num_generated(self) -> int:
        """Tokens of the answer so far."""
        return len(self.tokens) - self.num_prompt_tokens

    @property
    def num_behind(self) -> int:
        """Tokens that must be computed before the next can be sampled."""
        return len(self.tokens) - self.num_computed

    @property
    def is_decoding(self) -> bool:
        """Whether one token brings it up to date, and its first is out."""
        return self.num_behind == 1 and self.num_generated > 0

    def timing(self, now: float) -> Timing:
        """Seconds in each phase, as they are at `now`."""
        admitted_at = self.admitted_at or now
        first_token_at = self.first_token_at or now
        return Timing(
            queued=admitted_at - self.submitted_at,
            prefill=first_token_at - admitted_at,
            decode=now - first_token_at,
        )


@dataclass(frozen=True, slots=True)
class Work:
    """A part of one step: tokens `start` to `start + count` of a sequence."""

    sequence: Sequence
    start: int
    count: int

    @property
    def tokens(self) -> SequenceOf[int]:
        """The tokens to compute."""
        return self.sequence.tokens[self.start : self.start + self.count]

    @property
    def image(self) -> ImageChunk | None:
        """The image that this is, if it is no text."""
        images = self.sequence.images
        return images.get(self.sequence.tokens[self.start]) if images else None

    @property
    def wants_token(self) -> bool:
        """Whether the next token can be sampled after this."""
        return self.start + self.count == len(self.sequence.tokens)
