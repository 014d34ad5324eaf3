"""One answer as it is compared, whoever gave it, and the notes from which it is put together."""

import time
from collections.abc import Callable, Sequence
from typing import Literal

from msgspec import Struct

from engines.protocol import TokenLogprob
from engines.rendering import RenderedPrompt


class Failure(Struct, frozen=True, kw_only=True):
    """Why there is no answer.

    "refused": this request can never succeed there, which may well be the same
    everywhere. "failed": it might have, so that nothing is known.
    """

    kind: Literal["refused", "failed"]
    code: str
    message: str


class CalledTool(Struct, frozen=True):
    """A tool call; `arguments` is what the model wrote, JSON or not."""

    name: str
    arguments: str


class Answer(Struct, frozen=True, kw_only=True):
    """What came of one prompt in one place. None: it was not told."""

    target: str = ""  # which engine answered, and its own name for the model
    failure: Failure | None = None
    rendered: RenderedPrompt | None = None
    text: str = ""
    reasoning: str = ""
    tool_calls: Sequence[CalledTool] = ()
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    logprobs: Sequence[TokenLogprob] = ()  # of `text`, a token each
    vectors: Sequence[Sequence[float]] = ()
    first_output_seconds: float | None = None
    tokens_per_second: float | None = None  # from the first output to the last


class Notes:
    """What one answer has said so far, and when. The task that asks owns it."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._began = clock()
        self._first: float | None = None
        self._last = self._began
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._calls: dict[int, tuple[list[str], list[str]]] = {}
        self.finish_reason: str | None = None
        self.prompt_tokens: int | None = None
        self.completion_tokens: int | None = None

    def text(self, text: str, logprobs: Sequence[TokenLogprob] = ()) -> None:
        """More answer text."""
        self._text.append(text)
        self._logprobs.extend(logprobs)
        self._heard()

    def reasoning(self, text: str) -> None:
        """More thinking."""
        self._reasoning.append(text)
        self._heard()

    def tool_call(self, index: int, name: str | None, arguments: str) -> None:
        """More of the tool call of this index."""
        names, pieces = self._calls.setdefault(index, ([], []))
        names.append(name or "")
        pieces.append(arguments)
        self._heard()

    def answer(self) -> Answer:
        """All that was said."""
        return Answer(
            text="".join(self._text),
            reasoning="".join(self._reasoning),
            tool_calls=[
                CalledTool("".join(names), "".join(pieces))
                for _, (names, pieces) in sorted(self._calls.items())
            ],
            finish_reason=self.finish_reason,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            logprobs=self._logprobs,
            first_output_seconds=None if self._first is None else self._first - self._began,
            tokens_per_second=self._tokens_per_second(),
        )

    def _heard(self) -> None:
        self._last = self._clock()
        if self._first is None:
            self._first = self._last

    def _tokens_per_second(self) -> float | None:
        """The first token came with the first output: it is not of the time after it.

        Tool calls come in large pieces, or whole at the end: no rate can be told from them.
        """
        if self._first is None or not self.completion_tokens or self._last <= self._first:
            return None
        if self._calls:
            return None
        return (self.completion_tokens - 1) / (self._last - self._first)
