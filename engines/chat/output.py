"""The whole way out for one request: a model's bytes become the events a client gets.

    bytes -> text -> thinking or answer -> tool calls or text -> up to a stop string

Each stage holds back only what may still turn into something else, and gives
pieces that, joined, are what it was given. So a piece's place in the text is
known, and with it the tokens, and the log-probabilities, that it came from.
"""

from collections.abc import Sequence

from engines.chat.markup import Kind, Piece
from engines.chat.reasoning import ReasoningSplitter
from engines.chat.stops import StopStrings
from engines.chat.tool_calls import ToolCallParser
from engines.chat.tool_format import ToolFormat
from engines.chat.utf8 import TokenLedger, Utf8Decoder
from engines.protocol import (
    Output,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    Tool,
    ToolChoice,
)


class ChatOutput:
    """One answer on its way out; used by one thread at a time.

    Stop strings end the answer's text: they are not looked for in thinking or
    in the arguments of tool calls. Once `is_finished`, the engine should stop
    generating: more bytes would be dropped.
    """

    def __init__(  # noqa: PLR0913 (each is a field of the request or a fact of the model)
        self,
        *,
        stops: Sequence[str] = (),
        tools: Sequence[Tool] = (),
        tool_choice: ToolChoice = "auto",
        tool_format: ToolFormat = ToolFormat.HERMES,
        starts_in_reasoning: bool = False,
        splits_reasoning: bool = False,
        parallel_tool_calls: bool = True,
    ) -> None:
        self.stopped: str | None = None
        self.num_reasoning_tokens = 0
        self._utf8 = Utf8Decoder()
        self._stops = StopStrings(stops) if any(stops) else None
        self._reasoning = (
            ReasoningSplitter(starts_in_reasoning=starts_in_reasoning)
            if splits_reasoning or starts_in_reasoning
            else None
        )
        self._calls = (
            ToolCallParser(
                tool_format,
                [tool.name for tool in tools],
                parallel=parallel_tool_calls,
                forced=tool_choice != "auto",
            )
            if tools and tool_choice != "none"
            else None
        )
        self._ledger: TokenLedger | None = None
        self._num_fed = 0  # characters, of everything that was decoded
        self._num_sent = 0  # characters, of everything that was decided

    @property
    def called_tools(self) -> bool:
        """At least one tool call was sent."""
        return self._calls is not None and self._calls.num_calls > 0

    @property
    def is_finished(self) -> bool:
        """A stop string came, or the only tool call that was allowed."""
        return self.stopped is not None or (self._calls is not None and self._calls.is_done)

    def feed(self, token: bytes, logprob: TokenLogprob | None = None) -> Sequence[Output]:
        """Take one token's bytes; return the events that are ready to be sent."""
        if self.stopped is not None:
            return ()
        text = self._utf8.feed(token)
        if logprob is not None:
            if self._ledger is None:
                self._ledger = TokenLedger()
            self._ledger.add(logprob, start=self._num_fed, end=self._num_fed + len(text))
        self._num_fed += len(text)
        if self._reasoning is None:
            return self._answer(text) if text else ()
        was_reasoning = self._reasoning.is_reasoning
        events = self._sorted(self._reasoning.feed(text)) if text else ()
        self.num_reasoning_tokens += was_reasoning or self._reasoning.is_reasoning
        return events

    def finish(self, *, is_cut: bool = False) -> Sequence[Output]:
        """Return what was held back; the answer ends here, by a limit if it `is_cut`."""
        if self.stopped is not None:
            return ()
        events: list[Output] = []
        text = self._utf8.flush()
        self._num_fed += len(text)
        if self._reasoning is not None:
            events += self._sorted([*self._reasoning.feed(text), *self._reasoning.flush()])
        elif text:
            events += self._answer(text)
        if self._calls is not None:
            events += self._called(self._calls.flush(is_cut=is_cut))
        if self._stops is not None and self.stopped is None:
            events += self._said(self._stops.flush())
        return events

    def _sorted(self, pieces: Sequence[Piece]) -> list[Output]:
        """Send thinking on its way, and the rest through the other stages."""
        events: list[Output] = []
        for kind, text, _ in pieces:
            if self.stopped is not None:
                break
            if kind is Kind.TEXT:
                events += self._answer(text)
                continue
            if kind is Kind.REASONING:
                events.append(ReasoningDelta(text))
            self._num_sent += len(text)
        return events

    def _answer(self, text: str) -> Sequence[Output]:
        return (
            self._stopped_text(text)
            if self._calls is None
            else self._called(self._calls.feed(text))
        )

    def _called(self, pieces: Sequence[Piece]) -> list[Output]:
        events: list[Output] = []
        for kind, text, call in pieces:
            if kind is Kind.TEXT:
                events += self._stopped_text(text)
                if self.stopped is not None:
                    break
                continue
            if self._stops is not None:
                events += self._said(self._stops.flush())
            self._num_sent += len(text)
            if call is not None:
                events.append(call)
        return events

    def _stopped_text(self, text: str) -> Sequence[Output]:
        if self._stops is None:
            return self._said(text)
        text, self.stopped = self._stops.feed(text)
        return self._said(text)

    def _said(self, text: str) -> Sequence[Output]:
        if not text:
            return ()
        start = self._num_sent
        self._num_sent = end = start + len(text)
        if self._ledger is None:
            return (TextDelta(text),)
        return (TextDelta(text, self._ledger.take(start=start, end=end)),)
