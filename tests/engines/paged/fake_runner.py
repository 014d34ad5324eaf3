"""A device that does what a real one does with blocks, and nothing else.

Every cell of its cache holds one token and the salt of who wrote it. A row stores its
tokens, then reads its whole context back through its block table, and the next token is a
digest of what it read. So a block that was shared, copied, given away or overwritten at the
wrong time changes an answer, and `answer` says what it should have been.
"""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

from engines.paged.sequence import Sequence, StepPlan, StepResult

VOCABULARY = 61


def next_token(context: Iterable[int]) -> int:
    """The token that follows, by the only weights this model has."""
    text = ",".join(map(str, context)).encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big") % VOCABULARY


def answer(prompt: list[int], num_tokens: int, stop_tokens: Iterable[int] = ()) -> list[int]:
    """What the model says to a prompt, up to and with a stop token."""
    tokens = list(prompt)
    stops = set(stop_tokens)
    for _ in range(num_tokens):
        tokens.append(next_token(tokens))
        if tokens[-1] in stops:
            break
    return tokens[len(prompt) :]


@dataclass
class FakePending:
    """A launched step; `failure` is raised when it is read."""

    number: int
    result: StepResult
    events: list[str]
    failure: Exception | None = None
    is_read: bool = False

    def read(self) -> StepResult:
        assert not self.is_read, "a step is read once"
        self.is_read = True
        self.events.append(f"read {self.number}")
        if self.failure is not None:
            raise self.failure
        return self.result


@dataclass
class FakeRunner:
    """Obeys the Runner protocol of engines/paged/generation.py, and checks its caller."""

    block_size: int
    cells: dict[tuple[int, int], tuple[int, str]] = field(default_factory=dict)
    last_tokens: dict[int, int] = field(default_factory=dict)
    seated: dict[int, Sequence] = field(default_factory=dict)
    plans: list[StepPlan] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    scored: set[str] = field(default_factory=set)  # ids of those who want their prompt scored
    refused: dict[str, Exception] = field(default_factory=dict)  # by sequence id, from begin
    failures: dict[str, list[Exception]] = field(default_factory=dict)  # by method, next first
    # The step of this number waits until `resumed` is set: an answer that is not over yet.
    paused_at: int | None = None
    resumed: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        assert not self.events, "the thread starts before anything is computed"

    def begin(self, sequence: Sequence, /) -> None:
        if sequence.id in self.refused:
            raise self.refused[sequence.id]
        assert sequence.place not in self.seated, "a place has one sequence"
        self.seated[sequence.place] = sequence

    def end(self, sequence: Sequence, place: int, /) -> None:
        self._maybe_fail("end")
        assert self.seated.pop(place) is sequence

    def forward(self, plan: StepPlan, /) -> list[tuple[int, int, int]]:
        """Returns (row, place, token) of each row that samples."""
        self._maybe_fail("forward")
        if len(self.plans) == self.paused_at:
            self.resumed.wait()
        self.events.append(f"forward {len(self.plans)}")
        self.plans.append(plan)
        assert plan.num_tokens == sum(row.count for row in plan.rows)
        self._copy(plan.copies)
        contexts = [self._store(row.sequence, row.start, row.count) for row in plan.rows]
        launched: list[tuple[int, int, int]] = []
        for index, row in enumerate(plan.rows):
            if row.samples:
                assert len(contexts[index]) == row.start + row.count
                token = next_token(self._attend(row.sequence, contexts[index]))
                launched.append((index, row.sequence.place, token))
        return launched

    def sample(
        self, launched: list[tuple[int, int, int]], masks: Mapping[int, set[int]], /
    ) -> FakePending:
        self._maybe_fail("sample")
        number = len(self.plans) - 1
        self.events.append(f"sample {number}")
        tokens: list[int] = []
        for row, place, token in launched:
            allowed = masks.get(row)
            while allowed is not None and token not in allowed:
                token = (token + 1) % VOCABULARY
            self.last_tokens[place] = token
            tokens.append(token)
        prompts = {
            index: [-float(token) for token in row.sequence.tokens[row.start :][: row.count]]
            for index, row in enumerate(self.plans[-1].rows)
            if row.sequence.id in self.scored
        }
        result = StepResult(tokens, [-float(token) for token in tokens], prompts)
        failures = self.failures.get("read")
        return FakePending(number, result, self.events, failures.pop(0) if failures else None)

    def close(self) -> None:
        self.events.append("close")

    def _copy(self, copies: Iterable[tuple[int, int]]) -> None:
        sources = {source for source, _ in copies}
        targets = [target for _, target in copies]
        assert len(targets) == len(set(targets))
        assert not sources & set(targets), "copies of one step may be done in any order"
        for source, target in copies:
            for offset in range(self.block_size):
                self.cells[target, offset] = self.cells[source, offset]

    def _store(self, sequence: Sequence, start: int, count: int) -> list[tuple[int, int]]:
        """Write a row's tokens; returns the cells of its whole context."""
        for position in range(start, start + count):
            if position < len(sequence.tokens):
                token = sequence.tokens[position]
            else:
                assert position == start, "only one token is the device's own"
                token = self.last_tokens[sequence.place]
            self.cells[self._cell(sequence, position)] = (token, sequence.cache_salt)
        return [self._cell(sequence, position) for position in range(start + count)]

    def _cell(self, sequence: Sequence, position: int) -> tuple[int, int]:
        return sequence.blocks[position // self.block_size], position % self.block_size

    def _attend(self, sequence: Sequence, context: list[tuple[int, int]]) -> list[int]:
        read = [self.cells[cell] for cell in context]
        assert {salt for _, salt in read} == {sequence.cache_salt}, "read another salt's block"
        return [token for token, _ in read]

    def _maybe_fail(self, method: str) -> None:
        failures = self.failures.get(method)
        if failures:
            raise failures.pop(0)
