"""Chooses the next tokens on the device, each row as its request wants it.

What a request asks for lies in tables on the device, one line for each place, so
a step needs only to say which places it samples for. The order is the gguf
engine's, so that one request means the same on both:

    logit bias, constraint, top-k, penalties, top-p, min-p, temperature, draw

Penalties look at the answer only, `repeat_penalty` at its last 64 tokens. What
was sampled is noted on the device, too: the host may not know it yet when the
next step is launched.

Most requests are plain: no bias, penalty, constraint or log-probability. For
them `sample_plain` has fixed shapes and asks the device nothing, as a CUDA graph
needs it.
"""

import secrets
from collections.abc import Iterable
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from engines.paged.kernels.logit_edits import (
    add_bias,
    apply_bitmask,
    count_penalties,
    repeat_penalty,
)
from engines.paged.kernels.sampling import keep_top_k, sample
from engines.paged.logprobs import Logprobs
from engines.paged.transfers import to_device
from engines.protocol import Sampling

IMPLICIT_TOP_K = 1024  # of a row with penalties that names none: the gguf engine's
REPEAT_WINDOW = 64  # tokens that `repeat_penalty` looks back on
_FOREVER = 2**62


class SampledTokens(NamedTuple):
    """A step's tokens [R] on the device, and the log-probabilities that were asked for."""

    token_ids: Tensor
    logprobs: Logprobs | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wishes:
    """What a request that is not plain asks for."""

    bias: tuple[tuple[int, float], ...] = ()
    repeat: float = 1.0
    frequency: float = 0.0
    presence: float = 0.0
    num_logprobs: int | None = None
    is_constrained: bool = False  # its masks come with each step

    @property
    def has_penalties(self) -> bool:
        return self.repeat != 1.0 or self.counts

    @property
    def counts(self) -> bool:
        return bool(self.frequency or self.presence)


@dataclass(eq=False)
class _Counts:
    """How often each token came in the answers that care: a line [V] for each."""

    vocab_size: int
    device: torch.device
    table: Tensor = field(init=False)
    lines: dict[int, int] = field(default_factory=dict[int, int])  # by place
    free: list[int] = field(default_factory=list[int])

    def __post_init__(self) -> None:
        self.table = torch.zeros((0, self.vocab_size), dtype=torch.int32, device=self.device)

    def open(self, place: int, generated: SequenceOf[int]) -> None:
        if not self.free:
            more = max(4, len(self.table))
            self.free = list(range(len(self.table), len(self.table) + more))
            self.table = torch.cat((self.table, self.table.new_zeros((more, self.vocab_size))))
        self.lines[place] = line = self.free.pop()
        self.table[line] = 0
        if generated:
            tokens = to_device(torch.tensor(generated), self.device)
            self.table[line].scatter_add_(0, tokens, torch.ones_like(tokens, dtype=torch.int32))

    def close(self, place: int) -> None:
        if (line := self.lines.pop(place, None)) is not None:
            self.free.append(line)


class Sampler:
    """The sampling state of one runner; used on its step thread."""

    def __init__(
        self,
        max_places: int,
        vocab_size: int,
        device: torch.device,
        *,
        end_ids: Iterable[int],
        pieces: SequenceOf[bytes],
    ) -> None:
        self.max_places = max_places
        self.pieces = pieces
        self._device = device
        self._end_ids = torch.tensor(sorted(end_ids), dtype=torch.int64, device=device)

        self.last_tokens = torch.zeros(max_places, dtype=torch.int64, device=device)
        # One column for each place, so that a place is set up with two copies.
        self._fractions = torch.zeros((3, max_places), device=device)
        self._temperature, self._top_p, self._min_p = self._fractions
        self._top_p.fill_(1.0)
        self._integers = torch.zeros((4, max_places), dtype=torch.int64, device=device)
        # The third is the first position where an answer may end, the last where it begins.
        self._top_k, self._seeds, self._first_ends, self._starts = self._integers
        self._recent = torch.full((max_places, REPEAT_WINDOW), -1, dtype=torch.int64, device=device)
        self._counts = _Counts(vocab_size, device)
        self._wishes: dict[int, _Wishes] = {}

    def begin(
        self,
        place: int,
        sampling: Sampling,
        *,
        num_prompt_tokens: int,
        generated: SequenceOf[int] = (),
        num_logprobs: int | None = None,
        is_constrained: bool = False,
    ) -> None:
        """Set up a place; `generated` is what a preempted answer had already."""
        self.end(place)
        first_end = num_prompt_tokens + sampling.min_tokens
        seed = secrets.randbits(62) if sampling.seed is None else sampling.seed
        top_p = 1.0 if sampling.top_p is None else sampling.top_p
        fractions = (max(0.0, sampling.temperature or 0.0), top_p, sampling.min_p or 0.0)
        integers = (
            max(0, sampling.top_k or 0),
            _signed(seed),
            _FOREVER if sampling.ignore_eos else first_end,
            num_prompt_tokens,
        )
        self._fractions[:, place] = self._sent(fractions)
        self._integers[:, place] = self._sent(integers)
        wishes = _Wishes(
            bias=tuple(sampling.logit_bias.items()),
            repeat=1.0 if sampling.repeat_penalty is None else sampling.repeat_penalty,
            frequency=sampling.frequency_penalty or 0.0,
            presence=sampling.presence_penalty or 0.0,
            num_logprobs=num_logprobs,
            is_constrained=is_constrained,
        )
        if wishes != _Wishes():
            self._wishes[place] = wishes
        if wishes.counts:
            self._counts.open(place, generated)
        if wishes.has_penalties:
            self._recent[place] = -1
            for at in range(max(0, len(generated) - REPEAT_WINDOW), len(generated)):
                self._recent[place, at % REPEAT_WINDOW] = generated[at]

    def end(self, place: int) -> None:
        """Forget a place; idempotent."""
        self._wishes.pop(place, None)
        self._counts.close(place)

    def is_plain(self, places: Iterable[int]) -> bool:
        """Whether `sample_plain` does for all of these places."""
        wishes = self._wishes
        return not wishes or not any(place in wishes for place in places)

    def sample_plain(self, logits: Tensor, places: Tensor, positions: Tensor) -> Tensor:
        """Tokens [R] for rows that ask for nothing special; `logits` [R, V] is changed."""
        self._ban_ends(logits, places, positions)
        return self._draw(logits, places, positions, self._top_k[places])

    def sample(
        self,
        logits: Tensor,
        places: Tensor,
        positions: Tensor,
        masks: Tensor | None,
        *,
        at: SequenceOf[int],
    ) -> SampledTokens:
        """Tokens [R] for any rows; `at` has their places on the host. `logits` is changed."""
        asked = [self._wishes.get(place, _PLAIN) for place in at]
        raw = None
        if any(wishes.num_logprobs is not None for wishes in asked):
            raw = logits.clone()
        self._add_bias(logits, asked)
        self._ban_ends(logits, places, positions)
        if masks is not None:
            apply_bitmask(logits, masks)
        top_k = self._top_k[places]
        if any(wishes.has_penalties for wishes in asked):
            self._penalize(logits, asked, at, places, top_k)
        tokens = self._draw(logits, places, positions, top_k)
        self._note(tokens, asked, at, places, positions)
        logprobs = None
        if raw is not None:
            num_top = [wishes.num_logprobs for wishes in asked]
            logprobs = Logprobs.of(raw, tokens, num_top, self.pieces)
        return SampledTokens(tokens, logprobs)

    def _sent(self, values: Any) -> Tensor:
        return to_device(torch.as_tensor(values), self._device)

    def _draw(self, logits: Tensor, places: Tensor, positions: Tensor, top_k: Tensor) -> Tensor:
        tokens = sample(
            logits,
            temperature=self._temperature[places],
            top_k=top_k,
            top_p=self._top_p[places],
            min_p=self._min_p[places],
            seeds=self._seeds[places],
            positions=positions,
        )
        self.last_tokens[places] = tokens
        return tokens

    def _ban_ends(self, logits: Tensor, places: Tensor, positions: Tensor) -> None:
        """No end where the answer must go on."""
        if not len(self._end_ids):
            return
        must_go_on = positions < self._first_ends[places]
        ends = logits[:, self._end_ids]
        logits[:, self._end_ids] = ends.masked_fill(must_go_on[:, None], float("-inf"))

    def _add_bias(self, logits: Tensor, asked: SequenceOf[_Wishes]) -> None:
        width = max((len(wishes.bias) for wishes in asked), default=0)
        if not width:
            return
        ids = torch.full((len(asked), width), -1, dtype=torch.int64)
        values = torch.zeros((len(asked), width))
        for row, wishes in enumerate(asked):
            for column, (token, value) in enumerate(wishes.bias):
                ids[row, column] = token
                values[row, column] = value
        add_bias(logits, self._sent(ids), self._sent(values))

    def _penalize(
        self,
        logits: Tensor,
        asked: SequenceOf[_Wishes],
        at: SequenceOf[int],
        places: Tensor,
        top_k: Tensor,
    ) -> None:
        penalized = self._sent([wishes.has_penalties for wishes in asked])
        # Penalties are not given to what top-k drops anyway, nor may they change what it drops.
        implied = torch.where(top_k > 0, top_k, IMPLICIT_TOP_K)
        keep_top_k(logits, torch.where(penalized, implied, 0))
        repeat = self._sent([wishes.repeat for wishes in asked])
        repeat_penalty(logits, self._recent[places], repeat)
        if any(wishes.counts for wishes in asked):
            lines = [self._counts.lines.get(place, -1) for place in at]
            count_penalties(
                logits,
                self._counts.table,
                self._sent(lines),
                self._sent([wishes.frequency for wishes in asked]),
                self._sent([wishes.presence for wishes in asked]),
            )

    def _note(
        self,
        tokens: Tensor,
        asked: SequenceOf[_Wishes],
        at: SequenceOf[int],
        places: Tensor,
        positions: Tensor,
    ) -> None:
        """Remember what was sampled where a penalty will ask for it."""
        if any(wishes.has_penalties for wishes in asked):
            self._recent[places, (positions - self._starts[places]) % REPEAT_WINDOW] = tokens
        rows = [row for row, place in enumerate(at) if place in self._counts.lines]
        if rows:
            lines = [self._counts.lines[at[row]] for row in rows]
            line_of = self._sent(lines)
            # Each line is one row's, so no index comes twice.
            self._counts.table[line_of, tokens[self._sent(rows)]] += 1


_PLAIN = _Wishes()


def _signed(seed: int) -> int:
    """The same 64 bits as an int64 has them."""
    bits = seed % 2**64
    return bits - 2**64 if bits >= 2**63 else bits
