"""What is asked, what came back, and who can be asked.

All times are of `time.perf_counter`, in seconds. An answer keeps when each
piece of output arrived, and how many tokens it had: the one is seen by the
client, the other is told by the server, and neither is guessed from the other.
"""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct


class Question(Struct, frozen=True, kw_only=True):
    """One turn to ask: text, or token ids where the subject takes them."""

    text: str = ""
    token_ids: Sequence[int] = ()
    max_tokens: int
    temperature: float = 0.0
    ignore_eos: bool = False  # always answer with `max_tokens` tokens


class Conversation(Struct, frozen=True, kw_only=True):
    """Questions of one caller, each asked when the one before is answered."""

    questions: Sequence[Question]
    system: str = ""


class Turn(Struct, frozen=True):
    """A message that is already part of the conversation."""

    role: str
    text: str


class Answer(Struct, kw_only=True):
    """One finished answer, as its client saw it."""

    text: str
    arrivals: Sequence[float]  # of each piece that carried output; never empty
    finished_at: float
    prompt_tokens: int = 0
    cached_tokens: int = 0  # of the prompt
    completion_tokens: int = 0
    tokens_were_told: bool = True  # False: the server told no usage, pieces were counted


class AskFailed(Exception):
    """One question got no whole answer; `kind` is what failures are counted by."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


class SubjectUnusable(Exception):
    """Nothing can be measured here; says why and what to change."""


class Subject(Protocol):
    """A server or an engine that is being measured."""

    name: str
    shares_process: bool  # does it compute in the client's own process?

    async def ask(self, question: Question, history: Sequence[Turn]) -> Answer:
        """Ask one question after `history`. Raises `AskFailed`."""
        ...


class AnswerNotes:
    """Collects one answer's pieces while they arrive."""

    def __init__(self) -> None:
        self.arrivals: list[float] = []
        self.texts: list[str] = []
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.completion_tokens: int | None = None

    def piece(self, text: str, now: float) -> None:
        """Note output that has just arrived."""
        self.arrivals.append(now)
        self.texts.append(text)

    def finished(self, now: float) -> Answer:
        """The whole answer. Raises `AskFailed` for one without a single token."""
        num_tokens = len(self.arrivals)
        if self.completion_tokens is not None:
            num_tokens = self.completion_tokens
        if num_tokens == 0:
            raise AskFailed("empty", "the answer has no tokens")
        return Answer(
            text="".join(self.texts),
            # Tokens that show as no text: all that was seen of them is the end.
            arrivals=self.arrivals or [now],
            finished_at=now,
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
            completion_tokens=num_tokens,
            tokens_were_told=self.completion_tokens is not None,
        )
